"""Verdicts of a table and of a comparison: which are corrected together, and what is said."""

import json
from collections.abc import Callable

import pytest

from tests.report.conftest import RecipeRuns, item_scores, score_two_metrics
from zephyr.cli.evaluate import _comparison_row
from zephyr.report.model_comparison import compare_models, comparison_json
from zephyr.report.verdicts import PairedResult, decide
from zephyr.stats.intervals import Estimate
from zephyr.stats.significance import PairedTestResult

MakeRuns = Callable[..., RecipeRuns]
UP = Estimate(0.1, 0.02, 0.18, 200)


def result(p: float, *, primary: bool, estimate: Estimate = UP) -> PairedResult:
    return PairedResult(estimate, PairedTestResult(p, 0.1, 0.5), "higher", primary)


def test_only_primary_metrics_are_corrected_together() -> None:
    """Nine secondary ones with p = 0.9 beside a primary one with 0.03 change nothing of it."""
    results = {f"s{at}": result(0.9, primary=False) for at in range(9)}
    results |= {"a": result(0.03, primary=True), "s": result(0.04, primary=False)}
    decisions = decide(results)
    assert (decisions["a"].p, decisions["a"].comparisons, decisions["a"].verdict) == (
        0.03,
        1,
        "better",
    )
    assert (decisions["s"].p, decisions["s"].comparisons, decisions["s"].verdict) == (
        None,
        0,
        "better",
    )
    twice = decide({"a": result(0.03, primary=True), "b": result(0.03, primary=True)})
    assert (twice["a"].p, twice["a"].verdict) == (0.06, "cannot tell")
    assert twice["a"].note == "not after correction"
    assert decisions["s0"].note == "test not significant"


def test_where_no_direction_is_better_nothing_is_corrected_or_noted() -> None:
    neutral = PairedResult(UP, PairedTestResult(0.001, 0.1, 0.5), None, True)
    found = decide({"a": neutral, "b": result(0.03, primary=True)})
    assert (found["a"].verdict, found["a"].note, found["a"].p) == ("cannot tell", None, None)
    assert found["b"].p == 0.03


@pytest.mark.parametrize("low", [-0.02, 0.0, 0.02])
@pytest.mark.parametrize("p", [0.001, 0.03, 0.06, 0.9])
@pytest.mark.parametrize("primary", [True, False])
def test_no_interval_and_verdict_contradict_each_other_without_a_word(
    low: float, p: float, primary: bool
) -> None:
    estimate = UP._replace(low=low)
    decisions = decide({at: result(p, primary=primary, estimate=estimate) for at in range(2)})
    for decision in decisions.values():
        leaves_out_zero = low > 0
        is_told = decision.verdict != "cannot tell"
        assert leaves_out_zero == is_told or decision.note is not None
        assert decision.note is None or len(decision.note.split()) == 3


def test_compare_shows_ranks_notes_and_chance(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    score_two_metrics(runs, "M0/quiz", 5, 5)
    score_two_metrics(runs, "M1/quiz", 12, 11)
    found = compare_models(runs.store, "demo/M0", "demo/M1")
    rows = {row["metric"]: row for row in map(comparison_json, found)}
    assert set(rows) == {"acc", "f1"}
    assert (rows["acc"]["primary"], rows["acc"]["p_corrected"]) == (True, 1 / 64)
    assert (rows["f1"]["primary"], rows["f1"]["p_corrected"]) == (False, None)
    assert rows["f1"]["p_uncorrected"] == 1 / 32
    assert rows["acc"]["chance"] == 0.25
    assert json.dumps(rows)
    texts = {row.column.metric: _comparison_row(row) for row in found}
    assert texts["acc"][0] == "quiz acc % ↑ (chance 25.0)"
    assert texts["acc"][-1] == "better"
    assert texts["f1"][-1] == "better (secondary)"


def test_compare_of_equals_has_an_interval(make_runs: MakeRuns) -> None:
    """No item differs of 24, which other items might."""
    runs = make_runs("quiz")
    for model in ("M0", "M1"):
        runs.score(f"{model}/quiz", item_scores(10, 14))
    [row] = compare_models(runs.store, "demo/M0", "demo/M1")
    assert row.difference is not None
    assert -row.difference.low == row.difference.high > 0.1
    assert _comparison_row(row)[-2] == "0.0 [−14.2, 14.2]"
