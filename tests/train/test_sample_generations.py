"""Sample generations: what they count, and that a training does not change by them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.train.test_loop import read_metrics, spec, weights_equal
from zephyr.model import adapter
from zephyr.model.example import make_example
from zephyr.model.model import Model
from zephyr.recipe.training import Lora
from zephyr.train.loop import ExampleSplit, LoopOptions, RunInterrupted, train
from zephyr.train.objectives import TokenLoss
from zephyr.train.sample_generations import (
    MAX_PROMPTS,
    SampleGenerations,
    choose_prompts,
    repeated_ngram_share,
)

EXAMPLES = [f for f in tiny.random_examples(count=60) if len(f.completions) == 2][:12]


def test_repeats_by_hand() -> None:
    """Of the five runs of 1 2 3 4 1 2 3 4, the fifth is the first again."""
    assert repeated_ngram_share([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repeated_ngram_share([7] * 10) == pytest.approx(6 / 7)
    assert (
        repeated_ngram_share([1, 2, 3, 4, 5])
        == repeated_ngram_share([1, 2, 3])
        == repeated_ngram_share([])
        == 0
    )


def test_prompts_are_different_have_room_and_follow_from_the_seed() -> None:
    examples = [make_example([n % 20 + 1] * (n % 20 + 1), [5]) for n in range(40)]
    chosen = [p.tolist() for p in choose_prompts(examples, 3, 15)]
    assert len(chosen) == len({tuple(p) for p in chosen}) == MAX_PROMPTS
    assert all(len(p) < 15 for p in chosen)
    assert chosen == [p.tolist() for p in choose_prompts(examples, 3, 15)]
    assert chosen != [p.tolist() for p in choose_prompts(examples, 4, 15)]
    assert len(choose_prompts(examples[:3], 3, 15)) == 3


def train_tiny_model(
    folder: Path, *, with_samples: bool, should_stop: Callable[[], bool] = lambda: False
) -> dict[str, torch.Tensor]:
    """A training of an adapter with dropout, which draws random numbers at every forward."""
    folder.mkdir(exist_ok=True)
    model = tiny.make_model("qwen2")
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(dropout=0.2), 1)
    eval_callback = (
        SampleGenerations(model, choose_prompts(EXAMPLES, 1, model.context_length), 9)
        if with_samples
        else None
    )
    data = ExampleSplit(EXAMPLES, TokenLoss())
    options = LoopOptions("tree", 256, checkpoint_every=3, should_stop=should_stop)
    recipe = spec(epochs=3, evaluate_every=2)
    train(
        model.network,
        data,
        data,
        recipe,
        seed=1,
        folder=folder,
        options=options,
        eval_callback=eval_callback,
    )
    return {n: p.detach().clone() for n, p in model.causal.named_parameters() if p.requires_grad}


def test_a_training_ends_with_the_same_bits_with_and_without(tmp_path: Path) -> None:
    weights = train_tiny_model(tmp_path / "a", with_samples=True)
    assert weights_equal(weights, train_tiny_model(tmp_path / "b", with_samples=False))
    rows = read_metrics(tmp_path / "a")
    assert [r for r in rows if r["split"] != "canary"] == read_metrics(tmp_path / "b")
    sample_rows = [r for r in rows if r["split"] == "canary"]
    assert [r["step"] for r in sample_rows] == [0, 2, 4, 6, 8, 9]
    assert sample_rows[0]["answers"] != sample_rows[-1]["answers"]
    assert all(len(r["answers"]) == MAX_PROMPTS and r["length"] <= 9 for r in sample_rows)
    step_counter = iter(range(100))
    with pytest.raises(RunInterrupted):
        train_tiny_model(
            tmp_path / "c", with_samples=True, should_stop=lambda: next(step_counter) == 5
        )
    assert weights_equal(weights, train_tiny_model(tmp_path / "c", with_samples=True))
    assert read_metrics(tmp_path / "c") == rows


def test_the_row_is_what_the_model_writes() -> None:
    model = tiny.make_model("qwen2", seed=3)
    prompts = choose_prompts(EXAMPLES, 1, model.context_length)
    answers = model.generate(prompts, max_new_tokens=20)
    row = SampleGenerations(model, prompts, 20)(7)
    assert (row["step"], row["split"]) == (7, "canary")
    assert [a["text"] for a in row["answers"]] == [a.text for a in answers]
    assert row["stopped"] == sum(a.is_complete for a in answers) / MAX_PROMPTS
    assert row["length"] == sum(len(a.ids) for a in answers) / MAX_PROMPTS


def test_where_none_can_be_asked_it_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights of a training without; adapters that were merged are apart again."""
    reasons: list[str] = []

    def fail(*arguments: object, **settings: object) -> None:
        raise IndexError("no state of a convolution")

    expected = train_tiny_model(tmp_path / "a", with_samples=False)
    monkeypatch.setattr(Model, "generate", fail)
    original = SampleGenerations.__init__

    def init(self: SampleGenerations, *arguments: Any) -> None:
        original(self, *arguments, on_failure=reasons.append)

    monkeypatch.setattr(SampleGenerations, "__init__", init)
    assert weights_equal(train_tiny_model(tmp_path / "b", with_samples=True), expected)
    assert reasons == ["IndexError: no state of a convolution"]
    assert read_metrics(tmp_path / "a") == read_metrics(tmp_path / "b")
