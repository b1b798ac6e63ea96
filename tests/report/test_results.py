"""The results: values as they were measured, differences by item, and why any is missing."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.report.conftest import MODELS, RecipeRuns, item_scores, score_two_metrics
from zephyr.errors import ZephyrError
from zephyr.report import paired_comparison as paired_module
from zephyr.report.results import Cell, Results, read_results
from zephyr.runs.store import Store, write_json
from zephyr.stats.intervals import Estimate
from zephyr.stats.proportions import clopper_pearson_interval, paired_difference_interval
from zephyr.stats.significance import mcnemar_p_value

MakeRuns = Callable[..., RecipeRuns]


def read_demo_results(runs: RecipeRuns) -> Results:
    return read_results(runs.store, "demo")


def cells(runs: RecipeRuns) -> dict[str, Cell]:
    """The only column, by model."""
    results = read_demo_results(runs)
    assert len(results.columns) == 1
    return {row.model: row.cells[0] for row in results.rows}


def test_a_score_is_what_was_measured(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    runs.score("M0/quiz", item_scores(8, 2))
    cell = cells(runs)["M0"]
    assert cell.estimate == Estimate(0.8, *clopper_pearson_interval(8, 10), 10)
    assert cell.protocol == "quiz@1 · by hand · n=10"
    assert cell.missing_reason is None
    assert cell.difference is None  # it comes from no other model


def test_differences_are_paired_by_item(make_runs: MakeRuns) -> None:
    """Of 18 items 14 are common, in another order: right on 10 of these, where M0 is on 2."""
    runs = make_runs("quiz")
    runs.score("M0/quiz", {"x": 1.0, **dict(reversed(item_scores(2, 12).items())), "y": 1.0})
    runs.score("M1/quiz", {"z": 0.0, **item_scores(10, 4), "u": 0.0})
    found = cells(runs)["M1"].difference
    assert found is not None
    assert found.estimate is not None
    assert found.baseline == "M0"
    assert found.estimate.value == pytest.approx((10 - 2) / 14)
    assert found.estimate.n == 14
    assert found.estimate[1:3] == paired_difference_interval(8, 0, 14)
    assert found.verdict == "better"


def test_a_model_right_where_the_other_is_wrong_and_one_that_is_its_equal(
    make_runs: MakeRuns,
) -> None:
    """The share of wins in ten of ten is at least 0.025^(1/10) = 0.69, that of losses 0.31 at most.

    Where none of ten differs, each is.
    """
    runs = make_runs("quiz")
    for name, right in (("M0", 0), ("M1", 10), ("M2", 0), ("M1-int8", 10)):
        runs.score(f"{name}/quiz", item_scores(right, 10 - right))
    found = {model: cell.difference for model, cell in cells(runs).items()}
    assert found["M0"] is None
    least = 2 * 0.025 ** (1 / 10) - 1
    for model, estimate, verdict in (
        ("M1", (1.0, least, 1.0, 10), "better"),
        ("M2", (-1.0, -1.0, -least, 10), "worse"),
        ("M1-int8", (0.0, *paired_difference_interval(0, 0, 10), 10), "cannot tell"),
    ):
        difference = found[model]
        assert difference is not None
        assert difference.estimate == pytest.approx(estimate)
        assert difference.verdict == verdict


def test_secondary_metrics_cost_primary_ones_no_verdict(make_runs: MakeRuns) -> None:
    """M1 has 7 more right in the primary metric, p = 1/64, and 6 in the other, p = 1/32.

    Three models are compared in the primary metric, so that 1/64 counts three times, and 3/64
    holds; were all six comparisons corrected together, neither would.
    """
    runs = make_runs("quiz")
    for name, right, other in (("M0", 5, 5), ("M1", 12, 11), ("M2", 12, 11), ("M1-int8", 12, 11)):
        score_two_metrics(runs, f"{name}/quiz", right, other)
    results = read_demo_results(runs)
    primary, secondary = (
        next(at for at, column in enumerate(results.columns) if column.metric == metric)
        for metric in ("acc", "f1")
    )
    assert results.primary_indices == [primary]
    first, second = (results.rows[1].cells[at].difference for at in (primary, secondary))
    assert first is not None
    assert second is not None
    assert (first.p, first.p_uncorrected, first.comparisons) == (3 / 64, 1 / 64, 3)
    assert (second.p, second.p_uncorrected, second.comparisons) == (None, 1 / 32, 0)
    assert (first.verdict, second.verdict) == ("better", "better")
    assert mcnemar_p_value(7, 0) == 1 / 64


def test_an_interval_without_zero_and_no_verdict_say_why(make_runs: MakeRuns) -> None:
    """Six of six that differ: p = 1/32, which three comparisons make 3/32."""
    runs = make_runs("quiz")
    for name, right in (("M0", 5), ("M1", 11), ("M2", 11), ("M1-int8", 11)):
        score_two_metrics(runs, f"{name}/quiz", right, right)
    row = read_demo_results(runs).rows[1]
    found = {cell.column.metric: cell.difference for cell in row.cells}
    first, second = found["acc"], found["f1"]
    assert first is not None
    assert second is not None
    assert first.estimate is not None
    assert first.estimate.low > 0
    assert (first.verdict, first.note) == ("cannot tell", "not after correction")
    assert (second.verdict, second.note) == ("better", None)


def test_chance_stands_beside_the_score_that_it_belongs_to(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    score_two_metrics(runs, "M0/quiz", 5, 5)
    results = read_demo_results(runs)
    assert sorted(column.metric for column in results.columns) == ["acc", "f1"]
    chances = {cell.column.metric: cell.chance for cell in results.rows[0].cells}
    assert chances == {"acc": 0.25, "f1": None}


def test_a_task_without_a_value_in_its_primary_metric_takes_a_headline(
    make_runs: MakeRuns,
) -> None:
    """As do runs of a version that had no primary metrics."""
    runs = make_runs("quiz")
    half = {"kind": "proportion", "better": "higher", "scale": 100, "protocol": "", "empty": "why"}
    half |= {"value": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    none = half | dict.fromkeys(("value", "low", "high")) | {"n": 0}
    metrics = [
        none | {"name": "match", "headline": True, "primary": True},
        half | {"name": "length", "headline": False},
        half | {"name": "rouge", "headline": True},
    ]
    runs.finish(
        "M0/quiz", scores={"metrics": metrics, "groups": {}, "counts": {}}, items=[{"id": "a"}]
    )
    results = read_demo_results(runs)
    assert [results.columns[at].metric for at in results.primary_indices] == ["rouge"]


def test_of_perplexity_less_is_better(make_runs: MakeRuns) -> None:
    runs = make_runs("text")
    metric_options: dict[str, Any] = {"metric": "perplexity", "kind": "exp-mean", "weight": 5}
    for model, perplexity in (("M0", 8), ("M1", 4)):
        values = {f"w{n}": 5 * math.log(perplexity) for n in range(6)}
        runs.score(f"{model}/text", values, **metric_options, better="lower", scale=1)
    found = cells(runs)["M1"].difference
    assert found is not None
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(-4)
    assert found.verdict == "better"


@pytest.mark.parametrize(
    ("moved", "verdict"),
    [(1 + 1e-7, "cannot tell"), (1 - 1e-7, "cannot tell"), (1 - 1e-4, "better")],
)
def test_rounding_makes_no_model_better(make_runs: MakeRuns, moved: float, verdict: str) -> None:
    runs = make_runs("text")
    metric_options: dict[str, Any] = {"metric": "perplexity", "kind": "exp-mean", "weight": 5}
    values = {str(at): 10 + math.sin(at) for at in range(50)}
    runs.score("M0/text", values, **metric_options, better="lower", scale=1)
    after = {key: value * moved for key, value in values.items()}
    runs.score("M1/text", after, **metric_options, better="lower", scale=1)
    found = cells(runs)["M1"].difference
    assert found is not None
    assert found.estimate is not None
    assert found.verdict == verdict
    assert (found.estimate.value == 0) == (verdict == "cannot tell")


def test_five_items_tell_nothing(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    runs.score("M0/quiz", item_scores(0, 5))
    runs.score("M1/quiz", item_scores(5, 0))
    found = cells(runs)["M1"].difference
    assert found is not None
    assert found.verdict == "cannot tell"


def test_items_with_one_id_pair_off_in_their_order(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    runs.score("M0/quiz", {"a#1": 1.0, "a#2": 0.0, "b": 0.0})
    runs.score("M1/quiz", {"a#1": 1.0, "a#2": 0.0, "b": 1.0})
    found = cells(runs)["M1"].difference
    assert found is not None
    assert found.estimate is not None
    assert found.estimate.n == 3
    assert found.estimate.value == pytest.approx(1 / 3)


def test_a_difference_that_cannot_be_made_says_why(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    runs.score("M1/quiz", item_scores(3, 3))
    runs.score("M2/quiz", {f"other{n}": 1.0 for n in range(6)})
    found = cells(runs)
    reasons = {
        m: c.difference and (c.difference.estimate, c.difference.missing_reason)
        for m, c in found.items()
    }
    assert reasons["M1"] == (None, "M0 has no value: not made yet")
    assert reasons["M2"] == (None, "no item was asked of both")
    assert reasons["M1-int8"] is None  # it has no value itself


def test_rewards_are_compared_with_the_reference_against_itself(make_runs: MakeRuns) -> None:
    """M1 is measured against M0, where M0 against itself ties; int8 against M0, as M1 is."""
    runs = make_runs("preferences")
    runs.add_node("M1/preferences", "evaluation", model="M1", reference="M0/preferences")
    runs.add_node("M1-int8/preferences", "evaluation", model="M1-int8", reference="M0/preferences")
    runs.write_nodes()
    runs.score("M0/preferences", dict.fromkeys(item_scores(4, 4)), metric="reward_accuracy")
    runs.score("M1/preferences", item_scores(8, 0), metric="reward_accuracy")
    runs.score("M1-int8/preferences", item_scores(6, 2), metric="reward_accuracy")
    found = cells(runs)
    assert found["M0"].missing_reason == "nothing to score"
    ours, small = found["M1"].difference, found["M1-int8"].difference
    assert ours is not None
    assert small is not None
    low, high = clopper_pearson_interval(8, 8)
    assert ours.estimate == Estimate(0.5, low - 0.5, high - 0.5, 8)
    assert ours.verdict == "better"
    assert small.estimate is not None
    assert small.estimate.value == pytest.approx(-2 / 8)


def test_strict_reward_accuracy_has_no_difference_to_a_reference(make_runs: MakeRuns) -> None:
    runs = make_runs("preferences")
    runs.add_node("M1/preferences", "evaluation", model="M1", reference="M0/preferences")
    runs.write_nodes()
    runs.score("M1/preferences", item_scores(7, 1), metric="reward_accuracy_strict")
    found = cells(runs)["M1"].difference
    assert found is not None
    assert found.missing_reason == "measured against itself, M0 ties on every pair"


def test_every_hole_says_why(make_runs: MakeRuns) -> None:
    """M1 failed, so nothing after it was made; the evaluation of M0 was killed half way."""
    runs = make_runs("quiz")
    runs.finish("M0")
    runs.begin("M0/quiz")
    runs.fail("M1", "the loss is no longer a number\n  to do:   lower `lr`")
    results = read_demo_results(runs)
    assert {row.model: row.cells[0].missing_reason for row in results.rows} == {
        "M0": "unfinished",
        "M1": "not made: M1 failed",
        "M2": "not made: M1 failed",
        "M1-int8": "not made: M1 failed",
    }
    states = {row.model: (row.node.state, row.node.reason) for row in results.rows}
    assert states["M0"] == ("finished", None)
    assert states["M1"] == ("failed", "failed: the loss is no longer a number")
    assert states["M2"] == ("missing", "not made: M1 failed")


def test_of_a_traceback_the_last_line_is_shown(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    runs.fail("M0/quiz", "Traceback (most recent call last):\n  File …\nKeyError: 'x'\n")
    assert cells(runs)["M0"].missing_reason == "failed: KeyError: 'x'"


def test_what_is_not_finite_is_no_value(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    runs.score("M0/quiz", item_scores(3, 3), high=math.inf)
    cell = cells(runs)["M0"]
    assert cell.estimate is None
    assert cell.missing_reason == "not a finite number"


def test_a_model_that_is_not_asked_says_so(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    del runs.nodes["M0/quiz"]
    runs.write_nodes()
    assert cells(runs)["M0"].missing_reason == "not asked of this model"


def test_rows_are_in_the_recipes_order_and_headlines_come_first(make_runs: MakeRuns) -> None:
    models = {"child": {"from": "base", "quantize": "nf4"}, "base": {"base": "some/model"}}
    runs = make_runs("first", "second", models=models)
    nodes = runs.nodes
    order = sorted(nodes, key=lambda name: name.startswith("child"))
    runs.nodes = {name: nodes[name] for name in order}
    runs.write_nodes()
    runs.score("base/first", item_scores(3, 3), headline=False)
    runs.score("base/second", item_scores(3, 3))
    runs.score("child/second", item_scores(6, 0))
    results = read_demo_results(runs)
    assert [row.model for row in results.rows] == ["child", "base"]
    assert [column.task for column in results.columns] == ["second", "first"]
    assert results.headline_indices == [0]
    difference = results.rows[0].cells[0].difference
    assert difference is not None
    assert difference.estimate is not None
    assert difference.estimate.value == pytest.approx(0.5)


def test_groups_of_a_task_are_kept(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    none = dict.fromkeys(("value", "low", "high")) | {"n": 0}
    half = Estimate(0.5, *clopper_pearson_interval(1, 2), 2)
    runs.score(
        "M0/quiz",
        item_scores(3, 3),
        groups={"safety": {"acc": half._asdict()}, "tone": {"acc": none}},
    )
    assert cells(runs)["M0"].groups == {"safety": half}


@pytest.mark.parametrize(
    ("model", "done"),
    [
        ({"base": "Qwen/Qwen1.5-0.5B-Chat"}, "base Qwen/Qwen1.5-0.5B-Chat"),
        ({"base": "/far/away/small"}, "base small"),
        (MODELS["M0"], "pretrained on text"),
        (MODELS["M1"], "SFT (LoRA r16) on chat"),
        ({"from": "B", "tune": {"data": "chat", "load": "nf4"}}, "SFT (QLoRA nf4 r8) on chat"),
        ({"from": "B", "tune": {"data": "chat", "lora": "none"}}, "SFT (all weights) on chat"),
        (MODELS["M2"] | {"from": "B"}, "DPO β 0.1 (LoRA r8) on pairs"),
        (
            {"from": "B", "align": {"data": "pairs", "loss": "simpo", "beta": 2, "gamma": 1}},
            "SimPO β 2 (LoRA r8) on pairs",
        ),
        (
            {"from": "B", "align": {"data": "pairs", "loss": "ipo", "adapter": "continue"}},
            "IPO β 0.1 (its adapter) on pairs",
        ),
        ({"from": "B", "quantize": "int8"}, "int8"),
    ],
)
def test_what_was_done_in_a_few_words(
    make_runs: MakeRuns, model: dict[str, Any], done: str
) -> None:
    models = {"B": {"base": "b"}, "M": model | ({"from": "B"} if "from" in model else {})}
    assert read_demo_results(make_runs(models=models)).rows[1].derivation == done


def test_bytes_made_are_those_of_the_artifact(make_runs: MakeRuns) -> None:
    runs = make_runs()
    run = runs.begin("M1")
    (run.artifact / "adapter").write_bytes(b"12345")
    (run.path / "checkpoint").write_bytes(b"1" * 1000)
    write_json(run.path / "env.json", {"seconds": 7.5})
    runs.store.finish(run)
    entry = read_demo_results(runs).nodes["M1"]
    assert entry.artifact_bytes == 5
    assert entry.run_bytes is not None
    assert entry.run_bytes > 1005
    assert entry.seconds == 7.5


def test_no_difference_is_computed_twice(
    make_runs: MakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    original = paired_module.paired_difference
    monkeypatch.setattr(
        paired_module, "paired_difference", lambda *a, **k: calls.append(a) or original(*a, **k)
    )
    runs = make_runs("quiz")
    runs.score("M0/quiz", item_scores(3, 3))
    runs.score("M1/quiz", item_scores(5, 1))
    assert read_demo_results(runs) == read_demo_results(runs)
    assert len(calls) == 1


def test_a_recipe_that_was_never_run_is_said(tmp_path: Any) -> None:
    with pytest.raises(ZephyrError, match="recipe demo has not been run here"):
        read_results(Store(tmp_path), "demo")


def test_a_recipe_of_another_version_is_said(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz", colour="red")
    assert "colour" in json.loads((runs.folder / "nodes.json").read_text())["spec"]
    with pytest.raises(ZephyrError, match="run by another version"):
        read_demo_results(runs)
