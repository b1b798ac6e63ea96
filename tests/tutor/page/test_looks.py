"""The page on a telephone and a screen, by day and by night, by keyboard and by ear."""

from typing import Any

import pytest

from tests.tutor.page.actions import (
    CONTRAST_SCRIPT,
    LESSON,
    ask_question,
    open_tab,
    stub_answers,
    stub_explanation,
    wait_for_answer,
)
from tests.tutor.page.conftest import OpenPage

pytestmark = pytest.mark.enable_socket

WIDTHS = (360, 768, 1280)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_the_window(width: int, open_page: OpenPage) -> None:
    """Whatever models are called, and write; what is too wide scrolls by itself."""
    page = open_page(width=width)
    stub_answers(page, LESSON + "\n\n" + r"$\text{" + "wide" * 60 + "}$", [])
    name = "M" + "<b>&" * 30
    page.route("**/tutor/config", lambda route: _rename(route, name))
    page.reload()
    ask_question(page, "long" * 25)
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits)
    for tab in ("Compare", "Quiz", "Hints"):
        open_tab(page, tab)
        assert page.evaluate(fits)
    page.get_by_role("button", name="Delete what I left").click()
    assert page.evaluate(fits)


def _rename(route: Any, name: str) -> None:
    config = route.fetch().json()
    config["models"][0] = {"id": name, "about": "a model " * 20}
    route.fulfill(json=config)


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_can_be_read(dark: bool, open_page: OpenPage) -> None:
    page = open_page(dark=dark)
    stub_answers(page, LESSON, [{"text": "2 * 3 = 7", "start": 0, "end": 9}])
    ask_question(page, "What is force?").locator(".marks").wait_for()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(paper.removeprefix("rgb(").split(",")[0]) < 128) == dark
    assert page.evaluate(CONTRAST_SCRIPT) == []
    stub_explanation(page, "So 2 + 2 = 5.", [{"text": "2 + 2 = 5", "start": 3, "end": 12}])
    panel = open_tab(page, "Quiz")
    panel.get_by_role("radio").first.check()
    panel.get_by_role("button", name="Answer").click()
    wait_for_answer(page, ".quiz .answer")
    assert page.evaluate(CONTRAST_SCRIPT) == []


def test_everything_is_reached_by_the_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    stub_answers(page, "Yes", [])
    focused = "document.activeElement"
    field = page.get_by_label("Your question")
    field.wait_for()
    assert page.evaluate(f"{focused}.tagName") == "TEXTAREA"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert field.input_value() == "one\ntwo"
    page.keyboard.press("Enter")
    wait_for_answer(page, ".ask .answer")
    assert field.input_value() == ""
    page.get_by_role("tab", name="Ask").focus()
    for key, name in (("ArrowRight", "Compare"), ("End", "Hints"), ("ArrowRight", "Ask")):
        page.keyboard.press(key)
        assert page.evaluate(f"{focused}.innerText") == name
        assert page.get_by_role("tabpanel").count() == 1
        assert page.get_by_role("tabpanel", name=name).is_visible()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(f"{focused}.getAttribute('aria-label') || {focused}.innerText"))
        outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
        assert outline != "none" or page.evaluate(f"{focused}.tagName") in ("TEXTAREA", "BODY")
    assert {"New chat", "Copy", "Another answer", "A good answer"} <= reached
    assert "Delete what I left here" in reached


def test_every_control_has_a_name(open_page: OpenPage) -> None:
    page = open_page()
    stub_answers(page, LESSON, [])
    ask_question(page, "What is force?")
    for tab in ("Ask", "Compare", "Quiz", "Hints"):
        open_tab(page, tab)
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea")].filter(one =>
            one.autocomplete != "username" && !one.getAttribute("aria-label")
            && !one.innerText?.trim() && !one.textContent.trim() && !one.labels?.length
        ).map(one => one.outerHTML)"""
    )
    assert nameless == []
