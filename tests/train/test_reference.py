"""Kept references: used for the model and the pairs that they are of, and for no others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zephyr.model.example import Completion, Example, make_example
from zephyr.train import reference as module
from zephyr.train.loop import RunInterrupted
from zephyr.train.reference import compute_reference_logprobs

FORKS = [make_example([i], [i + 1], [i + 2, i + 3]) for i in range(1, 6)]


class Asked:
    """A model that answers with the tokens themselves, and counts what it is asked."""

    def __init__(self) -> None:
        self.pairs: list[int] = []

    def logprobs(self, forks: Sequence[Example]) -> list[list[np.ndarray]]:
        self.pairs.append(len(forks))
        return [[-c.ids.astype(np.float32) for c in f.completions] for f in forks]


@pytest.fixture(autouse=True)
def two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS_PER_WRITE", 2)


def found(
    path: Path, forks: list[Example] = FORKS, name: str = "one", **more: Any
) -> tuple[list[list[float]], list[int]]:
    """The sums, and how many pairs the model was asked at a time."""
    model = Asked()
    sums = compute_reference_logprobs(model, name, forks, path, **more)  # type: ignore[arg-type]  # it is no Model
    return sums.tolist(), model.pairs


EXPECTED = [[-(i + 1), -(2 * i + 5)] for i in range(1, 6)]


def test_sums_are_found_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    assert found(path) == (EXPECTED, [2, 2, 1])
    assert found(path) == (EXPECTED, [])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def unsupervised(whole: Example) -> Example:
    first, second = whole.completions
    return Example(whole.prompt, (first, Completion(second.ids, np.array([False, True]))))


@pytest.mark.parametrize(
    "other",
    [
        {"name": "two"},
        {"forks": [*FORKS[:4], make_example([9], [6], [7, 8])]},
        {"forks": [*FORKS[:4], make_example([5], [6, 7], [8])]},
        {"forks": [*FORKS[:4], unsupervised(FORKS[4])]},
        {"forks": FORKS[::-1]},
        {"forks": FORKS[:4]},
        {"forks": [*FORKS, FORKS[0]]},
    ],
    ids=["model", "prompt", "border", "marks", "order", "fewer", "more"],
)
def test_what_is_kept_of_others_is_not_used(tmp_path: Path, other: dict[str, Any]) -> None:
    path = tmp_path / "reference.safetensors"
    found(path)
    sums, asked = found(path, **other)
    assert sum(asked) == len(sums) == len(other.get("forks", FORKS))
    assert sums == found(tmp_path / "new", **other)[0]


def test_a_damaged_file_and_one_of_another_form_are_not_used(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "reference.safetensors"
    found(path)
    path.write_bytes(path.read_bytes()[:-3])
    assert found(path) == (EXPECTED, [2, 2, 1])
    save_file({"train": np.zeros((5, 2), dtype=np.float32)}, path)
    assert found(path) == (EXPECTED, [2, 2, 1])


def test_what_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    asked = iter([False, True])
    with pytest.raises(RunInterrupted):
        found(path, stop=lambda: next(asked))
    assert found(path) == (EXPECTED, [2, 1])
    whole = tmp_path / "whole"
    found(whole)
    assert path.read_bytes() == whole.read_bytes()
