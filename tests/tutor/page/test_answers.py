"""How answers are drawn, whatever models write."""

import json
import re
from typing import Any

import pytest

from tests.tutor.page.actions import LESSON, ask_question, stub_answers
from tests.tutor.page.conftest import OpenPage

pytestmark = pytest.mark.enable_socket

MARKDOWN = {
    "# Title of *it*": "<h3>Title of <em>it</em></h3>",
    "one\ntwo": "<p>one<br>two</p>",
    "2*3*4, a * b, f_1_x, **b**, *i*, ***bi***": "<p>2*3*4, a * b, f_1_x, <strong>b</strong>, "
    "<em>i</em>, <em><strong>bi</strong></em></p>",
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


def test_formulas_lists_tables_and_code_are_set(open_page: OpenPage) -> None:
    page = open_page()
    wrong = {"text": "2 * 3 = 7", "start": LESSON.index("2 * 3 = 7")}
    stub_answers(page, LESSON, [wrong | {"end": wrong["start"] + 9}])
    answer = ask_question(page, "Explain force")
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


def test_code_and_answers_are_copied(open_page: OpenPage) -> None:
    page = open_page()
    stub_answers(page, LESSON, [])
    answer = ask_question(page, "Explain force")
    clipboard = "navigator.clipboard.readText()"
    answer.locator(".code").get_by_role("button", name="Copy").click()
    answer.get_by_text("Copied").wait_for()
    code = page.evaluate(clipboard)
    assert code.startswith("def force(mass: float")
    assert code.endswith("any telephone")
    answer.locator(".actions").get_by_role("button", name="Copy").click()
    page.wait_for_function(f"async () => await {clipboard} != {json.dumps(code)}")
    assert page.evaluate(clipboard) == LESSON


def test_markdown_is_what_models_mean_by_it(open_page: OpenPage) -> None:
    page = open_page()
    assert {text: markup(page, text) for text in MARKDOWN} == MARKDOWN


def test_no_text_takes_long_to_draw(open_page: OpenPage) -> None:
    page = open_page()
    signs = ["*", "_", "[", "$", "`", ">", "- ", "\\(", "\\[\n", "[a](", "| a |\n", "1. ", "*a_"]
    took = page.evaluate(
        """async signs => {
            const { Markdown } = await import("/page/markdown.js");
            return signs.map(sign => {
                const begin = performance.now();
                new Markdown(document.createElement("div")).show(
                    sign.repeat(8000 / sign.length));
                return performance.now() - begin;
            });
        }""",
        signs,
    )
    assert max(took) < 2000


def test_a_place_of_the_text_is_found_in_the_page(open_page: OpenPage) -> None:
    page = open_page()
    assert marked(page, "so 2 + 2 = 5, too", "2 + 2 = 5") == ["2 + 2 = 5"]
    assert marked(page, "- 😀\n  1. **so** 3*4 = 13", "3*4 = 13") == ["3*4 = 13"]
    assert marked(page, "> 😀\n> 2 + **2** = 5!", "2 + **2** = 5") == ["2 + ", "2", " = 5"]
    assert marked(page, "a $2+2=5$ b", "2+2=5") == ["2+2=5"]
    assert marked(page, "| a |\n|---|\n| 1+1=3 |", "1+1=3") == ["1+1=3"]


def test_what_a_model_writes_runs_nothing(open_page: OpenPage) -> None:
    """Neither when it comes, nor when the chat is opened again."""
    page = open_page()
    for n, text in enumerate(HARM):
        page.unroute("**/v1/chat/completions")
        stub_answers(page, f"Before {text} after\n\n{text}\n", [])
        ask_question(page, f"Do harm {n}")
    _harmless(page)
    page.reload()
    page.get_by_role("button", name="Do harm 0", exact=True).click()
    _harmless(page)


def _harmless(page: Any) -> None:
    said = page.locator(".ask .said")
    assert said.count() == len(HARM)
    assert said.locator("img, script, iframe, object, form, input, style, [onload]").count() == 0
    assert said.locator("svg:not(.icon):not(.katex svg)").count() == 0
    hrefs = page.evaluate("[...document.querySelectorAll('.said [href]')].map(one => one.href)")
    assert hrefs
    assert all(href.startswith("https://elsewhere.example/") for href in hrefs)
    assert said.locator("#main, .trouble, [data-x]").count() == 0
