"""Equations of a text, computed again: right ones, wrong ones, and what is left alone."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from zephyr.data import embedded
from zephyr.evaluate.equations import check_equations


@pytest.mark.parametrize(
    "text",
    [
        "12 + 30 = 42",
        "So 12+30=42.",
        "12 - 30 = -18",
        "6 x 7 = 42",
        "6X7=42",
        "6 × 7 = 42",
        "6 * 7 = 42 pens",
        "84 ÷ 2 = 42",
        "84 / 2 = 42",
        "84 − 42 = 42",
        "84 – 42 = 42",
        "1,200 + 34 = 1,234",
        "1\u202f200 + 34 = 1\u202f234",
        "1.200,5 + 34 = 1.234,5",
        r"1{,}200 + 34 = 1{,}234",
        r"1\,200 + 34 = 1\,234",
        "3,5 x 2 = 7",
        "$5 + $3 = $8",
        "5$ * 3 = 15$",
        "$1.50 * 2 = $3",
        "20% of 50 = 10",
        "50 * 20% = 10",
        "50% + 20% = 70%",
        "5 / 25 = 20%",
        "(5 / 25) * 100 = 20%",
        "2 / 3 * 100 = 66.67%",
        "2 + 3 * 4 = 14",
        "(2 + 3) * 4 = 20",
        "2 * (3 + 4) * 5 = 70",
        "10 - 2 - 3 = 5",
        "100 / 5 / 2 = 10",
        "10 / 3 = 3.33",
        "10 / 3 = 3.3",
        "20 / 3 = 6.67",
        "20 / 3 = 6.66",
        "7 / 2 ≈ 4",
        "-5 + 3 = -2",
        "It fell: -5 + 3 = -2.",
        "3 apples + 4 apples = 7 apples",
        "60 miles/hour * 2 hours = 120 miles",
        "5 plus 3 equals 8",
        "20 divided by 4 equals 5",
        "5 \\times 3 = 15",
        "42 = 6 * 7",
        "6 * 7 = 40 + 2",
        "a total of 3 + 4 = 7 pens",
        "that's 84/12 = 7",
        "1. 3 + 4 = 7",
        "2) 3 + 4 = 7",
        "- 3 + 4 = 7",
        "half of it = <<84/2=42>>42",
        "3 + 4 == 7",
        "0.1 + 0.2 = 0.3",
        "90 minutes + 30 minutes = 120 minutes",
        "**3 + 4 = 7**",
        "**3** + **4** = **7**",
        "\\(3 + 4 = 7\\)",
        "No! 3 + 4 = 7!",
        "the total is 3 + 4 = 7 - a good number",
    ],
)
def test_right(text: str) -> None:
    assert check_equations(text) == (1, 0, 0)


def test_a_plain_blank_groups_no_thousands() -> None:
    """1200 + 300 = 500 would be wrong, and it was never said."""
    assert check_equations("Day 1 200 + 300 = 500") == (0, 0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "12 + 30 = 41",
        "12 - 30 = 18",
        "6 x 7 = 41",
        "84 ÷ 2 = 41",
        "1,200 + 34 = 1,235",
        "1\u202f200 + 34 = 1\u202f235",
        "3,5 x 2 = 8",
        "$5 + $3 = $9",
        "20% of 50 = 20",
        "5 / 25 = 25%",
        "2 + 3 * 4 = 20",
        "10 - (2 - 3) = 5",
        "10 / 3 = 3.4",
        "10 / 3 = 3",
        "7 / 2 = 3",
        "7 / 2 ≈ 5",
        "3 apples + 4 apples = 8 apples",
        "5 plus 3 equals 9",
        "half of it = <<84/2=41>>42",
        "42 = 6 * 8",
        "There are 5 pens and 3 - 1 = 1 left",
        "0.1 + 0.2 = 0.31",
    ],
)
def test_wrong(text: str) -> None:
    assert check_equations(text) == (0, 1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "x + 5 = 9",
        "2x + 3 = 11",
        "3y = 12 + 4",
        "5 = 2x + 1",
        "2^3 + 1 = 9",
        "2 ** 3 + 1 = 9",
        "5 + 3 = 2^3",
        "5 / 0 = 1",
        "half of 6 + 2 = 5",
        "three times 3 + 1 = 12",
        "5 - x = 3 + 1",
        "3 + 4 = 7 - x",
        "8 = 12-x + 1",
        "1 1/2 + 2 = 3.5",
        "2(3 + 4) = 14",
        "1 hour + 30 minutes = 90 minutes",
        "50 cents * 3 = $1.50",
        "5 feet + 6 inches = 66 inches",
        "at 6:00+48=6:48",
        "3 nights = 3 x 50",
        "4! + 1 = 25",
        "12 + = 5",
    ],
)
def test_not_checkable(text: str) -> None:
    assert check_equations(text) == (0, 0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No sums here.",
        "n = 5",
        "a = b",
        "x = y + z",
        "5 + 3",
        "1 = 1",
        "12 = 13",
        "=",
        "= =",
        "+",
    ],
)
def test_no_equation(text: str) -> None:
    assert check_equations(text) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 3 = 5 = 5 + 0", (2, 0, 0)),
        ("4 * 3 = 12 - 3 = 9", (1, 1, 0)),
        ("2 + 3 = 5 and 4 + 4 = 9", (1, 1, 0)),
        ("2 + 3 = 5\n2+3=5", (1, 0, 0)),
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs", (1, 0, 0)),
        ("2 + 3 = <<2+3=5>>6", (1, 1, 0)),
        ("2 + 3\n= 5", (0, 0, 0)),
        ("2 + 3 = 5, 2 + 4 = 7, 2 + 5 = 7.", (2, 1, 0)),
        ("x + 5 = 9, so 9 - 5 = 4", (1, 0, 1)),
    ],
)
def test_several(text: str, expected: tuple[int, int, int]) -> None:
    assert check_equations(text) == expected


def test_equations_of_embedded_solutions_are_right() -> None:
    texts = [row["answer"] for row in embedded.make_rows("gsm8k", "test")]
    found = [check_equations(text) for text in texts]
    assert all(counts.right >= 2 for counts in found)
    assert not any(counts.wrong or counts.not_checkable for counts in found)


def test_equations_of_real_solutions_are_right(real_data: Path) -> None:
    """GSM8K's answers are checked by a calculator; what is wrong there is how a line is written."""
    path = real_data / "gsm8k/test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        answers = [json.loads(line)["answer"] for line in file]
    total: Counter[str] = Counter()
    for answer in answers:
        total.update(check_equations(answer)._asdict())
    assert total["right"] > 4_000
    assert total["wrong"] <= 10
    assert total["not_checkable"] < 0.1 * total["right"]
    print(dict(total))
