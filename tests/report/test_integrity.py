"""Damaged runs: a cell that says what is wrong and what to do, and a report of all the rest."""

import json
import math
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from tests.report.conftest import RecipeRuns, canary_row, item_scores, training_rows
from zephyr.errors import ZephyrError
from zephyr.report.page import render_html, write_report
from zephyr.report.results import read_results

MakeRuns = Callable[..., RecipeRuns]


@pytest.fixture
def runs(make_runs: MakeRuns) -> RecipeRuns:
    """M0 and M1 are made and evaluated; M1 has sample generations."""
    runs = make_runs("quiz")
    runs.finish("M0", training_rows([3.0, 2.0]))
    example_counts = {"train": 9, "train_overlong": 0, "holdout": 1, "holdout_overlong": 0}
    example_counts |= {"max_length": 128, "supervised_tokens": 43}
    sample_rows = [canary_row(0, "a"), canary_row(20, "b")]
    runs.finish(
        "M1", training_rows([2.0, 1.0]) + sample_rows, examples=example_counts, canary=["?"]
    )
    runs.score("M0/quiz", item_scores(0, 10))
    runs.score("M1/quiz", item_scores(10, 0))
    return runs


def run_path(runs: RecipeRuns, name: str) -> Path:
    return runs.store.find(runs.nodes[name]["fingerprint"]).path


def unfinished_reason(runs: RecipeRuns, name: str) -> str:
    """Why a node is not finished, as its report tells too."""
    results = read_results(runs.store, "demo")
    found = results.nodes[name]
    assert found.state == "damaged"
    assert found.reason is not None
    assert found.reason in unescape(render_html(results, []))
    return found.reason


@pytest.mark.parametrize("name", ["artifact/scores.json", "artifact/items.jsonl", "env.json"])
def test_a_file_that_is_missing(runs: RecipeRuns, name: str) -> None:
    path = run_path(runs, "M1/quiz")
    (path / name).unlink()
    assert unfinished_reason(runs, "M1/quiz") == f"damaged: {name} is missing; run it again"
    rows = {row.model: row.cells[0] for row in read_results(runs.store, "demo").rows}
    assert rows["M0"].estimate is not None
    assert (rows["M1"].estimate, rows["M1"].missing_reason) == (
        None,
        unfinished_reason(runs, "M1/quiz"),
    )


@pytest.mark.parametrize("name", ["artifact/scores.json", "artifact/items.jsonl", "env.json"])
def test_a_file_that_is_cut_off(runs: RecipeRuns, name: str) -> None:
    path = run_path(runs, "M1/quiz") / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    expected = f"damaged: {name} has {len(whole) - 7:,} of {len(whole):,} bytes; run it again"
    assert unfinished_reason(runs, "M1/quiz") == expected


def test_a_file_of_zeros(runs: RecipeRuns) -> None:
    """As a file system may leave it after a power cut: of its size, without its content."""
    path = run_path(runs, "M1/quiz") / "artifact" / "scores.json"
    path.write_bytes(bytes(path.stat().st_size))
    assert "artifact/scores.json can't be read" in unfinished_reason(runs, "M1/quiz")


def test_a_run_without_its_end(runs: RecipeRuns) -> None:
    path = run_path(runs, "M1/quiz")
    (path / "DONE").unlink()
    expected = f"damaged: DONE is missing from objects/{path.name}; run it again"
    assert unfinished_reason(runs, "M1/quiz") == expected


@pytest.mark.parametrize("text", ["", '{"bytes": {"env.js', "{}", "[]"])
def test_a_run_whose_end_is_torn(runs: RecipeRuns, text: str) -> None:
    (run_path(runs, "M1/quiz") / "DONE").write_text(text)
    assert "DONE can't be read" in unfinished_reason(runs, "M1/quiz")


def test_a_training_that_is_damaged_keeps_its_curve(runs: RecipeRuns) -> None:
    """Its scores were measured while it was whole, and stay."""
    (run_path(runs, "M1") / "artifact" / "canary.json").unlink()
    assert "artifact/canary.json is missing" in unfinished_reason(runs, "M1")
    page = write_report(runs.store, "demo").read_text()
    assert "M1: training loss 2.00 (step 10) to 1.00 (step 20)" in page
    assert "100.0" in page


def test_a_run_that_is_deleted_is_not_made(runs: RecipeRuns) -> None:
    shutil.rmtree(run_path(runs, "M1/quiz"))
    assert read_results(runs.store, "demo").nodes["M1/quiz"].reason == "not made yet"


def test_scores_that_are_no_numbers(runs: RecipeRuns) -> None:
    runs.score("M2/quiz", item_scores(5, 5), value=math.nan)
    runs.score("M1-int8/quiz", item_scores(5, 5), low=None)
    write_report(runs.store, "demo")
    rows = {row.model: row.cells[0].missing_reason for row in read_results(runs.store, "demo").rows}
    assert rows["M2"] == rows["M1-int8"] == "not a finite number"


def test_items_that_are_no_numbers_have_no_difference(runs: RecipeRuns) -> None:
    items = run_path(runs, "M1/quiz") / "artifact" / "items.jsonl"
    items.write_text(items.read_text().replace("1.0", "NaN", 1))
    results = read_results(runs.store, "demo")
    [cell] = results.rows[1].cells
    assert cell.difference is not None
    assert cell.difference.missing_reason == "not a finite number"
    assert "no difference: not a finite number" in render_html(results, [])


@pytest.mark.parametrize("text", ["", '{"recipe": "de', "[]", '{"recipe": "demo"}'])
def test_a_list_of_runs_that_is_torn(runs: RecipeRuns, text: str) -> None:
    (runs.folder / "nodes.json").write_text(text)
    with pytest.raises(ZephyrError, match="list of a recipe's runs can't be read"):
        write_report(runs.store, "demo")


def test_a_list_of_the_runs_of_another_recipe(runs: RecipeRuns) -> None:
    path = runs.folder / "nodes.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "spec": known["spec"] | {"name": "other"}}))
    with pytest.raises(ZephyrError, match=r"nodes of another recipe than demo\n.*\n.*other"):
        write_report(runs.store, "demo")
    nodes = [node for node in known["nodes"] if node["name"] != "M2"]
    path.write_text(json.dumps({**known, "nodes": nodes}))
    with pytest.raises(ZephyrError, match=r"not those that it asks for\n.*\n.*no M2"):
        write_report(runs.store, "demo")
