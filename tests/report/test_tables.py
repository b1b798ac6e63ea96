"""Tables: strict JSON, Markdown that stays in its cells, CSV, and a terminal of 100 columns."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from rich.console import Console

from tests.report.conftest import RecipeRuns, item_scores, score_two_metrics
from zephyr.report.markdown import table_markdown
from zephyr.report.results import Results, read_results
from zephyr.report.tables import (
    format_interval,
    format_number,
    format_signed,
    table_csv,
    table_json,
)
from zephyr.report.terminal import console_table
from zephyr.stats.intervals import Estimate

MakeRuns = Callable[..., RecipeRuns]


@pytest.fixture
def results(make_runs: MakeRuns) -> Results:
    """M1 is better than M0, M1-int8 worse than M1; M2 failed with pipes and lines in its reason."""
    runs = make_runs("quiz", "text")
    runs.score("M0/quiz", item_scores(0, 10))
    runs.score("M1/quiz", item_scores(10, 0))
    runs.score("M1-int8/quiz", item_scores(2, 8))
    runs.fail("M2/quiz", "a|b <script>\n  where: c|d")
    return read_results(runs.store, "demo")


def reject_constant(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def test_json_is_strict_and_holds_everything(results: Results) -> None:
    table = json.loads(table_json(results), parse_constant=reject_constant)
    rows = {row["model"]: row for row in table["models"]}
    assert list(rows) == ["M0", "M1", "M2", "M1-int8"]
    assert rows["M1"]["from"] == "M0"
    assert rows["M1"]["done"] == "SFT (LoRA r16) on chat"
    for row in rows.values():
        for cell in row["cells"]:
            assert (cell["value"] is None) == bool(cell["empty"])
    cell = rows["M1"]["cells"][0]
    assert (cell["task"], cell["metric"], cell["value"], cell["n"]) == ("quiz", "acc", 1.0, 10)
    assert cell["protocol"] == "quiz@1 · by hand · n=10"
    assert cell["difference"]["to"] == "M0"
    assert cell["difference"]["value"] == 1.0
    assert cell["difference"]["verdict"] == "better"
    assert rows["M0"]["cells"][0]["difference"] is None
    assert {node["name"] for node in table["nodes"]} >= {"data.text", "M2", "M2/quiz"}


def test_markdown_has_a_value_an_interval_and_a_mark_a_cell(results: Results) -> None:
    """As it stands: columns are as wide as their cells, and a text stays in its cell."""
    text = table_markdown(results)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {4}  # a name and two tasks
    assert len(set(map(len, table))) == 1
    assert len(table) == 2 + 4
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in table}
    assert cells["M0"] == "0.0 [0.0, 30.8]"
    assert cells["M1"] == "100.0 [69.2, 100.0] ▲"
    assert cells["M1-int8"] == "20.0 [2.5, 55.6] ▼"
    assert cells["M2"] == "–"
    assert "- failed: a\\|b &lt;script&gt;: M2 quiz acc" in text
    assert "- quiz acc % ↑: quiz@1 · by hand · n=10" in text
    assert "- M1, from M0: SFT (LoRA r16) on chat" in text


def test_notes_and_chance_stand_beside_their_scores(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    for name, right in (("M0", 5), ("M1", 11), ("M2", 11), ("M1-int8", 11)):
        score_two_metrics(runs, f"{name}/quiz", right, right)
    found = read_results(runs.store, "demo")
    text = table_markdown(found)
    assert "quiz acc % ↑ (chance 25.0)" in text
    assert "45.8 [25.6, 67.2] ? not after correction |" in text  # the primary metric
    assert "45.8 [25.6, 67.2] △ |" in text  # the secondary one
    printed = render_to_text(console_table(found), width=100)
    assert "? not after correction: M1 quiz acc" in printed
    assert "45.8 △" in printed
    assert "chance" in printed.split("M0")[0]
    rows = {(r["model"], r["metric"]): r for r in csv.DictReader(io.StringIO(table_csv(found)))}
    assert set(rows) == {(m, k) for m in ("M0", "M1", "M2", "M1-int8") for k in ("acc", "f1")}
    assert rows["M1", "acc"]["verdict_note"] == "not after correction"
    assert (rows["M1", "acc"]["primary"], rows["M1", "acc"]["chance"]) == ("True", "0.25")
    assert (rows["M1", "f1"]["p_corrected"], rows["M1", "f1"]["p_uncorrected"]) == ("", "0.03125")


def test_an_interval_that_may_hold_less_is_marked(make_runs: MakeRuns) -> None:
    """Windows of one text, without bounds; forty-nine are few, and fifty are not."""
    for n, mark in ((49, "≈["), (50, " [")):
        runs = make_runs("text", models={f"B{n}": {"base": "b"}})
        values = {f"w{at}": float(at % 7) + 1 for at in range(n)}
        kind: Any = "exp-mean"
        runs.score(f"B{n}/text", values, metric="perplexity", kind=kind, better="lower", scale=1)
        assert mark in table_markdown(read_results(runs.store, "demo"))


def test_csv_has_a_line_for_each_model_and_metric(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(results))))
    assert len(rows) == 4 * 2
    found = {(row["model"], row["task"]): row for row in rows}
    ours = found["M1", "quiz"]
    assert (ours["value"], ours["n"], ours["verdict"]) == ("1.0", "10", "better")
    assert (ours["difference_to"], ours["difference"]) == ("M0", "1.0")
    assert found["M2", "quiz"]["value"] == ""
    assert found["M2", "quiz"]["empty"] == "failed: a|b <script>"
    assert found["M0", "text"]["empty"] == "not made yet"


def render_to_text(value: Any, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    console.print(value)
    printed = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert max(map(len, printed.splitlines())) <= width
    return str(printed)


def test_the_terminal_shows_verdict_signs_protocols_and_reasons(results: Results) -> None:
    printed = render_to_text(console_table(results), width=100)
    assert "100.0 ▲" in printed
    assert "20.0 ▼" in printed
    assert "quiz@1 · by hand · n=10" in printed
    assert "failed: a|b <script>: M2 quiz acc" in printed


def test_nine_metrics_fit_into_100_columns(make_runs: MakeRuns) -> None:
    """As many as the default recipe has; no heading and no number is broken."""
    short = ("bleu4", "rouge1", "rouge2", "rougeL", "exact")
    tasks = ("hellaswag", *short, "preferences", "mcqa", "wikitext2")
    runs = make_runs(*tasks)
    for task in tasks:
        metric = "reward_accuracy" if task == "preferences" else "acc_norm"
        for model in ("M1", "M1-int8"):
            runs.score(f"{model}/{task}", item_scores(8, 0), metric=metric)
    printed = render_to_text(console_table(read_results(runs.store, "demo")), width=100)
    head = printed.split("M0")[0]
    assert all(word in head for word in (*tasks, "accuracy"))
    assert printed.count("100.0 ?") == len(tasks)


def test_generated_texts_are_called_so(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz", origin="embedded")
    runs.score("M0/quiz", item_scores(5, 5))
    results = read_results(runs.store, "demo")
    assert json.loads(table_json(results))["generated_texts"] is True
    assert "not comparable with published ones" in table_markdown(results)
    assert "stand-ins" in render_to_text(console_table(results), width=100)


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (0.12345, 100, "12.3"),
        (1.0, 100, "100.0"),
        (-0.25, 100, "−25.0"),
        (-0.0001, 100, "0.0"),
        (8.7412, 1, "8.74"),
        (162.04, 1, "162.0"),
        (12345.6, 1, "12,346"),
    ],
)
def test_numbers_as_people_read_them(value: float, scale: float, text: str) -> None:
    assert format_number(value, scale) == text


def test_half_a_width_has_the_decimals_of_its_value() -> None:
    assert format_number(16.76, 1, decimals_like=447.0) == "16.8"


def test_differences_bear_their_sign() -> None:
    assert [format_signed(v, 100) for v in (0.1, -0.1, 0.0)] == ["+10.0", "−10.0", "0.0"]
    assert format_interval(Estimate(0.0, -0.5, 0.25, 9), 100) == "[−50.0, 25.0]"


def test_equal_items_have_no_interval() -> None:
    assert format_interval(Estimate(2.0, 2.0, 2.0, 1), 1) == "[no spread]"


def test_a_recipe_without_tasks_has_no_table(make_runs: MakeRuns) -> None:
    found = read_results(make_runs().store, "demo")
    printed = render_to_text(console_table(found), width=100)
    assert printed.startswith("No scores: the recipe asks no model a task")


def test_the_terminal_shows_intervals_within_what_is_possible(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz", "text")
    runs.score("M0/quiz", item_scores(10, 0))  # all right: 69.2 to 100 (Clopper and Pearson)
    values = {f"w{at}": 5.0 + at % 2 / 10 for at in range(60)}
    text: Any = {"metric": "perplexity", "kind": "exp-mean", "better": "lower", "scale": 1}
    runs.score("M0/text", values, **text)  # 156.0, and ends of three digits
    printed = render_to_text(console_table(read_results(runs.store, "demo")), width=100)
    assert "69.2–100" in printed
    assert "154–158" in printed
