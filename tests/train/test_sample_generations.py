"""The canary: what it counts, and that a training does not notice it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.train.test_loop import metrics, same, spec
from zephyr.model import adapter
from zephyr.model.example import make_example
from zephyr.recipe.training import Lora
from zephyr.train.loop import ExampleSplit, LoopOptions, RunInterrupted, train
from zephyr.train.objectives import TokenLoss
from zephyr.train.sample_generations import (
    MAX_PROMPTS,
    SampleGenerations,
    choose_prompts,
    repeated_ngram_share,
)

FORKS = [f for f in tiny.examples(count=60) if len(f.completions) == 2][:12]


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
    forks = [make_example([n % 20 + 1] * (n % 20 + 1), [5]) for n in range(40)]
    chosen = [p.tolist() for p in choose_prompts(forks, 3, 15)]
    assert len(chosen) == len({tuple(p) for p in chosen}) == MAX_PROMPTS
    assert all(len(p) < 15 for p in chosen)
    assert chosen == [p.tolist() for p in choose_prompts(forks, 3, 15)]
    assert chosen != [p.tolist() for p in choose_prompts(forks, 4, 15)]
    assert len(choose_prompts(forks[:3], 3, 15)) == 3


def trained(
    folder: Path, *, watched: bool, stop: Callable[[], bool] = lambda: False
) -> dict[str, torch.Tensor]:
    """A training of an adapter with dropout, which draws random numbers at every forward."""
    folder.mkdir(exist_ok=True)
    model = tiny.make_model("qwen2")
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(dropout=0.2), 1)
    canary = (
        SampleGenerations(model, choose_prompts(FORKS, 1, model.context_length), 9)
        if watched
        else None
    )
    data = ExampleSplit(FORKS, TokenLoss())
    pace = LoopOptions("tree", 256, checkpoint_every=3, should_stop=stop)
    recipe = spec(epochs=3, evaluate_every=2)
    train(
        model.network, data, data, recipe, seed=1, folder=folder, options=pace, eval_callback=canary
    )
    return {n: p.detach().clone() for n, p in model.causal.named_parameters() if p.requires_grad}


def test_a_training_ends_with_the_same_bits_with_and_without(tmp_path: Path) -> None:
    watched = trained(tmp_path / "a", watched=True)
    assert same(watched, trained(tmp_path / "b", watched=False))
    rows = metrics(tmp_path / "a")
    assert [r for r in rows if r["split"] != "canary"] == metrics(tmp_path / "b")
    seen = [r for r in rows if r["split"] == "canary"]
    assert [r["step"] for r in seen] == [0, 2, 4, 6, 8, 9]
    assert seen[0]["answers"] != seen[-1]["answers"]
    assert all(len(r["answers"]) == MAX_PROMPTS and r["length"] <= 9 for r in seen)
    asked = iter(range(100))
    with pytest.raises(RunInterrupted):
        trained(tmp_path / "c", watched=True, stop=lambda: next(asked) == 5)
    assert same(watched, trained(tmp_path / "c", watched=True))
    assert metrics(tmp_path / "c") == rows


def test_the_row_is_what_the_model_writes() -> None:
    model = tiny.make_model("qwen2", seed=3)
    prompts = choose_prompts(FORKS, 1, model.context_length)
    answers = model.generate(prompts, max_new_tokens=20)
    row = SampleGenerations(model, prompts, 20)(7)
    assert (row["step"], row["split"]) == (7, "canary")
    assert [a["text"] for a in row["answers"]] == [a.text for a in answers]
    assert row["stopped"] == sum(a.is_complete for a in answers) / MAX_PROMPTS
    assert row["length"] == sum(len(a.ids) for a in answers) / MAX_PROMPTS
