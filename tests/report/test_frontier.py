"""What models cost, from runs made by hand: the smallest that loses nothing, and why not others."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import Shelf, coins, new_shelf
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
RIGHT = {"M1": 18, "tiny": 2, "small": 17, "large": 18}
NATS = {"M1": 2.0, "tiny": 2.6, "small": 2.0, "large": 2.0}


def shelf_of(folder: Path, nats: dict[str, float], right: dict[str, int]) -> Shelf:
    tasks = ("quiz", "wikitext2", "footprint")
    shelf = new_shelf(folder, *({"name": n} for n in tasks), models=MODELS)
    for model in MODELS:
        steps = [{"step": "nf4", "kl": 0.25, "greatest": 1.5, "tokens": 99}]
        shelf.finish(model, divergence={"steps": steps}) if model != "M1" else shelf.finish(model)
        shelf.score(f"{model}/quiz", coins(right[model], 20 - right[model]))
        losses = {f"w{i}": 10 * nats[model] + 0.01 * i for i in range(30)}
        shelf.score(
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
        shelf.finish(f"{model}/footprint", scores={"metrics": metrics, "groups": {}, "counts": {}})
    shelf.record()
    return shelf


def ledger_of(shelf: Shelf) -> Results:
    return read_results(shelf.store, "demo")


def test_the_smallest_that_is_not_worse(tmp_path: Path) -> None:
    ledger = ledger_of(shelf_of(tmp_path, NATS, RIGHT))
    found = read_frontier(ledger)
    assert found is not None
    (said,) = found.recommendations
    assert said == (
        "The smallest of the 3 models made from M1 that is not told to be worse than it in any "
        "headline metric is small (nf4): 25% of its bytes. With 20 to 30 items a metric, small "
        "losses can't be told."
    )
    worse = {cost.row.model: cost.worse_metrics for cost in found.costs}
    assert worse["small"] == worse["large"] == ()
    assert worse["tiny"] == ("quiz acc % ↑", "wikitext2 perplexity ↓")
    assert found.protocols == ("CPU",)


def test_by_the_tasks_alone_where_all_lose_in_perplexity(tmp_path: Path) -> None:
    nats = NATS | {"small": 2.2, "large": 2.1}
    found = read_frontier(ledger_of(shelf_of(tmp_path, nats, RIGHT)))
    assert found is not None
    (said,) = found.recommendations
    assert "any headline metric but perplexity is small" in said
    assert "at +22.1% of perplexity" in said, "e to the 0.2"


def test_none_will_do(tmp_path: Path) -> None:
    right = dict.fromkeys(RIGHT, 1) | {"M1": 20}
    found = read_frontier(ledger_of(shelf_of(tmp_path, NATS, right)))
    assert found is not None
    assert found.recommendations == (
        "Each of the 3 models made from M1 that is smaller is told to be worse in some task.",
    )


def test_page_and_figure_show_it(tmp_path: Path) -> None:
    ledger = ledger_of(shelf_of(tmp_path, NATS, RIGHT))
    drawings = draw_figures(ledger)
    (figure,) = [drawing for drawing in drawings if drawing.name == "frontier"]
    assert "tiny 10.0 at 0.5 MB" in figure.alt
    assert "wikitext2 perplexity ↓,tiny,0.5," in figure.csv
    page = render_html(ledger, drawings)
    assert "500.0 kB" in page
    assert "nf4: 0.25" in page
    assert "nothing that could be told" in page


def test_no_section_where_nothing_was_measured(tmp_path: Path) -> None:
    shelf = new_shelf(tmp_path, {"name": "quiz"}, models={"M1": MODELS["M1"]})
    shelf.finish("M1")
    shelf.score("M1/quiz", coins(3, 3))
    shelf.record()
    ledger = ledger_of(shelf)
    assert read_frontier(ledger) is None
    assert 'id="size"' not in render_html(ledger, draw_figures(ledger))


@pytest.mark.parametrize("broken", ["footprint", "small"])
def test_what_is_missing_is_said(tmp_path: Path, broken: str) -> None:
    shelf = shelf_of(tmp_path, NATS, RIGHT)
    name = "small/footprint" if broken == "footprint" else "small"
    run = shelf.store.find(shelf.nodes[name]["fingerprint"])
    file = "scores.json" if broken == "footprint" else "divergence.json"
    (run.artifact / file).unlink()
    found = read_frontier(ledger_of(shelf))
    assert found is not None
    (cost,) = [c for c in found.costs if c.row.model == "small"]
    reason = cost.missing_reason if broken == "footprint" else cost.row.node.reason
    assert reason is not None
    assert f"damaged: artifact/{file} is missing" in reason
    assert not (cost.quantization_steps if broken == "small" else cost.footprint)
