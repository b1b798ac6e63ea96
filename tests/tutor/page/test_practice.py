"""Comparing, quiz and hints, from the first question to the last click."""

import re

import pytest

from tests.tutor.page.actions import (
    HINTS,
    MODELS,
    format_sse,
    open_tab,
    stub_explanation,
    wait_for_answer,
)
from tests.tutor.page.conftest import OpenPage

pytestmark = pytest.mark.enable_socket


def test_nobody_knows_the_models_before_the_vote(open_page: OpenPage) -> None:
    page = open_page()
    panel = open_tab(page, "Compare")
    page.get_by_label("A question for both").fill("What is force?")
    page.keyboard.press("Enter")
    ballot = panel.locator(".ballot")
    ballot.wait_for()
    assert panel.locator(".answer-name").all_inner_texts() == ["A", "B"]
    before = panel.evaluate("one => one.outerHTML")
    assert [name for name in MODELS if name in re.sub(r"[^\w-]", " ", before).split()] == []
    send = ballot.get_by_role("button", name="Send the vote")
    assert send.is_disabled()
    ballot.get_by_text("B is better").click()
    ballot.get_by_text("Say more").click()
    ballot.get_by_role("group", name="Clarity").get_by_text("Equal").click()
    ballot.get_by_label("Anything else").fill("short")
    with page.expect_request("**/tutor/vote") as asked:
        send.click()
    body = asked.value.post_data_json
    assert body["overall"] == "B"
    assert body["criteria"] == {"clarity": "AB", "other": "short"}
    panel.locator(".thanks").wait_for()
    names = panel.locator(".revealed").all_inner_texts()
    assert len(set(names)) == 2
    assert set(names) <= set(MODELS)
    panel.get_by_role("button", name="Ask another").click()
    assert panel.get_by_text("Which answer is better?").is_visible()


def test_identical_answers_need_no_vote(open_page: OpenPage) -> None:
    page = open_page()
    events = [
        {"side": "A", "text": "4"},
        {"side": "B", "text": "4"},
        {"side": "A", "ended": "stop"},
        {"side": "B", "ended": "stop"},
        {"comparison": "0" * 32, "identical": True, "models": {"A": "M2", "B": "M1"}},
    ]
    reply = {"content_type": "text/event-stream", "body": format_sse(*events)}
    page.route("**/tutor/compare", lambda route: route.fulfill(**reply))
    panel = open_tab(page, "Compare")
    page.get_by_label("A question for both").fill("2 + 2?")
    page.keyboard.press("Enter")
    thanks = panel.locator(".thanks")
    thanks.wait_for()
    assert "Both answers are the same: no vote is needed." in thanks.inner_text()
    assert panel.locator(".revealed").all_inner_texts() == ["M2", "M1"]
    assert panel.locator(".ballot").count() == 0


def test_a_quiz_is_answered_by_both(open_page: OpenPage) -> None:
    page = open_page()
    wrong = {"text": "2 + 2 = 5", "start": 4, "end": 13}
    stub_explanation(page, "For 2 + 2 = 5.", [wrong])
    panel = open_tab(page, "Quiz")
    panel.locator(".option").first.wait_for()
    assert panel.locator(".option-said").all_inner_texts() == ["0", "3", "7", "9"]
    question = panel.locator(".quiz-question").inner_text()
    assert re.fullmatch(r"Which number has \w+\?", question)
    assert panel.get_by_role("button", name="Answer").is_disabled()
    panel.get_by_role("radio").nth(1).check()
    panel.get_by_role("button", name="Answer").click()
    panel.locator(".judged").wait_for()
    assert panel.locator(".option.right").count() == 1
    verdict = panel.locator(".judged").inner_text()
    right = panel.locator(".option").nth(1).get_attribute("class") == "option right"
    assert verdict.startswith("Right." if right else "Not quite")
    shares = [int(text.split()[-2]) for text in panel.locator(".percent").all_inner_texts()]
    assert len(shares) == 4
    assert 98 <= sum(shares) <= 102
    model = page.get_by_label("Answers with you").input_value()
    assert panel.locator(".tag").get_by_text("right answer").count() == 1
    assert panel.locator(".option").nth(1).get_by_text("your choice").count() == 1
    assert panel.locator(".tag").get_by_text(f"{model}’s choice", exact=True).count() == 1
    answer = wait_for_answer(page, ".quiz .answer")
    assert answer.locator(".said").inner_text() == "For 2 + 2 = 5."
    assert answer.locator("mark.wrong").inner_text() == "2 + 2 = 5"
    panel.get_by_role("button", name="Next question").click()
    page.wait_for_function(
        "before => document.querySelector('.quiz-question')?.innerText != before", arg=question
    )
    page.reload()
    panel.locator(".option").first.wait_for()
    assert panel.locator(".quiz-question").inner_text() != question


def test_hints_come_one_at_a_time(open_page: OpenPage) -> None:
    page = open_page()
    panel = open_tab(page, "Hints")
    assert panel.locator(".steps-ahead li").all_inner_texts() == list(HINTS)
    page.get_by_label("The problem").fill("What is work?")
    page.keyboard.press("Enter")
    for n, name in enumerate(HINTS, 1):
        answer = wait_for_answer(page, ".hints .answer")
        assert panel.locator(".answer").count() == n
        assert f"Step {n} of 3" in answer.locator(".answer-name").inner_text()
        assert name in answer.locator(".answer-name").inner_text()
        more = panel.get_by_role("button", name="Next:")
        if n < 3:
            more.click()
            panel.locator(".answer").nth(n).wait_for()
    panel.get_by_text("That was the last step.").wait_for()
    assert more.count() == 0
    panel.get_by_role("button", name="Another problem").click()
    assert panel.locator(".answer").count() == 0


def test_what_a_quiz_holds_runs_nothing(open_page: OpenPage) -> None:
    page = open_page()
    harm = "<img src=x onerror=window.harm=1> [x](javascript:window.harm=1)"
    quiz = {"quiz": "0" * 32, "subject": harm, "question": harm, "number": 1, "of": 2}
    quiz["options"] = [harm, "`" + harm + "`", f"${harm}$", "4"]
    page.route("**/tutor/quiz?*", lambda route: route.fulfill(json=quiz))
    panel = open_tab(page, "Quiz")
    panel.locator(".option").first.wait_for()
    assert panel.inner_text().count(harm) >= 4
    assert panel.locator("img, a, script").count() == 0
