"""The page: one file that needs no network, in which nobody's text does harm."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock

from tests.report.conftest import (
    HARM,
    MANIFEST,
    RecipeRuns,
    generation_item,
    runs_with_harmful_text,
)
from zephyr.errors import ZephyrError
from zephyr.report.page import _format_bytes, _format_duration, write_report
from zephyr.report.results import read_results
from zephyr.report.sections import sample_answered_items
from zephyr.runs.store import Store

MakeRuns = Callable[..., RecipeRuns]

VOID_TAGS = {"meta", "img", "br", "link", "input", "hr", "wbr"}


class ParsedPage(HTMLParser):
    """Checks that tags are closed in order; gathers what is needed of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] not in ("style", "script"):
            self.text += f" {data}"

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(attribute))]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RecipeRuns:
    return runs_with_harmful_text(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(runs: RecipeRuns) -> ParsedPage:
    path = write_report(runs.store, "demo")
    assert path == runs.folder / "report.html"
    return ParsedPage(path.read_text(encoding="utf-8"))


def test_what_a_model_writes_is_shown_and_does_no_harm(page: ParsedPage) -> None:
    assert [tag for tag, _ in page.tags].count("script") == 1  # ours, at the end
    assert page.text.count(HARM) >= 5  # request, output, reason of a row, group, failure


def test_the_page_needs_nothing_else(page: ParsedPage, runs: RecipeRuns) -> None:
    used = [*page.values("src"), *page.values("href")]
    assert used
    assert all(value.startswith(("data:image/svg+xml;base64,", "#")) for value in used)
    text = (runs.folder / "report.html").read_text()
    assert "url(" not in text
    assert "@import" not in text
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {href.removeprefix("#") for href in page.values("href")} <= set(ids)


def test_scores_differences_and_missing_values_are_shown(page: ParsedPage) -> None:
    assert "100.0 ▲ [69.2, 100.0] n = 10 +100.0 [38.3, 100.0] better, against M0" in page.words
    assert "not made: M2 failed" in page.words
    assert "quiz@1 · by hand · n=10" in page.words
    assert "safety 50.0 [10.0, 90.0] n = 2" in page.words
    assert "This report is not complete." in page.words


def test_the_account_of_the_data_is_shown(page: ParsedPage) -> None:
    assert f"good 1,234 4 4 no answer 2 2 too long {HARM} 5 7 8 23 1,200 60 –" in page.words
    assert "M1 900 17 40 1 128 4,321" in page.words
    assert "No account: not made yet." in page.words
    assert "gsm8k 1 no room (M0, M1)" in page.words


def test_answers_stand_side_by_side(page: ParsedPage) -> None:
    assert f"M0 cut at the limit, right {HARM}" in page.words
    assert "M1 cut at the limit, wrong nothing" in page.words
    classes = [attrs.get("class") for _, attrs in page.tags]
    assert (classes.count("answer"), classes.count("answer wrong")) == (1, 1)


def test_the_seed_draws_ten_questions_that_all_were_asked(make_runs: MakeRuns) -> None:
    """Of thirty, in the order in which they were asked; what one model alone was asked is none."""

    def sampled_outputs(seed: int, right: float = 1.0) -> list[str]:
        models = {f"B{seed}{right}": {"base": "b"}, f"C{seed}{right}": {"base": "c"}}
        runs = make_runs("gsm8k", models=models, seed=seed)
        for at, model in enumerate(models):
            rows = [generation_item(f"i{n:02}", f"{n:02}", right) for n in range(15 * at, 30 + at)]
            scores = {"metrics": [], "groups": {}, "counts": {}}
            runs.finish(f"{model}/gsm8k", scores=scores, items=rows)
        [items] = sample_answered_items(read_results(runs.store, "demo")).values()
        assert all(len({a.output for a in q.answers}) == 1 for q in items)
        assert all([a.model for a in q.answers] == list(models) for q in items)
        return [q.answers[0].output for q in items]

    first = sampled_outputs(3)
    assert len(set(first)) == 10
    assert first == sorted(first)
    assert set(first) <= {f"{n:02}" for n in range(15, 30)}
    assert sampled_outputs(3, right=0.0) == first != sampled_outputs(4)


def test_of_a_letter_the_right_option_is_the_reference(make_runs: MakeRuns) -> None:
    runs = make_runs("mcqa_letter")
    row = generation_item("a", "The answer is C.") | {"scores": {"acc": 0.0}}
    row["detail"] |= {"choices": ["heat", "work"], "answer": 1}
    del row["detail"]["reference"]
    scores = {"metrics": [], "groups": {}, "counts": {}}
    runs.finish("M0/mcqa_letter", scores=scores, items=[row])
    [[item]] = sample_answered_items(read_results(runs.store, "demo")).values()
    assert item.reference == "B. work"
    assert item.answers == [("M0", "The answer is C.", "length", False)]


def test_the_first_and_the_last_answers_of_a_canary_are_shown(page: ParsedPage) -> None:
    assert "Prompt after 0 steps after 20 steps" in page.words
    assert (
        f"why? well ended by itself {HARM} ended by itself {HARM} {HARM} cut at the limit so "
        "cut at the limit" in page.words
    )


def test_every_figure_has_its_numbers_in_words(page: ParsedPage) -> None:
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 5
    assert all(attrs["alt"] and attrs["aria-describedby"] in page.values("id") for attrs in images)
    assert "M0: training loss 3.00 (step 10) to 2.00 (step 20)" in page.words


def test_two_reports_of_the_same_runs_are_equal(page: ParsedPage, runs: RecipeRuns) -> None:
    """A figure that an earlier report left, and that is no more, goes."""
    files = {p: p.read_bytes() for p in runs.folder.rglob("*") if p.is_file()}
    assert {p.name for p in files} >= {"table.json", "table.md", "table.csv", "loss-tune.svg"}
    assert {p.name for p in files} >= {"table.tex", "loss-tune.png", "loss-tune.csv", "scores.csv"}
    assert not [p for p in files if p.suffix == ".tmp"]
    for suffix in ("svg", "png", "csv"):
        (runs.folder / "figures" / f"alignment.{suffix}").write_text("of an earlier run")
    write_report(runs.store, "demo")
    assert {p: p.read_bytes() for p in runs.folder.rglob("*") if p.is_file()} == files


def test_two_reports_are_not_written_at_once(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    with ThreadPoolExecutor() as pool, FileLock(runs.folder / ".lock"):
        written = pool.submit(write_report, runs.store, "demo")
        with pytest.raises(TimeoutError):
            written.result(timeout=0.5)
        assert not (runs.folder / "report.html").exists()
    assert written.result().exists()


def test_the_time_is_shown_while_a_run_is_being_made(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    written_at = re.compile(
        r"Written at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, while runs are not finished"
    )
    assert not written_at.search(write_report(runs.store, "demo").read_text())
    runs.begin("M0")
    assert written_at.search(write_report(runs.store, "demo").read_text())
    runs.finish("M0")
    assert not written_at.search(write_report(runs.store, "demo").read_text())


def test_a_recipe_of_which_nothing_is_made_has_a_report(make_runs: MakeRuns) -> None:
    runs = make_runs({"name": "gsm8k", "label": "sums"})
    page = ParsedPage(write_report(runs.store, "demo").read_text(encoding="utf-8"))
    assert "0 of 11 runs are finished" in page.words
    assert page.words.count("not made yet") > 4
    assert not re.search(r"\b(None|Undefined|nan)\b", page.words)


def test_a_recipe_that_evaluates_nothing_has_a_report(make_runs: MakeRuns) -> None:
    page = ParsedPage(write_report(make_runs().store, "demo").read_text(encoding="utf-8"))
    assert "The recipe evaluates nothing." in page.words


def test_notes_of_runs_are_sentences(make_runs: MakeRuns) -> None:
    runs = make_runs(models={f"M{n}": {"pretrain": {"data": "text"}} for n in range(2)})
    reach = {"matrices": 4, "unreached": None}
    for model, text in (("M0", "few records"), ("M1", "slow")):
        runs.finish(model, env={"told": ["cut to 64 tokens", text], "lora_reach": reach})
    page = ParsedPage(write_report(runs.store, "demo").read_text(encoding="utf-8"))
    assert "notes cut to 64 tokens (2 runs) few records (M0) slow (M1)" in page.words
    assert "lora reach matrices 4 " in page.words
    assert "None" not in page.words
    assert "null" not in page.words


def test_a_model_that_is_asked_nothing_has_no_row_of_dashes(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz")
    for model in ("M0", "M2", "M1-int8"):
        del runs.nodes[f"{model}/quiz"]
    runs.write_nodes()
    runs.score("M1/quiz", {"a": 1.0, "b": 0.0})
    results = read_results(runs.store, "demo")
    assert [row.model for row in results.asked_rows] == ["M1"]
    page = ParsedPage(write_report(runs.store, "demo").read_text(encoding="utf-8"))
    assert page.words.count("not asked of this model") == 1  # why M1 has no difference to M0
    table = (runs.folder / "table.md").read_text(encoding="utf-8")
    assert [line[:5] for line in table.splitlines() if line.startswith("| M")] == ["| M1 "]
    assert "– not asked" not in table


def test_generated_texts_are_called_so(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz", origin="embedded")
    page = ParsedPage(write_report(runs.store, "demo").read_text(encoding="utf-8"))
    assert "The texts of this recipe are generated" in page.words


def test_a_recipe_that_was_never_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZephyrError, match="has not been run here"):
        write_report(Store(tmp_path), "demo")
    assert list(tmp_path.iterdir()) == []


def test_energy_is_shown_by_kind_as_far_as_it_was_metered(make_runs: MakeRuns) -> None:
    """Two of three pretrained; 7.2 MJ are 2 kWh."""
    models = {f"M{n}": {"pretrain": {"data": "text"}} for n in range(3)}
    runs = make_runs(models=models)
    runs.finish("data.text", manifest=MANIFEST)
    runs.finish("M0")
    page = ParsedPage(write_report(runs.store, "demo").read_text(encoding="utf-8"))
    assert page.words.count("not told by this machine") == 1
    for model in ("M1", "M2"):
        runs.finish(model, env={"joules": 3.6e6})
    page = ParsedPage(write_report(runs.store, "demo").read_text(encoding="utf-8"))
    assert "not told by this machine" not in page.words
    assert re.search(r"pretrain 3 7\.5 s \S+ k?B \S+ k?B 2 kWh of 2 runs all 4", page.words)
    assert "mixture 1 2.5 s" in page.words
    assert "joules" not in page.words  # it is no fact of the environment


def test_sizes_and_times_in_words() -> None:
    sizes = (999, 38_296, 999_949, 999_950, 4_000_000_000)
    assert [_format_bytes(n) for n in sizes] == ["999 B", "38.3 kB", "999.9 kB", "1.0 MB", "4.0 GB"]
    times = (0.44, 9.96, 59.6, 200, 7500)
    expected = ["0.4 s", "10 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]
    assert [_format_duration(t) for t in times] == expected
