"""Watching: a change is told once, and nothing else is."""

from collections.abc import Callable

import pytest

from tests.report.conftest import Shelf
from zephyr.report import watch

MakeShelf = Callable[..., Shelf]


def test_each_change_of_a_run_is_told_once(
    make_shelf: MakeShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens between two looks, and after how many looks the next change was told."""
    shelf = make_shelf("quiz")
    metrics = shelf.store.find(shelf.nodes["M0"]["fingerprint"]).path / "metrics.jsonl"
    happens: list[Callable[[], object]] = [
        lambda: None,
        lambda: shelf.begin("M0"),  # nothing to be seen of it yet
        lambda: metrics.write_text('{"step": 1}\n'),
        lambda: None,
        lambda: metrics.write_text('{"step": 1}\n{"step": 2}\n'),
        lambda: shelf.finish("M0"),
        lambda: None,
        lambda: shelf.fail("M1", "no memory"),
    ]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        happens[len(slept) - 1]()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    looks = watch.watch_runs(shelf.store, "demo", 7)
    told = [len(slept) for _ in zip(range(5), looks, strict=False)]
    assert told == [0, 3, 5, 6, 8]
    assert set(slept) == {7}
