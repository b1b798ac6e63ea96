"""Stored reference log-probabilities: used for their own model and pairs, and for no others."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zephyr.model.example import Completion, Example, make_example
from zephyr.train import reference as module
from zephyr.train.loop import RunInterrupted
from zephyr.train.reference import compute_reference_logprobs

EXAMPLES = [make_example([i], [i + 1], [i + 2, i + 3]) for i in range(1, 6)]


class CountingModel:
    """A model whose log-probabilities are the tokens themselves, and that counts its calls."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def logprobs(
        self, examples: Sequence[Example], *, on_done: Callable[[int, list[np.ndarray]], None]
    ) -> list[list[np.ndarray]]:
        self.batch_sizes.append(len(examples))
        results = [[-c.ids.astype(np.float32) for c in e.completions] for e in examples]
        for at, result in enumerate(results):
            on_done(at, result)
        return results


@pytest.fixture(autouse=True)
def two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS_PER_WRITE", 2)


def compute_reference(
    path: Path, examples: list[Example] = EXAMPLES, name: str = "one", **more: Any
) -> tuple[list[list[float]], list[int]]:
    """The reference log-probabilities, and how many pairs each call of the model had."""
    model = CountingModel()
    sums = compute_reference_logprobs(model, name, examples, path, **more)  # type: ignore[arg-type]  # it is no Model
    return sums.tolist(), model.batch_sizes


EXPECTED = [[-(i + 1), -(2 * i + 5)] for i in range(1, 6)]


def test_sums_are_found_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    assert compute_reference(path) == (EXPECTED, [2, 2, 1])
    assert compute_reference(path) == (EXPECTED, [])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def mask_a_token(example: Example) -> Example:
    first, second = example.completions
    return Example(example.prompt, (first, Completion(second.ids, np.array([False, True]))))


@pytest.mark.parametrize(
    "other",
    [
        {"name": "two"},
        {"examples": [*EXAMPLES[:4], make_example([9], [6], [7, 8])]},
        {"examples": [*EXAMPLES[:4], make_example([5], [6, 7], [8])]},
        {"examples": [*EXAMPLES[:4], mask_a_token(EXAMPLES[4])]},
        {"examples": EXAMPLES[::-1]},
        {"examples": EXAMPLES[:4]},
        {"examples": [*EXAMPLES, EXAMPLES[0]]},
    ],
    ids=["model", "prompt", "border", "loss mask", "order", "fewer", "more"],
)
def test_what_is_kept_of_others_is_not_used(tmp_path: Path, other: dict[str, Any]) -> None:
    path = tmp_path / "reference.safetensors"
    compute_reference(path)
    sums, batch_sizes = compute_reference(path, **other)
    assert sum(batch_sizes) == len(sums) == len(other.get("examples", EXAMPLES))
    assert sums == compute_reference(tmp_path / "new", **other)[0]


def test_a_damaged_file_and_one_of_another_form_are_not_used(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "reference.safetensors"
    compute_reference(path)
    path.write_bytes(path.read_bytes()[:-3])
    assert compute_reference(path) == (EXPECTED, [2, 2, 1])
    save_file({"train": np.zeros((5, 2), dtype=np.float32)}, path)
    assert compute_reference(path) == (EXPECTED, [2, 2, 1])


def test_what_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    stop_flags = iter([False, True])
    with pytest.raises(RunInterrupted):
        compute_reference(path, should_stop=lambda: next(stop_flags))
    assert compute_reference(path) == (EXPECTED, [2, 1])
    uninterrupted = tmp_path / "whole"
    compute_reference(uninterrupted)
    assert path.read_bytes() == uninterrupted.read_bytes()
