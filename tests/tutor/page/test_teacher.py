"""The teacher's page."""

from pathlib import Path

import pytest

from tests.tutor.conftest import Server
from tests.tutor.page.actions import CONTRAST_SCRIPT, COURSE
from tests.tutor.page.conftest import OpenPage

pytestmark = pytest.mark.enable_socket


def test_the_teacher_sees_the_class_and_takes_its_files(
    open_page: OpenPage, server: Server, console_messages: list[str]
) -> None:
    page = open_page("teacher", width=360)
    field = page.get_by_label("The teacher’s token")
    field.fill("not the token")
    page.keyboard.press("Enter")
    page.get_by_text("That token is not").wait_for()
    assert len(console_messages) == 1
    console_messages.clear()
    page.get_by_label("The teacher’s token").fill(server.token)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="How often a model wins").wait_for()
    assert page.locator("h1").inner_text() == COURSE
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for name, file in (
        ("Preferences as JSON", "preferences.json"),
        ("Events as CSV", "events.csv"),
    ):
        with page.expect_download() as taken:
            page.get_by_role("button", name=name).click()
        assert taken.value.suggested_filename == file
        assert Path(taken.value.path()).read_text(encoding="utf-8").strip()
    page.get_by_role("button", name="Forget the token").click()
    page.reload()
    assert page.get_by_label("The teacher’s token").is_visible()


def test_the_teacher_s_figures_are_drawn(open_page: OpenPage, server: Server) -> None:
    page = open_page("teacher")
    rate = {"value": 0.66, "low": 0.58, "high": 0.74, "n": 120}
    harm = "<img src=x onerror=window.harm=1>"
    summary = {
        "course": COURSE, "since": "2026-11-02T08:00:00+00:00", "sessions": 58, "votes": 143,
        "questions": {"M2": 1412, harm: 1}, "ratings": {"M2": {"up": 61, "down": 12}},
        "quiz": {"answered": 240, "right": 171, "model_right": 133, "agreement": rate},
        "wins": {"M2": rate, harm: rate | {"value": 0.3}},
        "pairs": [{"a": harm, "b": "M2", "a_wins": 71, "b_wins": 33, "ties": 17}],
        "closest": [{"question": harm, "votes": {"M1": 4, "M2": 3}, "ties": 2}],
    }  # fmt: skip
    page.route("**/teacher/summary", lambda route: route.fulfill(json=summary))
    page.get_by_label("The teacher’s token").fill(server.token)
    page.keyboard.press("Enter")
    wins = page.get_by_role("region", name="How often a model wins").locator("tbody tr")
    assert wins.first.inner_text().split("\t")[0] == "M2"
    assert "66.0 % (58.0 % to 74.0 %)" in wins.first.inner_text()
    assert wins.first.locator("circle").get_attribute("cx") == "66%"
    pair = page.get_by_role("region", name="Two models on one question").locator("tbody tr")
    assert pair.inner_text().split("\t")[-3:] == ["71", "17", "33"]
    assert page.get_by_text("M1: 4 · M2: 3 · equal: 2").is_visible()
    assert page.get_by_text("Since 2 November 2026").is_visible()
    assert page.locator("main img").count() == 1  # the QR code of the students' address
    assert page.locator(".address img").get_attribute("alt").startswith("QR code of http")
    assert page.evaluate(CONTRAST_SCRIPT) == []
