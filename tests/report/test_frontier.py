"""What models cost, from runs made by hand: the smallest that loses nothing, and why not others."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import RecipeRuns, item_scores, new_recipe_runs
from zephyr.report.figures import draw_figures
from zephyr.report.frontier import read_frontier
from zephyr.report.page import render_html
from zephyr.report.results import Results, read_results

MODELS: dict[str, Any] = {
    "M1": {"base": "some/model"},
    "tiny": {"from": "M1", "quantize": {"method": "int4", "embeddings": "int4"}},
    "small": {"from": "M1", "quantize": "nf4"},
    "large": {"from": "M1", "quantize": "int8"},
}
BYTES = {"M1": 4_000_000, "tiny": 500_000, "small": 1_000_000, "large": 2_000_000}
NUM_RIGHT = {"M1": 18, "tiny": 2, "small": 17, "large": 18}
NATS = {"M1": 2.0, "tiny": 2.6, "small": 2.0, "large": 2.0}


def make_quantized_runs(folder: Path, nats: dict[str, float], right: dict[str, int]) -> RecipeRuns:
    tasks = ("quiz", "wikitext2", "footprint")
    runs = new_recipe_runs(folder, *({"name": n} for n in tasks), models=MODELS)
    for model in MODELS:
        steps = [{"step": "nf4", "kl": 0.25, "greatest": 1.5, "tokens": 99}]
        runs.finish(model, divergence={"steps": steps}) if model != "M1" else runs.finish(model)
        runs.score(f"{model}/quiz", item_scores(right[model], 20 - right[model]))
        losses = {f"w{i}": 10 * nats[model] + 0.01 * i for i in range(30)}
        runs.score(
            f"{model}/wikitext2",
            losses,
            metric="perplexity",
            kind="exp-mean",
            weight=10,
            better="lower",
            scale=1,
        )
        row = {
            "protocol": "footprint@1 · measure · rule · CPU · random tokens · n=1",
            "empty": None,
        }
        metrics = [
            {"name": name, "value": value, "low": value, "high": value, "n": 1, **row}
            for name, value in (("disk", BYTES[model]), ("decode", 12.5))
        ]
        runs.finish(f"{model}/footprint", scores={"metrics": metrics, "groups": {}, "counts": {}})
    runs.write_nodes()
    return runs


def read_demo_results(runs: RecipeRuns) -> Results:
    return read_results(runs.store, "demo")


def test_the_smallest_that_is_not_worse(tmp_path: Path) -> None:
    results = read_demo_results(make_quantized_runs(tmp_path, NATS, NUM_RIGHT))
    found = read_frontier(results)
    assert found is not None
    (recommendation,) = found.recommendations
    assert recommendation == (
        "The smallest of the 3 models made from M1 that is not told to be worse than it in any "
        "primary metric is small (nf4): 25% of its bytes. With 20 to 30 items a metric, small "
        "losses can't be told."
    )
    worse = {cost.row.model: cost.worse_metrics for cost in found.costs}
    assert worse["small"] == worse["large"] == ()
    assert worse["tiny"] == ("quiz acc % ↑", "wikitext2 perplexity ↓")
    assert found.protocols == ("CPU",)


def test_by_the_tasks_alone_where_all_lose_in_perplexity(tmp_path: Path) -> None:
    nats = NATS | {"small": 2.2, "large": 2.1}
    found = read_frontier(read_demo_results(make_quantized_runs(tmp_path, nats, NUM_RIGHT)))
    assert found is not None
    (recommendation,) = found.recommendations
    assert "any primary metric but perplexity is small" in recommendation
    assert "at +22.1% of perplexity" in recommendation, "e to the 0.2"


def test_none_will_do(tmp_path: Path) -> None:
    right = dict.fromkeys(NUM_RIGHT, 1) | {"M1": 20}
    found = read_frontier(read_demo_results(make_quantized_runs(tmp_path, NATS, right)))
    assert found is not None
    assert found.recommendations == (
        "Each of the 3 models made from M1 that is smaller is told to be worse in some task.",
    )


def test_page_and_figure_show_it(tmp_path: Path) -> None:
    results = read_demo_results(make_quantized_runs(tmp_path, NATS, NUM_RIGHT))
    drawings = draw_figures(results)
    (figure,) = [drawing for drawing in drawings if drawing.name == "frontier"]
    assert "tiny 10.0 at 0.5 MB" in figure.alt
    assert "wikitext2 perplexity ↓,tiny,0.5," in figure.csv
    page = render_html(results, drawings)
    assert "500.0 kB" in page
    assert "nf4: 0.25" in page
    assert "nothing that could be told" in page


def test_no_section_where_nothing_was_measured(tmp_path: Path) -> None:
    runs = new_recipe_runs(tmp_path, {"name": "quiz"}, models={"M1": MODELS["M1"]})
    runs.finish("M1")
    runs.score("M1/quiz", item_scores(3, 3))
    runs.write_nodes()
    results = read_demo_results(runs)
    assert read_frontier(results) is None
    assert 'id="size"' not in render_html(results, draw_figures(results))


@pytest.mark.parametrize("broken", ["footprint", "small"])
def test_what_is_missing_is_said(tmp_path: Path, broken: str) -> None:
    runs = make_quantized_runs(tmp_path, NATS, NUM_RIGHT)
    name = "small/footprint" if broken == "footprint" else "small"
    run = runs.store.find(runs.nodes[name]["fingerprint"])
    file = "scores.json" if broken == "footprint" else "divergence.json"
    (run.artifact / file).unlink()
    found = read_frontier(read_demo_results(runs))
    assert found is not None
    (cost,) = [c for c in found.costs if c.row.model == "small"]
    reason = cost.missing_reason if broken == "footprint" else cost.row.node.reason
    assert reason is not None
    assert f"damaged: artifact/{file} is missing" in reason
    assert not (cost.quantization_steps if broken == "small" else cost.footprint)
