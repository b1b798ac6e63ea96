"""The page in a browser: offline, sorted by hand, as narrow as a telephone, and never obeying."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import (
    HARM,
    MANIFEST,
    generation_item,
    item_scores,
    new_recipe_runs,
    runs_with_harmful_text,
)
from zephyr.report.page import write_report

WIDTHS = (360, 768, 1280)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(runs_with_harmful_text(tmp_path_factory.mktemp("small")).store, "demo")


@pytest.fixture(scope="module")
def crowded_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve models, whose scores are out of order, and of which one has none."""
    models = {f"a-model-of-quite-a-long-name-{n}": {"base": f"b{n}"} for n in range(12)}
    runs = new_recipe_runs(tmp_path_factory.mktemp("crowded"), "quiz", "gsm8k", models=models)
    sources = {name: MANIFEST["sources"]["good"] | {"seen": n} for name, n in NUM_SEEN.items()}
    runs.finish("data.text", manifest=MANIFEST | {"sources": sources})
    metric = {"name": "exact_match", "kind": "proportion", "better": "higher", "scale": 100}
    metric |= {"protocol": "gsm8k@1", "headline": True, "empty": None}
    metric |= {"value": 0.5, "low": 0.1, "high": 0.9, "n": 10}
    other = metric | {"name": "length", "headline": False}
    scores = {"metrics": [metric, other], "groups": {}, "counts": {}}
    for n, model in enumerate(models):
        if n != 4:
            runs.score(f"{model}/quiz", item_scores(NUM_RIGHT[n], 20 - NUM_RIGHT[n]))
        items = [generation_item(f"i{i}", "word" * 99 + " so" * 900, i % 2) for i in range(12)]
        runs.finish(f"{model}/gsm8k", scores=scores, items=items)
    return write_report(runs.store, "demo")


NUM_RIGHT = (7, 3, 12, 9, 0, 10, 2, 20, 5, 11, 1, 6)
"""How many of twenty each model has right; the fifth was not asked."""
NUM_SEEN = {"few": 9, "many": 1234, "some": 87}


@pytest.fixture
def page_events() -> list[str]:
    """What the page asked for, complained about, or did that it should not."""
    return []


def open_report(
    browser: Any, path: Path, page_events: list[str], width: int = 1280, **context: Any
) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900}, **context)
    page.on("console", lambda message: page_events.append(message.text))
    page.on("pageerror", lambda error: page_events.append(str(error)))
    page.on("request", lambda request: page_events.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    return page


def test_it_opens_from_a_file_and_asks_for_nothing_else(
    browser: Any, report: Path, page_events: list[str]
) -> None:
    page = open_report(browser, report, page_events)
    page.wait_for_load_state("networkidle")
    assert [url for url in page_events if not url.startswith("data:image/svg+xml;base64,")] == [
        report.as_uri()
    ]
    assert page.title() == "demo · Zephyr report"
    page.close()


def test_what_a_model_writes_runs_nothing(
    browser: Any, report: Path, page_events: list[str]
) -> None:
    page = open_report(browser, report, page_events)
    assert page.inner_text("body").count(HARM) >= 5
    assert page.evaluate("window.harm") is None
    page.close()


def test_even_a_text_that_was_not_escaped_would_run_nothing(
    browser: Any, report: Path, page_events: list[str]
) -> None:
    """The page's policy knows the hash of its one script."""
    page = open_report(browser, report, page_events)
    refused = page.evaluate(
        """harm => new Promise(tell => {
            const found = [];
            document.addEventListener("securitypolicyviolation", event => {
                found.push(event.effectiveDirective);
                if (found.length == 3) tell(found.sort());
            });
            const script = document.createElement("script");
            script.textContent = "window.harm = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", harm);
        })""",
        HARM,
    )
    assert refused == ["img-src", "script-src-attr", "script-src-elem"]
    assert page.evaluate("window.harm") is None
    page.close()


def test_every_image_is_drawn_and_described_in_words(
    browser: Any, report: Path, page_events: list[str]
) -> None:
    page = open_report(browser, report, page_events)
    images = page.evaluate(
        """[...document.images].map(image => [
            image.complete && image.naturalWidth > 100,
            image.alt,
            document.getElementById(image.getAttribute("aria-describedby"))?.innerText ?? "",
        ])"""
    )
    assert len(images) == 5
    assert all(loaded and alt and len(words) > 20 for loaded, alt, words in images)
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "crowded_report"])
def test_the_page_is_no_wider_than_the_window(
    browser: Any, name: str, width: int, page_events: list[str], request: pytest.FixtureRequest
) -> None:
    """Tables and figures scroll by themselves, and can be reached by the keyboard to do so."""
    page = open_report(browser, request.getfixturevalue(name), page_events, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    out_of_reach = page.evaluate(
        """[...document.querySelectorAll("main *")].filter(one =>
            getComputedStyle(one).overflowY == "auto" && one.tabIndex < 0
            && (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1)
        ).map(one => one.outerHTML.slice(0, 80))"""
    )
    assert out_of_reach == []
    page.close()


def column_cells(page: Any, table: str, column: int) -> list[str]:
    """What the cells of a column hold, from top to bottom; the first line of each."""
    cells = page.locator(f"{table} > tbody > tr > :nth-child({column})")
    return [text.split("\n")[0].split("\u00a0")[0] for text in cells.all_inner_texts()]


def test_table_1_is_sorted_by_mouse_up_down_and_back(
    browser: Any, crowded_report: Path, page_events: list[str]
) -> None:
    page = open_report(browser, crowded_report, page_events)
    table = "[aria-label='Table 1'] table"
    head = page.locator(f"{table} th", has_text="acc")
    before = column_cells(page, table, 2)
    assert before == [f"{5 * r:.1f}" if n != 4 else "not made yet" for n, r in enumerate(NUM_RIGHT)]
    numbers = sorted((r for n, r in enumerate(NUM_RIGHT) if n != 4))
    up = [f"{5 * n:.1f}" for n in numbers]
    for way, found in (("ascending", up), ("descending", up[::-1])):
        head.get_by_role("button").click()
        assert column_cells(page, table, 2) == [*found, "not made yet"]
        assert head.get_attribute("aria-sort") == way
    head.get_by_role("button").click()
    assert column_cells(page, table, 2) == before
    assert head.get_attribute("aria-sort") is None
    page.close()


def test_a_table_is_sorted_by_the_keyboard(
    browser: Any, crowded_report: Path, page_events: list[str]
) -> None:
    """One column at a time; a row goes as a whole, and the sum stays at the end."""
    page = open_report(browser, crowded_report, page_events)
    table = "[aria-label='Mixture text'] table"
    page.locator("[aria-label='Mixture text']").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "seen"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column_cells(page, table, 1) == ["many", "some", "few"]
    assert column_cells(page, table, 2) == ["1,234", "87", "9"]
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert [page.locator(f"{table} th[aria-sort]").inner_text()] == ["unreadable"]
    assert column_cells(page, table, 1) == list(NUM_SEEN)  # all have four
    last = page.locator(f"{table} tr").last.inner_text()
    assert last.split()[:2] == ["all", "1,330"]
    page.close()


def test_table_2_is_not_sorted(browser: Any, crowded_report: Path, page_events: list[str]) -> None:
    """Its columns are models, its rows metrics of which each has a unit of its own."""
    page = open_report(browser, crowded_report, page_events)
    assert page.locator("[aria-label='Table 2'] thead th").count() == 13
    assert page.locator("[aria-label='Table 2'] button").count() == 0
    assert page.locator("[aria-label='Table 1'] button").count() == 2
    page.close()
