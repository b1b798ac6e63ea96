"""Wrong equations, and where a browser finds them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr.evaluate.equations import check_equations, find_wrong_equations
from zephyr.tutor.equation_marks import mark_equations


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("So 2 + 2 = 5, or 2 + 2 = 4.", ["2 + 2 = 5"]),
        ("2 + 2 = 5\n2 + 2 = 5", ["2 + 2 = 5", "2 + 2 = 5"]),
        ("1. 3 + 4 = 8 pens", ["3 + 4 = 8"]),
        ("- $5 + $3 = $9 in all", ["$5 + $3 = $9"]),
        ("20% of 50 = 11", ["20% of 50 = 11"]),
        ("5 plus 3 equals 9 apples", ["5 plus 3 equals 9"]),
        ("5 \\times 3 = 16\\)", ["5 \\times 3 = 16"]),
        ("**3 + 4 = 8**", ["3 + 4 = 8"]),
        ("a total of 2+3=6=5+1", ["2+3=6"]),
        ("6*7=<<6*7=43>>43 pens", ["6*7=<<6*7=43>>43", "6*7=43"]),
        ("2^3 = 9, x + 1 = 3, 1 / 0 = 1", []),
        ("40% + 50% = 80%", ["40% + 50% = 80%"]),
        ("3 + 4 = (2 + 6) miles", ["3 + 4 = (2 + 6)"]),
        ("", []),
    ],
)
def test_wrong_equations_are_marked_as_they_are_written(text: str, wrong: list[str]) -> None:
    assert [mark["text"] for mark in mark_equations(text)] == wrong


def test_offsets_count_as_a_browser_does() -> None:
    text = "🙂🙂 é\r\n🙂 2 + 2 = 5"
    [mark] = mark_equations(text)
    units = text.encode("utf-16-le")
    assert units[2 * mark["start"] : 2 * mark["end"]].decode("utf-16-le") == "2 + 2 = 5"
    assert (mark["start"], mark["end"]) == (11, 20)


SIGNS = [*"0123456789 +-*/=()%$x.\\\n\r\u2028<>≈a,^🙂", " plus ", "<<1+1=3>>", "**", "\\("]


@given(st.lists(st.sampled_from(SIGNS), max_size=60).map("".join))
def test_there_is_a_mark_wherever_an_equation_is_wrong(text: str) -> None:
    spans = find_wrong_equations(text)
    assert len(spans) >= check_equations(text).wrong
    assert bool(spans) >= bool(check_equations(text).wrong)
    for mark in mark_equations(text):
        units = text.encode("utf-16-le")[2 * mark["start"] : 2 * mark["end"]]
        assert units.decode("utf-16-le") == mark["text"]
        assert mark["text"][0] in "0123456789.-−–$(√"
        assert mark["text"][-1] in "0123456789)%$"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 8_000 + "=1",
        "1=" + "(" * 8_000,
        "1+" * 4_000 + "x=1",
        "1=" + "1/7/" * 2_000 + "9",
        "9" * 8_000 + "+1=2",
        "=(1/" * 2_000,
        "0 = 0 + " * 1_000,
    ],
)
def test_what_nobody_computes_is_left_alone_soon(text: str) -> None:
    start = time.process_time()
    assert mark_equations(text) == []
    assert time.process_time() - start < 2
