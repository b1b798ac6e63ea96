"""Who comes in, and what they can have deleted."""

from pathlib import Path
from typing import Any

import pytest

from tests.tutor.conftest import start_server
from tests.tutor.page.actions import ask_question, stub_answers
from tests.tutor.page.conftest import OpenPage
from tests.workspace import Workspace

pytestmark = pytest.mark.enable_socket


def test_a_student_deletes_what_was_left(open_page: OpenPage) -> None:
    page = open_page()
    stub_answers(page, "Yes", [])
    answer = ask_question(page, "What is force?")
    answer.get_by_role("button", name="A bad answer").click()
    answer.locator("[aria-pressed=true]").wait_for()
    assert len(page.locator("#kept").inner_text()) > 20
    page.get_by_role("button", name="Delete what I left here").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.locator("#forgotten").filter(has_text="deleted").wait_for()
    assert page.locator(".question").count() == 0
    assert page.evaluate("Object.keys(localStorage).filter(k => /session|chats/.test(k))") in (
        [], ["zephyr.chats"],
    )  # fmt: skip
    page.reload()
    assert page.locator(".past-open").count() == 0


def test_a_class_with_a_password_is_asked_for_it(
    browser: Any, finished_workspace: Workspace, tutor_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEPHYR_CLASS_PASSWORD", "open sesame")
    with start_server(finished_workspace, "--tutor", str(tutor_yaml)) as server:
        page = browser.new_page()
        page.goto(server.url)
        field = page.get_by_label("The class password")
        field.fill("wrong password")
        page.keyboard.press("Enter")
        page.get_by_text("That is not the password").wait_for()
        field.fill("open sesame")
        page.keyboard.press("Enter")
        page.get_by_label("Model").first.select_option("M1")
        assert ask_question(page, "What is force?").locator(".said").inner_text().strip()
        page.reload()
        page.get_by_label("Your question").wait_for()
        assert "sesame" not in page.evaluate("JSON.stringify({ ...localStorage })")
        page.close()
