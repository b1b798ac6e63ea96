"""The best weights of a training: which they are, and that a stopped training finds the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.train.test_loop import FORKS, LANGUAGE, metrics, same, spec
from zephyr.recipe.training import Optimization
from zephyr.train.best_checkpoint import BestCheckpoint
from zephyr.train.loop import ExampleSplit, LoopOptions, RunInterrupted, train

OTHERS = [*FORKS[:2], *(f for f in tiny.examples(seed=5, count=12) if len(f.completions) == 1)]


def seen(keep: str, *values: float) -> tuple[int, float]:
    """The best step, and the weight that is put back, where the weight is 10 x the step."""
    weight = torch.zeros(1)
    best = BestCheckpoint(keep, {"w": weight})
    for step, value in enumerate(values):
        weight.fill_(10 * step)
        best.update({"step": step, best.metric: value})
    best.restore()
    return best.step, float(weight)


def test_the_best_by_hand() -> None:
    """The lowest loss and the highest margin; of equals the earlier."""
    assert seen("best loss", 3, 1, 2, 1) == (1, 10)
    assert seen("best margin", 0, 0.5, -1, 0.5) == (1, 10)
    assert seen("best accuracy", 0.5, 0.4, 0.3) == (0, 0)


def trained(
    folder: Path, recipe: Optimization, stop: Callable[[], bool] = lambda: False
) -> tuple[int, dict[str, torch.Tensor]]:
    """A training whose hold-out it soon forgets: the step it keeps, and its weights."""
    folder.mkdir(exist_ok=True)
    model = tiny.make_model("qwen2")
    model.causal.requires_grad_(True)
    pace = LoopOptions("tree", 256, checkpoint_every=3, should_stop=stop)
    data, holdout = ExampleSplit(FORKS, LANGUAGE), ExampleSplit(OTHERS, LANGUAGE)
    kept = train(model.network, data, holdout, recipe, seed=1, folder=folder, options=pace)
    return kept, {n: p.detach().clone() for n, p in model.causal.named_parameters()}


def lasting(**changes: object) -> Optimization:
    return spec(lr=0.02, schedule="constant", evaluate_every=2, keep="best loss", **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, torch.Tensor], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return *trained(folder, lasting(steps=14)), folder


def test_a_training_ends_with_the_weights_of_its_best_evaluation(
    whole: tuple[int, dict[str, torch.Tensor], Path], tmp_path: Path
) -> None:
    """They are those of a training that is no longer than up to there."""
    kept, weights, folder = whole
    losses = {r["step"]: r["loss"] for r in metrics(folder) if r["split"] == "holdout"}
    assert list(losses) == list(range(0, 15, 2))
    assert kept == min(losses, key=losses.__getitem__)
    assert 0 < kept < 14
    assert same(weights, trained(tmp_path, spec(lr=0.02, schedule="constant", steps=kept))[1])


@pytest.mark.parametrize("at", [1, 7, 12])
def test_stopped_and_resumed_keeps_the_same(
    whole: tuple[int, dict[str, torch.Tensor], Path], tmp_path: Path, at: int
) -> None:
    asked = iter(range(100))
    with pytest.raises(RunInterrupted):
        trained(tmp_path, lasting(steps=14), stop=lambda: next(asked) == at)
    kept, weights = trained(tmp_path, lasting(steps=14))
    assert kept == whole[0]
    assert same(weights, whole[1])
    assert metrics(tmp_path) == metrics(whole[2])
