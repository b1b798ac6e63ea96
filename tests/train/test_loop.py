"""The loop: its schedule, its order of examples, and that a resumed run equals an unbroken one."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.recipe.training import Align, Optimization
from zephyr.train.loop import (
    ExampleSplit,
    LoopOptions,
    RunInterrupted,
    batch_indices,
    count_steps,
    learning_rate,
    train,
)
from zephyr.train.objectives import PreferenceLoss, TokenLoss

TOKEN_LOSS = TokenLoss()
EXAMPLES = [f for f in tiny.random_examples(count=60) if len(f.completions) == 2][:12]


def spec(**changes: Any) -> Optimization:
    return Optimization(**{"data": "d", "batch": 4, "lr": 1e-2, "log_every": 2, **changes})


def train_tiny_model(
    folder: Path,
    recipe: Optimization,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    objective: Any = TOKEN_LOSS,
    budget: int = 256,
    notify: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int, dict[str, Any]], None] = lambda *reported: None,
) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    model = tiny.make_model("qwen2")
    model.causal.requires_grad_(True)
    options = LoopOptions(
        "tree",
        budget,
        checkpoint_every=3,
        should_stop=should_stop,
        notify=notify,
        progress=progress,
    )
    data = ExampleSplit(EXAMPLES, objective)
    train(model.network, data, data, recipe, seed=1, folder=folder, options=options)
    return {n: p.detach().clone() for n, p in model.causal.named_parameters()}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if "second" not in k} for r in rows]


def weights_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[n], b[n]) for n in a)


def test_loss_falls_and_is_logged(tmp_path: Path) -> None:
    train_tiny_model(tmp_path, spec(epochs=8))
    rows = [r for r in read_metrics(tmp_path) if r["split"] == "train"]
    assert [r["step"] for r in rows] == list(range(2, 25, 2))
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert read_metrics(tmp_path)[-1]["split"] == "holdout"


def test_progress_has_the_loss_of_the_first_step_until_one_is_logged(tmp_path: Path) -> None:
    reported: list[tuple[int, dict[str, Any]]] = []
    train_tiny_model(
        tmp_path / "a",
        spec(epochs=1, log_every=3),
        progress=lambda phase, done, _, row: (
            reported.append((done, row)) if phase == "training" else None
        ),
    )
    train_tiny_model(tmp_path / "b", spec(epochs=1, log_every=1))
    first = next(row for row in read_metrics(tmp_path / "b") if row["split"] == "train")
    assert reported[0] == (1, {"loss": first["loss"]})
    assert reported[1] == (2, {})
    assert [r["step"] for r in read_metrics(tmp_path / "a") if r["split"] == "train"] == [3]


@pytest.mark.parametrize("at", [1, 3, 5, 7])
def test_stopped_and_resumed_is_bit_equal(tmp_path: Path, at: int) -> None:
    """Stopped by `should_stop` after `at` steps; the next run goes on from the checkpoint."""
    uninterrupted = train_tiny_model(tmp_path / "whole", spec(epochs=3))
    step_counter = iter(range(100))
    with pytest.raises(RunInterrupted):
        train_tiny_model(
            tmp_path / "cut", spec(epochs=3), should_stop=lambda: next(step_counter) == at
        )
    assert weights_equal(uninterrupted, train_tiny_model(tmp_path / "cut", spec(epochs=3)))
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "cut")


def test_a_crash_between_checkpoints_is_bit_equal(tmp_path: Path) -> None:
    uninterrupted = train_tiny_model(tmp_path / "whole", spec(epochs=3))
    step_counter = iter(range(100))

    def crash() -> bool:
        if next(step_counter) == 8:
            raise MemoryError
        return False

    with pytest.raises(MemoryError):
        train_tiny_model(tmp_path / "cut", spec(epochs=3), should_stop=crash)
    assert weights_equal(uninterrupted, train_tiny_model(tmp_path / "cut", spec(epochs=3)))
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "cut")


@pytest.mark.parametrize(
    ("num_damaged", "message"), [(1, "training goes on from step 6"), (2, "training starts over")]
)
def test_damaged_checkpoints_are_reported_and_skipped(
    tmp_path: Path, num_damaged: int, message: str
) -> None:
    uninterrupted = train_tiny_model(tmp_path / "whole", spec(epochs=3))
    step_counter = iter(range(100))
    with pytest.raises(RunInterrupted):
        train_tiny_model(
            tmp_path / "cut", spec(epochs=3), should_stop=lambda: next(step_counter) == 8
        )
    for path in sorted((tmp_path / "cut" / "checkpoints").iterdir())[-num_damaged:]:
        (path / "state.json").unlink()
    messages: list[str] = []
    assert weights_equal(
        uninterrupted, train_tiny_model(tmp_path / "cut", spec(epochs=3), notify=messages.append)
    )
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "cut")
    assert len(messages) == num_damaged
    assert messages[0].startswith("a checkpoint can't be used (step-00000008: ")
    assert all(text.endswith(message) for text in messages)


def test_metrics_that_were_lost_are_made_again(tmp_path: Path) -> None:
    """A checkpoint that counts on rows which are not there is not used."""
    uninterrupted = train_tiny_model(tmp_path / "whole", spec(epochs=3))
    step_counter = iter(range(100))
    with pytest.raises(RunInterrupted):
        train_tiny_model(
            tmp_path / "cut", spec(epochs=3), should_stop=lambda: next(step_counter) == 8
        )
    log = tmp_path / "cut" / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-10])
    messages: list[str] = []
    assert weights_equal(
        uninterrupted, train_tiny_model(tmp_path / "cut", spec(epochs=3), notify=messages.append)
    )
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "cut")
    assert "metrics.jsonl is shorter" in messages[0]


def test_the_token_budget_changes_nothing_beyond_rounding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    objective = PreferenceLoss(
        Align(data="d", beta=0.5), rng.normal(-30, 3, (len(EXAMPLES), 2)).astype(np.float32)
    )
    recipe = spec(epochs=2, lr=1e-3, log_every=1)
    train_tiny_model(tmp_path / "a", recipe, objective=objective, budget=1)
    train_tiny_model(tmp_path / "b", recipe, objective=objective, budget=10_000)
    for a, b in zip(read_metrics(tmp_path / "a"), read_metrics(tmp_path / "b"), strict=True):
        for key, value in a.items():
            assert b[key] == (value if key == "split" else pytest.approx(value, rel=1e-3)), key


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    objective = PreferenceLoss(
        Align(data="d"), np.full((len(EXAMPLES), 2), np.nan, dtype=np.float32)
    )
    with pytest.raises(ZephyrError, match="no longer a number"):
        train_tiny_model(tmp_path, spec(), objective=objective)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("cosine", 0, 1e-6),
        ("cosine", 9, 1e-5),
        ("cosine", 10, 1e-5),
        ("cosine", 60, 0.5e-5),
        ("cosine", 35, 1e-5 * (1 + math.cos(math.pi / 4)) / 2),
        ("linear", 60, 0.5e-5),
        ("linear", 109, 1e-7),
        ("constant", 4, 0.5e-5),
        ("constant", 109, 1e-5),
    ],
)
def test_learning_rate(schedule: str, step: int, expected: float) -> None:
    rate = learning_rate(spec(lr=1e-5, warmup=10, schedule=schedule), step, 110)
    assert rate == pytest.approx(expected, rel=1e-9)


def test_the_seeds_warm_up() -> None:
    """The seed's curves show 5.0e-7 at step 10 of a warm-up of 1,000 to 5e-5."""
    seeds = spec(lr=5e-5, warmup=1000)
    assert learning_rate(seeds, 9, 12_116) == pytest.approx(5e-7)
    assert count_steps(spec(batch=16, epochs=2), 96_928) == 12_116


def test_every_example_once_an_epoch() -> None:
    recipe = spec(epochs=2.5)
    steps = [batch_indices(recipe, 3, step, 10) for step in range(count_steps(recipe, 10))]
    stream = [i for indices in steps for i in indices]
    assert [len(m) for m in steps] == [4, 4, 4, 4, 4, 4, 1]
    assert sorted(stream[:10]) == sorted(stream[10:20]) == list(range(10))
    assert stream[:10] != stream[10:20]
    assert len(set(stream[20:])) == 5
