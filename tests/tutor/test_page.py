"""The tutor's pages in a browser, before a real server; answers that need a form are put in."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.place import Place
from tests.tutor.conftest import Server, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
    pytest.mark.enable_socket,
]

MODELS = ("M0", "M1", "M2", "M1-nf4")
COURSE = "Words <b onclick=harm()>& numbers</b>"
HINTS = ("A first hint", "A stronger hint", "The answer")
WIDTHS = (360, 768, 1280)
HARM = (
    "<img src=x onerror='window.harm=1'>",
    "<script>window.harm = 1</script>",
    "<svg onload=window.harm=1><a href=javascript:window.harm=1>x</a></svg>",
    "[a link](javascript:window.harm=1)",
    "[a link](JaVaScRiPt:window.harm=1 'title')",
    "![an image](https://elsewhere.example/x.png)",
    "<javascript:window.harm=1>",
    "`<img src=x onerror=window.harm=1>`",
    "```html\n<img src=x onerror=window.harm=1>\n<script>window.harm = 1</script>\n```",
    "```<img/src=x/onerror=window.harm=1>\nx\n```",
    "| <img src=x onerror=window.harm=1> | b |\n|---|---|\n| <script>window.harm=1</script> | c |",
    r"$\href{javascript:window.harm=1}{x}$",
    r"$$\url{javascript:window.harm=1}$$",
    r"\(\includegraphics{https://elsewhere.example/x.png}\)",
    r"$\htmlStyle{background:url(https://elsewhere.example)}{x}$",
    r"$\htmlData{x=y}{z} \htmlId{main}{q} \htmlClass{trouble}{r}$",
    "$\\text{<img src=x onerror=window.harm=1>}$",
    r"\[ \unknown{<script>window.harm=1</script>} \]",
)
LESSON = (
    r"""**Force** is mass times acceleration:

$$\vec F = m \vec a, \qquad \boxed{F = 6\ \mathrm N}$$

So \(m = 2\) and $a = 3$ give 2 * 3 = 7, as it costs $5 to $6.

1. Draw the *body*.
2. Add up:
   - gravity
   - friction
3. Solve.

```python
def force(mass: float, acceleration: float) -> float:
    return mass * acceleration  # in newtons, on a line that is much too long for any telephone
```

| quantity | value |
| :-- | --: |
| mass | 2 |

See [the lecture](https://example.org/lecture), and """
    + "a-very-long-word" * 12
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def tutor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a course that the tiny models, which read 128 tokens, can keep up with."""
    path = tmp_path_factory.mktemp("course") / "tutor.yaml"
    hints = [{"name": name, "ask": f"{n}?"} for n, name in enumerate(HINTS)]
    limits = {"message": 120, "tokens": 24}
    settings = {"course": COURSE, "hints": hints, "limits": limits, "database": "events.sqlite"}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def server(finished: Place, tutor: Path) -> Iterator[Server]:
    with serving(finished, "--tutor", str(tutor)) as found:
        yield found


Open = Callable[..., Any]


@pytest.fixture
def told() -> list[str]:
    """What the browser complained about; a test that expects some of it takes it away."""
    return []


@pytest.fixture
def opened(browser: Any, server: Server, told: list[str]) -> Iterator[Open]:
    """Opens a page; at the end none may have complained, nor asked another server."""
    contexts = []
    asked: list[str] = []

    def open_page(path: str = "", *, width: int = 1280, dark: bool = False) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{server.url}/{path}")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.harm") is None
        context.close()
    assert told == []
    ours = (server.url, f"blob:{server.url}")
    assert [url for url in asked if not url.startswith(ours)] == []


def events(*all_: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(one)}\n\n" for one in all_) + "data: [DONE]\n\n"


def answers(page: Any, text: str, marks: list[dict[str, Any]] | None = None) -> None:
    """Lets every chat be answered by this text."""
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    chunks = [{"choices": [{"delta": {"content": p}, "finish_reason": None}]} for p in pieces]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(content_type="text/event-stream", body=events(*chunks)),
    )
    if marks is not None:
        page.route("**/tutor/marks", lambda route: route.fulfill(json={"marks": marks}))


def ask(page: Any, question: str) -> Any:
    """Asks, and gives the answer once it has ended."""
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    return ended(page, ".ask .answer")


def ended(page: Any, which: str) -> Any:
    answer = page.locator(which).last
    answer.wait_for()
    page.wait_for_function(
        "which => ![...document.querySelectorAll(which)].at(-1).ariaBusy", arg=which
    )
    return answer


def way(page: Any, name: str) -> Any:
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("tabpanel", name=name)


def markup(page: Any, text: str) -> str:
    """The nodes that a Markdown text is made into, formulas as their sources."""
    found = page.evaluate(
        """async text => {
            const { Markdown } = await import("/page/markdown.js");
            const element = document.createElement("div");
            new Markdown(element).show(text);
            for (const one of element.querySelectorAll(".katex"))
                one.replaceWith(`{${one.querySelector("annotation").textContent}}`);
            return element.innerHTML;
        }""",
        text,
    )
    return re.sub(r' (class|target|rel|tabindex|role|aria-label)="[^"]*"', "", str(found))


def marked(page: Any, text: str, said: str) -> list[str]:
    """What of a shown text is marked where a piece of its source is."""
    start = len(text[: text.index(said)].encode("utf-16-le")) // 2
    end = start + len(said.encode("utf-16-le")) // 2
    found = page.evaluate(
        """async ([text, start, end]) => {
            const { Markdown } = await import("/page/markdown.js");
            const element = document.createElement("div");
            new Markdown(element).mark(text, [{ start, end }]);
            for (const one of element.querySelectorAll(".katex"))
                one.replaceWith(one.querySelector("annotation").textContent);
            return [...element.querySelectorAll(".wrong")].map(one => one.textContent);
        }""",
        [text, start, end],
    )
    return list(found)


def test_an_answer_grows_while_it_is_written(opened: Open) -> None:
    page = opened()
    page.evaluate(
        """() => {
            window.seen = new Set();
            new MutationObserver(() => {
                for (const one of document.querySelectorAll(".ask .answer .said"))
                    window.seen.add(one.textContent.length);
            }).observe(document.body, { childList: true, subtree: true, characterData: true });
        }"""
    )
    page.get_by_label("Model").first.select_option("M1")
    answer = ask(page, "What is force?")
    assert answer.locator(".answer-name").inner_text() == "M1"
    assert answer.locator(".said").inner_text().strip()
    lengths = page.evaluate("[...window.seen]")
    assert len(lengths) > 3
    said = page.locator("#announced").inner_text()
    assert said.startswith("M1: ")


def test_an_answer_can_be_stopped(opened: Open) -> None:
    """Escape closes the connection; what has come stays, and another question can be asked."""
    page = opened()
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


def test_formulas_lists_tables_and_code_are_set(opened: Open) -> None:
    page = opened()
    wrong = {"text": "2 * 3 = 7", "start": LESSON.index("2 * 3 = 7")}
    answers(page, LESSON, [wrong | {"end": wrong["start"] + 9}])
    answer = ask(page, "Explain force")
    said = answer.locator(".said")
    assert said.locator(".katex").count() == 3
    assert said.locator(".katex-display .fbox").count() == 1
    assert said.locator("annotation").first.text_content().startswith(r"\vec F")
    assert said.locator("ol > li > ul > li").all_inner_texts() == ["gravity", "friction"]
    assert said.locator("td").all_inner_texts() == ["mass", "2"]
    assert said.locator("code .hljs-keyword").first.inner_text() == "def"
    link = said.get_by_role("link")
    assert link.get_attribute("href") == "https://example.org/lecture"
    assert "noopener" in link.get_attribute("rel")
    answer.locator(".marks").wait_for()
    assert said.locator("mark.wrong").all_inner_texts() == ["2 * 3 = 7"]
    assert page.evaluate("document.fonts.check('12px KaTeX_Main')")


def test_code_and_answers_are_copied(opened: Open) -> None:
    page = opened()
    answers(page, LESSON, [])
    answer = ask(page, "Explain force")
    clipboard = "navigator.clipboard.readText()"
    answer.locator(".code").get_by_role("button", name="Copy").click()
    answer.get_by_text("Copied").wait_for()
    code = page.evaluate(clipboard)
    assert code.startswith("def force(mass: float")
    assert code.endswith("any telephone")
    answer.locator(".actions").get_by_role("button", name="Copy").click()
    page.wait_for_function(f"async () => await {clipboard} != {json.dumps(code)}")
    assert page.evaluate(clipboard) == LESSON


MARKDOWN = {
    "# Title of *it*": "<h3>Title of <em>it</em></h3>",
    "one\ntwo": "<p>one<br>two</p>",
    "2*3*4, a * b, f_1_x, **b**, *i*, ***bi***": "<p>2*3*4, a * b, f_1_x, <strong>b</strong>, "
    "<em>i</em>, <strong><em>bi</em></strong></p>",
    "**open, \\*not\\*": "<p>**open, *not*</p>",
    "$5 and $10": "<p>$5 and $10</p>",
    "from $x_1$ to $x_2$.": "<p>from <span>{x_1}</span> to <span><span>{x_2}</span>.</span></p>",
    "\\[\n- x\n\\]": "<div><span>{- x}</span></div>",
    "- a\n  - b\n- c": "<ul><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ul>",
    "2. a\n\n3. b": '<ol start="2"><li><p>a</p></li><li><p>b</p></li></ol>',
    "> a\n> - b": "<blockquote><p>a</p><ul><li><p>b</p></li></ul></blockquote>",
    "a\n***\nb": "<p>a</p><hr><p>b</p>",
    "`a*b*` <b>": "<p><code>a*b*</code> &lt;b&gt;</p>",
    "https://a.b/c.": '<p><a href="https://a.b/c">https://a.b/c</a>.</p>',
    "[x](ftp://a.b)": "<p>[x](ftp://a.b)</p>",
    "&lt;b&gt;": "<p>&amp;lt;b&amp;gt;</p>",
}


def test_markdown_is_what_models_mean_by_it(opened: Open) -> None:
    page = opened()
    assert {text: markup(page, text) for text in MARKDOWN} == MARKDOWN


@pytest.mark.parametrize(
    "sign", ["*", "_", "[", "$", "`", ">", "- ", "\\(", "[a](", "| a |\n", "1. "]
)
def test_no_text_takes_long_to_draw(sign: str, opened: Open) -> None:
    page = opened()
    text = sign * (8000 // len(sign))
    page.evaluate(
        """async text => {
            const { Markdown } = await import("/page/markdown.js");
            const begin = performance.now();
            new Markdown(document.createElement("div")).show(text);
            window.took = performance.now() - begin;
        }""",
        text,
    )
    assert page.evaluate("window.took") < 2000


def test_a_place_of_the_text_is_found_in_the_page(opened: Open) -> None:
    page = opened()
    assert marked(page, "so 2 + 2 = 5, too", "2 + 2 = 5") == ["2 + 2 = 5"]
    assert marked(page, "- 😀\n  1. **so** 3*4 = 13", "3*4 = 13") == ["3*4 = 13"]
    assert marked(page, "> 😀\n> 2 + **2** = 5!", "2 + **2** = 5") == ["2 + ", "2", " = 5"]
    assert marked(page, "a $2+2=5$ b", "2+2=5") == ["2+2=5"]
    assert marked(page, "| a |\n|---|\n| 1+1=3 |", "1+1=3") == ["1+1=3"]


@pytest.mark.parametrize("text", HARM)
def test_what_a_model_writes_runs_nothing(text: str, opened: Open) -> None:
    page = opened()
    answers(page, f"Before {text} after\n\n{text}\n", [])
    answer = ask(page, "Do harm")
    said = answer.locator(".said")
    assert said.locator("img, script, iframe, object, form, input, style, [onload]").count() == 0
    assert said.locator("svg:not(.icon):not(.katex svg)").count() == 0
    hrefs = said.evaluate("one => [...one.querySelectorAll('[href]')].map(a => a.href)")
    assert all(href.startswith("https://elsewhere.example/") for href in hrefs)
    assert said.locator("#main, .trouble, [data-x]").count() == 0
    page.reload()
    page.get_by_role("button", name="Do harm", exact=True).click()
    assert page.locator(".ask .said").locator("img, script").count() == 0


def test_what_a_student_types_is_shown_as_typed(opened: Open) -> None:
    page = opened()
    answers(page, "Yes", [])
    text = "<img src=x onerror=window.harm=1>\n  **b** $x$ & <b>"
    ask(page, text)
    question = page.locator(".ask .question")
    assert question.evaluate("one => one.lastChild.data") == text
    assert question.locator("img, b, strong, .katex").count() == 0
    assert page.locator(".past-open").inner_text().startswith("<img src=x")
    assert page.locator("h1").inner_text() == COURSE


def test_chats_are_kept_in_the_browser_until_deleted(opened: Open) -> None:
    page = opened()
    answers(page, "An **answer**", [])
    ask(page, "The first question")
    page.get_by_role("button", name="New chat").click()
    assert page.get_by_text("What would you like to understand?").is_visible()
    ask(page, "Another one")
    page.reload()
    past = page.locator(".past-open")
    assert past.all_inner_texts() == ["Another one", "The first question"]
    past.last.click()
    assert page.locator(".ask .said strong").inner_text() == "answer"
    page.get_by_role("button", name="Delete the chat The first question").click()
    page.reload()
    assert past.all_inner_texts() == ["Another one"]


def test_a_conversation_is_sent_as_one(opened: Open) -> None:
    """Without the question that was never answered; another answer is drawn with some chance."""
    page = opened()
    answers(page, "Yes", [])
    sent: list[Any] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if "/v1/chat" in r.url else None)
    ask(page, "One")
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body="data: [DONE]\n\n"))
    ask(page, "Two")
    answers(page, "No", [])
    ask(page, "Three")
    page.get_by_role("button", name="Another answer").last.click()
    page.wait_for_function("document.querySelectorAll('.ask .answer').length == 3")
    ended(page, ".ask .answer")
    said = [[(m["role"], m["content"]) for m in body["messages"]] for body in sent]
    one, three = ("user", "One"), ("user", "Three")
    assert said[0] == [one]
    assert said[2] == said[3] == [one, ("assistant", "Yes"), three]
    assert "temperature" not in sent[2]
    assert sent[3]["temperature"] > 0


def test_failures_are_told_where_they_happen(opened: Open, told: list[str]) -> None:
    page = opened()
    busy = {"error": {"message": "busy", "type": "x", "code": "busy", "param": None}}
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=busy),
    )
    answer = ask(page, "What is force?")
    assert "Try again in 1 second" in answer.get_by_role("alert").inner_text()
    again = answer.get_by_role("button", name="Try again")
    assert again.is_disabled()
    page.unroute("**/v1/chat/completions")
    answers(page, "It is mass times acceleration.", [])
    again.click()  # once it may be
    page.locator(".said", has_text="mass times acceleration").wait_for()
    assert page.locator(".trouble").count() == 0
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    answer = ask(page, "And power?")
    assert "can’t be reached" in answer.get_by_role("alert").inner_text()
    assert page.locator(".question").last.inner_text().endswith("And power?")
    page.unroute("**/v1/chat/completions")
    broken = 'data: {"choices": [{"delta": {"content": "Half"}}]}\n\n'
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=broken))
    answer.get_by_role("button", name="Try again").click()
    page.get_by_text("The connection broke").wait_for()
    assert page.locator(".ask .said").last.inner_text() == "Half"
    assert len([one for one in told if "Failed to load resource" in one]) == len(told) == 2
    told.clear()


def test_an_answer_is_rated(opened: Open) -> None:
    page = opened()
    answers(page, "Yes", [])
    answer = ask(page, "What is force?")
    sent: list[Any] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if "/rating" in r.url else None)
    answer.get_by_role("button", name="A good answer").click()
    answer.locator("[aria-pressed=true]").wait_for()
    assert sent[0] | {"session": ""} == {
        "session": "", "model": "M0", "question": "What is force?", "answer": "Yes", "rating": "up",
    }  # fmt: skip


def test_nobody_knows_the_models_before_the_vote(opened: Open) -> None:
    page = opened()
    panel = way(page, "Compare")
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


def test_a_quiz_is_answered_by_both(opened: Open) -> None:
    page = opened()
    panel = way(page, "Quiz")
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
    tags = panel.locator(".tag").all_inner_texts()
    assert sorted(tags) == sorted(["right answer", "your choice", "M0"])
    assert ended(page, ".quiz .answer").locator(".said").inner_text()
    panel.get_by_role("button", name="Next question").click()
    page.wait_for_function(
        "before => document.querySelector('.quiz-question')?.innerText != before", arg=question
    )
    page.reload()
    assert panel.locator(".quiz-question").inner_text() != question


def test_hints_come_one_at_a_time(opened: Open) -> None:
    page = opened()
    panel = way(page, "Hints")
    assert panel.locator(".steps-ahead li").all_inner_texts() == list(HINTS)
    page.get_by_label("The problem").fill("What is work?")
    page.keyboard.press("Enter")
    for n, name in enumerate(HINTS, 1):
        answer = ended(page, ".hints .answer")
        assert panel.locator(".answer").count() == n
        assert f"Step {n} of 3" in answer.locator(".answer-name").inner_text()
        assert name in answer.locator(".answer-name").inner_text()
        more = panel.get_by_role("button", name="I need more")
        if n < 3:
            more.click()
            panel.locator(".answer").nth(n).wait_for()
    panel.get_by_text("That was the last step.").wait_for()
    assert more.count() == 0
    panel.get_by_role("button", name="Another problem").click()
    assert panel.locator(".answer").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_the_window(width: int, opened: Open) -> None:
    """Whatever models are called, and write; what is too wide scrolls by itself."""
    page = opened(width=width)
    answers(page, LESSON + "\n\n" + r"$\text{" + "wide" * 60 + "}$", [])
    name = "M" + "<b>&" * 30
    page.route("**/tutor/config", lambda route: _rename(route, name))
    page.reload()
    ask(page, "long" * 25)
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits)
    for tab in ("Compare", "Quiz", "Hints"):
        way(page, tab)
        assert page.evaluate(fits)
    page.get_by_role("button", name="Delete what I left").click()
    assert page.evaluate(fits)


def _rename(route: Any, name: str) -> None:
    config = route.fetch().json()
    config["models"][0] = {"id": name, "about": "a model " * 20}
    route.fulfill(json=config)


CONTRAST = """() => {
    const read = color => {
        const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
        return { a, light: [r, g, b].map(one => one / 255)
            .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
            .reduce((sum, one, n) => sum + one * [0.2126, 0.7152, 0.0722][n], 0) };
    };
    const behind = one => {
        for (; one; one = one.parentElement) {
            const found = read(getComputedStyle(one).backgroundColor);
            if (found.a == 1) return found.light;
        }
    };
    return [...document.querySelectorAll("body *")].filter(one =>
        one.checkVisibility() && !one.closest(":disabled, .katex, .unseen, svg, option")
        && [...one.childNodes].some(node => node.nodeType == 3 && node.data.trim()))
      .map(one => {
        const [dark, light] = [read(getComputedStyle(one).color).light, behind(one)].sort(
            (a, b) => a - b);
        return [(light + 0.05) / (dark + 0.05), one.outerHTML.slice(0, 90)];
      }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_can_be_read(dark: bool, opened: Open) -> None:
    page = opened(dark=dark)
    answers(page, LESSON, [{"text": "2 * 3 = 7", "start": 0, "end": 9}])
    ask(page, "What is force?").locator(".marks").wait_for()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(paper.removeprefix("rgb(").split(",")[0]) < 128) == dark
    assert page.evaluate(CONTRAST) == []
    panel = way(page, "Quiz")
    panel.get_by_role("radio").first.check()
    panel.get_by_role("button", name="Answer").click()
    ended(page, ".quiz .answer")
    assert page.evaluate(CONTRAST) == []


def test_everything_is_reached_by_the_keyboard(opened: Open) -> None:
    page = opened()
    answers(page, "Yes", [])
    focused = "document.activeElement"
    field = page.get_by_label("Your question")
    field.wait_for()
    assert page.evaluate(f"{focused}.tagName") == "TEXTAREA"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert field.input_value() == "one\ntwo"
    page.keyboard.press("Enter")
    ended(page, ".ask .answer")
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


def test_every_control_has_a_name(opened: Open) -> None:
    page = opened()
    answers(page, LESSON, [])
    ask(page, "What is force?")
    for tab in ("Ask", "Compare", "Quiz", "Hints"):
        way(page, tab)
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea")].filter(one =>
            one.autocomplete != "username" && !one.getAttribute("aria-label")
            && !one.innerText?.trim() && !one.textContent.trim() && !one.labels?.length
        ).map(one => one.outerHTML)"""
    )
    assert nameless == []


def test_a_student_deletes_what_was_left(opened: Open) -> None:
    page = opened()
    answers(page, "Yes", [])
    answer = ask(page, "What is force?")
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
    browser: Any, finished: Place, tutor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEPHYR_CLASS_PASSWORD", "open sesame")
    with serving(finished, "--tutor", str(tutor)) as server:
        page = browser.new_page()
        page.goto(server.url)
        field = page.get_by_label("The class password")
        field.fill("wrong password")
        page.keyboard.press("Enter")
        page.get_by_text("That is not the password").wait_for()
        field.fill("open sesame")
        page.keyboard.press("Enter")
        page.get_by_label("Model").first.select_option("M1")
        assert ask(page, "What is force?").locator(".said").inner_text().strip()
        page.reload()
        page.get_by_label("Your question").wait_for()
        assert "sesame" not in page.evaluate("JSON.stringify({ ...localStorage })")
        page.close()


def test_the_teacher_sees_the_class_and_takes_its_files(
    opened: Open, server: Server, told: list[str]
) -> None:
    page = opened("teacher", width=360)
    field = page.get_by_label("The teacher’s token")
    field.fill("not the token")
    page.keyboard.press("Enter")
    page.get_by_text("That token is not").wait_for()
    assert len(told) == 1
    told.clear()
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


def test_the_teacher_s_figures_are_drawn(opened: Open, server: Server) -> None:
    page = opened("teacher")
    rate = {"value": 0.66, "low": 0.58, "high": 0.74, "n": 120}
    harm = HARM[0]
    summary = {
        "course": COURSE, "since": "2026-11-02T08:00:00+00:00", "sessions": 58, "votes": 143,
        "questions": {"M2": 1412, harm: 1}, "ratings": {"M2": {"up": 61, "down": 12}},
        "quiz": {"answered": 240, "right": 171, "model_right": 133, "agreement": rate},
        "wins": {"M2": rate, harm: rate | {"value": 0.3}},
        "pairs": [{"a": harm, "b": "M2", "a_wins": 71, "b_wins": 33, "ties": 17}],
        "closest": [{"question": harm, "a": "M1", "b": "M2", "votes": {"M1": 4, "M2": 3}, "ties": 2}],
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
    assert page.locator("main img").count() == 0
    assert page.evaluate(CONTRAST) == []
