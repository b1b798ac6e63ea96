"""Chats with one model: streamed, stopped, kept, and what is said when they fail."""

import re
from typing import Any

import pytest

from tests.tutor.page.actions import COURSE, ask_question, stub_answers, wait_for_answer
from tests.tutor.page.conftest import OpenPage

pytestmark = pytest.mark.enable_socket


def test_an_answer_grows_while_it_is_written(open_page: OpenPage) -> None:
    """Each event comes 30 ms after the last: on a busy machine all would be drawn at once."""
    page = open_page()
    page.evaluate(
        """() => {
            const fetchNow = window.fetch;
            const delay = { async transform(chunk, controller) {
                const events = new TextDecoder().decode(chunk).split(/(?<=\\n\\r?\\n)/);
                for (const event of events) {
                    controller.enqueue(new TextEncoder().encode(event));
                    await new Promise((go) => setTimeout(go, 30));
                }
            } };
            window.fetch = async (...request) => {
                const reply = await fetchNow(...request);
                if (!reply.headers.get("content-type")?.includes("event-stream")) return reply;
                const slow = reply.body.pipeThrough(new TransformStream(delay));
                return new Response(slow, { status: reply.status, headers: reply.headers });
            };
            window.seen = new Set();
            new MutationObserver(() => {
                for (const one of document.querySelectorAll(".ask .answer .said"))
                    window.seen.add(one.textContent.length);
            }).observe(document.body, { childList: true, subtree: true, characterData: true });
        }"""
    )
    page.get_by_label("Model").first.select_option("M1")
    answer = ask_question(page, "What is force?")
    assert answer.locator(".answer-name").inner_text() == "M1"
    assert answer.locator(".said").inner_text().strip()
    lengths = page.evaluate("[...window.seen]")
    assert len(lengths) > 3
    said = page.locator("#announced").inner_text()
    assert said.startswith("M1: ")


def test_an_answer_can_be_stopped(open_page: OpenPage) -> None:
    """Escape closes the connection; what has come stays, and another question can be asked."""
    page = open_page()
    closed: list[str] = []
    page.on("requestfailed", lambda request: closed.append(request.url))
    page.evaluate(
        """() => {
            const first = window.fetch;
            window.fetch = (path, options) => path != "v1/chat/completions" ? first(path, options)
              : new Promise((tell, refuse) => {
                const body = new ReadableStream({ start(controller) {
                    const chunk = { choices: [{ delta: { content: "It begins" } }] };
                    controller.enqueue(new TextEncoder().encode(
                        `data: ${JSON.stringify(chunk)}\\n\\n`));
                    options.signal.addEventListener("abort", () => {
                        window.aborted = true;
                        controller.error(options.signal.reason);
                    });
                } });
                tell(new Response(body));
              });
        }"""
    )
    page.get_by_label("Your question").fill("What is force?")
    page.keyboard.press("Enter")
    page.get_by_text("It begins").wait_for()
    assert page.get_by_role("button", name="Stop").is_visible()
    page.keyboard.press("Escape")
    page.get_by_text("You stopped this answer.").wait_for()
    assert page.evaluate("window.aborted")
    assert page.get_by_role("button", name="Send").is_visible()
    assert page.locator(".ask .said").inner_text() == "It begins"


def test_what_a_student_types_is_shown_as_typed(open_page: OpenPage) -> None:
    page = open_page()
    stub_answers(page, "Yes", [])
    text = "<img src=x onerror=window.harm=1>\n  **b** $x$ & <b>"
    ask_question(page, text)
    question = page.locator(".ask .question")
    assert question.evaluate("one => one.lastChild.data") == text
    assert question.locator("img, b, strong, .katex").count() == 0
    assert page.locator(".past-open").inner_text().startswith("<img src=x")
    assert page.locator("h1").inner_text() == COURSE


def test_chats_are_kept_in_the_browser_until_deleted(open_page: OpenPage) -> None:
    page = open_page()
    stub_answers(page, "An **answer**", [])
    ask_question(page, "The first question")
    page.get_by_role("button", name="New chat").click()
    assert page.get_by_text("What would you like to understand?").is_visible()
    ask_question(page, "Another one")
    page.reload()
    past = page.locator(".past-open")
    past.first.wait_for()
    assert past.all_inner_texts() == ["Another one", "The first question"]
    past.last.click()
    assert page.locator(".ask .said strong").inner_text() == "answer"
    page.get_by_role("button", name="Delete the chat The first question").click()
    page.reload()
    past.first.wait_for()
    assert past.all_inner_texts() == ["Another one"]


def test_a_conversation_is_sent_as_one(open_page: OpenPage) -> None:
    """Without the question that was never answered; another answer is drawn with some chance."""
    page = open_page()
    stub_answers(page, "Yes", [])
    sent: list[Any] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if "/v1/chat" in r.url else None)
    ask_question(page, "One")
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body="data: [DONE]\n\n"))
    ask_question(page, "Two")
    stub_answers(page, "No", [])
    ask_question(page, "Three")
    page.get_by_role("button", name="Another answer").last.click()
    page.wait_for_function("document.querySelectorAll('.ask .answer').length == 3")
    wait_for_answer(page, ".ask .answer")
    said = [[(m["role"], m["content"]) for m in body["messages"]] for body in sent]
    one, three = ("user", "One"), ("user", "Three")
    assert said[0] == [one]
    assert said[2] == said[3] == [one, ("assistant", "Yes"), three]
    assert "temperature" not in sent[2]
    assert sent[3]["temperature"] > 0


def test_failures_are_told_where_they_happen(
    open_page: OpenPage, console_messages: list[str]
) -> None:
    page = open_page()
    busy = {"error": {"message": "busy", "type": "x", "code": "busy", "param": None}}
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=busy),
    )
    answer = ask_question(page, "What is force?")
    assert "Try again in 1 second" in answer.get_by_role("alert").inner_text()
    again = answer.get_by_role("button", name="Try again")
    assert again.is_disabled()
    page.unroute("**/v1/chat/completions")
    stub_answers(page, "It is mass times acceleration.", [])
    again.click()  # once it may be
    page.locator(".said", has_text="mass times acceleration").wait_for()
    assert page.locator(".trouble").count() == 0
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    answer = ask_question(page, "And power?")
    assert "can’t be reached" in answer.get_by_role("alert").inner_text()
    assert page.locator(".question").last.inner_text().endswith("And power?")
    page.unroute("**/v1/chat/completions")
    broken = 'data: {"choices": [{"delta": {"content": "Half"}}]}\n\n'
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=broken))
    answer.get_by_role("button", name="Try again").click()
    page.get_by_text("The connection broke").wait_for()
    assert page.locator(".ask .said").last.inner_text() == "Half"
    assert (
        len([one for one in console_messages if "Failed to load resource" in one])
        == len(console_messages)
        == 2
    )
    console_messages.clear()


def test_an_answer_is_rated(open_page: OpenPage) -> None:
    page = open_page()
    stub_answers(page, "Yes", [])
    answer = ask_question(page, "What is force?")
    sent: list[Any] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if "/rating" in r.url else None)
    answer.get_by_role("button", name="A good answer").click()
    answer.locator("[aria-pressed=true]").wait_for()
    assert re.fullmatch("[0-9a-f]{32}", sent[0].pop("session"))
    expected = {"question": "What is force?", "answer": "Yes", "rating": "up"}
    assert sent == [{"model": answer.locator(".answer-name").inner_text(), **expected}]
