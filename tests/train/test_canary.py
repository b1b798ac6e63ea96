"""The canary: what it counts, and that a training does not notice it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.train.test_loop import metrics, same, spec
from zephyr.model import adapter
from zephyr.model.fork import fork
from zephyr.recipe.training import Lora
from zephyr.train.canary import PROMPTS, Canary, choose, repeated
from zephyr.train.loop import Interrupted, Pace, Split, train
from zephyr.train.objectives import TokenLoss

FORKS = [f for f in tiny.forks(count=60) if len(f.continuations) == 2][:12]


def test_repeats_by_hand() -> None:
    """Of the five runs of 1 2 3 4 1 2 3 4, the fifth is the first again."""
    assert repeated([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repeated([7] * 10) == pytest.approx(6 / 7)
    assert repeated([1, 2, 3, 4, 5]) == repeated([1, 2, 3]) == repeated([]) == 0


def test_prompts_are_different_have_room_and_follow_from_the_seed() -> None:
    forks = [fork([n % 20 + 1] * (n % 20 + 1), [5]) for n in range(40)]
    chosen = [p.tolist() for p in choose(forks, 3, 15)]
    assert len(chosen) == len({tuple(p) for p in chosen}) == PROMPTS
    assert all(len(p) < 15 for p in chosen)
    assert chosen == [p.tolist() for p in choose(forks, 3, 15)]
    assert chosen != [p.tolist() for p in choose(forks, 4, 15)]
    assert len(choose(forks[:3], 3, 15)) == 3


def trained(
    folder: Path, *, watched: bool, stop: Callable[[], bool] = lambda: False
) -> dict[str, torch.Tensor]:
    """A training of an adapter with dropout, which draws random numbers at every forward."""
    folder.mkdir(exist_ok=True)
    model = tiny.model("qwen2")
    model.wrapper = adapter.add_fresh(model.causal, None, Lora(dropout=0.2), 1)
    canary = Canary(model, choose(FORKS, 1, model.context), 9) if watched else None
    data = Split(FORKS, TokenLoss())
    pace = Pace("tree", 256, checkpoint_every=3, stop=stop)
    recipe = spec(epochs=3, evaluate_every=2)
    train(model.network, data, data, recipe, seed=1, folder=folder, pace=pace, watch=canary)
    return {n: p.detach().clone() for n, p in model.causal.named_parameters() if p.requires_grad}


def test_a_training_ends_with_the_same_bits_with_and_without(tmp_path: Path) -> None:
    watched = trained(tmp_path / "a", watched=True)
    assert same(watched, trained(tmp_path / "b", watched=False))
    rows = metrics(tmp_path / "a")
    assert [r for r in rows if r["split"] != "canary"] == metrics(tmp_path / "b")
    seen = [r for r in rows if r["split"] == "canary"]
    assert [r["step"] for r in seen] == [0, 2, 4, 6, 8, 9]
    assert seen[0]["answers"] != seen[-1]["answers"]
    assert all(len(r["answers"]) == PROMPTS and r["length"] <= 9 for r in seen)
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        trained(tmp_path / "c", watched=True, stop=lambda: next(asked) == 5)
    assert same(watched, trained(tmp_path / "c", watched=True))
    assert metrics(tmp_path / "c") == rows


def test_the_row_is_what_the_model_writes() -> None:
    model = tiny.model("qwen2", seed=3)
    prompts = choose(FORKS, 1, model.context)
    answers = model.generate(prompts, max_new_tokens=20)
    row = Canary(model, prompts, 20)(7)
    assert (row["step"], row["split"]) == (7, "canary")
    assert [a["text"] for a in row["answers"]] == [a.text for a in answers]
    assert row["stopped"] == sum(a.stopped for a in answers) / PROMPTS
    assert row["length"] == sum(len(a.ids) for a in answers) / PROMPTS
