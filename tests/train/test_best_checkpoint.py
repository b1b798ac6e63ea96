"""The best weights of a training: which they are, and that a stopped training finds the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.train.test_loop import EXAMPLES, TOKEN_LOSS, read_metrics, spec, weights_equal
from zephyr.recipe.training import Optimization
from zephyr.train.best_checkpoint import BestCheckpoint
from zephyr.train.loop import ExampleSplit, LoopOptions, RunInterrupted, train

HOLDOUT_EXAMPLES = [
    *EXAMPLES[:2],
    *(f for f in tiny.random_examples(seed=5, count=12) if len(f.completions) == 1),
]


def best_step_and_weight(keep: str, *values: float) -> tuple[int, float]:
    """The best step, and the weight that is restored, where the weight is 10 x the step."""
    weight = torch.zeros(1)
    best = BestCheckpoint(keep, {"w": weight})
    for step, value in enumerate(values):
        weight.fill_(10 * step)
        best.update({"step": step, best.metric: value})
    best.restore()
    return best.step, float(weight)


def test_the_best_by_hand() -> None:
    """The lowest loss and the highest margin; of equals the earlier."""
    assert best_step_and_weight("best loss", 3, 1, 2, 1) == (1, 10)
    assert best_step_and_weight("best margin", 0, 0.5, -1, 0.5) == (1, 10)
    assert best_step_and_weight("best accuracy", 0.5, 0.4, 0.3) == (0, 0)


def train_tiny_model(
    folder: Path, recipe: Optimization, should_stop: Callable[[], bool] = lambda: False
) -> tuple[int, dict[str, torch.Tensor]]:
    """A training whose hold-out it soon forgets: the step it keeps, and its weights."""
    folder.mkdir(exist_ok=True)
    model = tiny.make_model("qwen2")
    model.causal.requires_grad_(True)
    options = LoopOptions("tree", 256, checkpoint_every=3, should_stop=should_stop)
    data, holdout = ExampleSplit(EXAMPLES, TOKEN_LOSS), ExampleSplit(HOLDOUT_EXAMPLES, TOKEN_LOSS)
    best_step = train(model.network, data, holdout, recipe, seed=1, folder=folder, options=options)
    return best_step, {n: p.detach().clone() for n, p in model.causal.named_parameters()}


def long_spec(**changes: object) -> Optimization:
    return spec(lr=0.02, schedule="constant", evaluate_every=2, keep="best loss", **changes)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[int, dict[str, torch.Tensor], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return *train_tiny_model(folder, long_spec(steps=14)), folder


def test_a_training_ends_with_the_weights_of_its_best_evaluation(
    uninterrupted: tuple[int, dict[str, torch.Tensor], Path], tmp_path: Path
) -> None:
    """They are those of a training that is no longer than up to there."""
    best_step, weights, folder = uninterrupted
    losses = {r["step"]: r["loss"] for r in read_metrics(folder) if r["split"] == "holdout"}
    assert list(losses) == list(range(0, 15, 2))
    assert best_step == min(losses, key=losses.__getitem__)
    assert 0 < best_step < 14
    assert weights_equal(
        weights, train_tiny_model(tmp_path, spec(lr=0.02, schedule="constant", steps=best_step))[1]
    )


@pytest.mark.parametrize("at", [1, 7, 12])
def test_stopped_and_resumed_keeps_the_same(
    uninterrupted: tuple[int, dict[str, torch.Tensor], Path], tmp_path: Path, at: int
) -> None:
    step_counter = iter(range(100))
    with pytest.raises(RunInterrupted):
        train_tiny_model(
            tmp_path, long_spec(steps=14), should_stop=lambda: next(step_counter) == at
        )
    best_step, weights = train_tiny_model(tmp_path, long_spec(steps=14))
    assert best_step == uninterrupted[0]
    assert weights_equal(weights, uninterrupted[1])
    assert read_metrics(tmp_path) == read_metrics(uninterrupted[2])
