"""Watching runs: a change is reported once, and nothing else is."""

from collections.abc import Callable

import pytest

from tests.report.conftest import RecipeRuns
from zephyr.report import watch

MakeRuns = Callable[..., RecipeRuns]


def test_each_change_of_a_run_is_reported_once(
    make_runs: MakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens between two polls, and after how many polls the next change was reported."""
    runs = make_runs("quiz")
    metrics = runs.store.find(runs.nodes["M0"]["fingerprint"]).path / "metrics.jsonl"
    actions: list[Callable[[], object]] = [
        lambda: None,
        lambda: runs.begin("M0"),  # nothing to be seen of it yet
        lambda: metrics.write_text('{"step": 1}\n'),
        lambda: None,
        lambda: metrics.write_text('{"step": 1}\n{"step": 2}\n'),
        lambda: runs.finish("M0"),
        lambda: None,
        lambda: runs.fail("M1", "no memory"),
    ]
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        actions[len(sleeps) - 1]()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    changes = watch.watch_runs(runs.store, "demo", 7)
    sleeps_at_changes = [len(sleeps) for _ in zip(range(5), changes, strict=False)]
    assert sleeps_at_changes == [0, 3, 5, 6, 8]
    assert set(sleeps) == {7}
