"""Page actions of a student (Playwright), and stubs for the models' answers."""

import json
from typing import Any

COURSE = "Words <b onclick=harm()>& numbers</b>"
HINTS = ("A first hint <img src=x onerror=harm()>", "A stronger hint", "The answer")
MODELS = ("M2", "M1", "M0", "M1-nf4")


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


def format_sse(*all_: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(one)}\n\n" for one in all_) + "data: [DONE]\n\n"


def stub_answers(page: Any, text: str, marks: list[dict[str, Any]] | None = None) -> None:
    """Stubs /v1/chat/completions with this text as the answer to every chat."""
    text_parts = [text[at : at + 7] for at in range(0, len(text), 7)]
    chunks = [{"choices": [{"delta": {"content": p}, "finish_reason": None}]} for p in text_parts]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(content_type="text/event-stream", body=format_sse(*chunks)),
    )
    if marks is not None:
        page.route("**/tutor/marks", lambda route: route.fulfill(json={"marks": marks}))


def stub_explanation(page: Any, text: str, marks: list[dict[str, Any]]) -> None:
    """Stubs /tutor/explain with this text, as the tiny models' context is too short for it."""
    body = format_sse({"text": text}, {"ended": "stop"}, {"marks": marks})
    page.route(
        "**/tutor/explain",
        lambda route: route.fulfill(content_type="text/event-stream", body=body),
    )


def ask_question(page: Any, question: str) -> Any:
    """Asks a question, and returns the answer's locator once it has finished."""
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    return wait_for_answer(page, ".ask .answer")


def wait_for_answer(page: Any, selector: str) -> Any:
    answer = page.locator(selector).last
    answer.wait_for()
    page.wait_for_function(
        "which => ![...document.querySelectorAll(which)].at(-1).ariaBusy", arg=selector
    )
    return answer


def open_tab(page: Any, name: str) -> Any:
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("tabpanel", name=name)


CONTRAST_SCRIPT = """() => {
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
