"""Checkers of a tutor's answers, on both sides of every line that they draw."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from zephyr.evaluate.answer_checks import asks_question, reveals_answer
from zephyr.evaluate.numbers import last_number, number_after_mark

EGGS = "Ada has 16 eggs and eats 3. She sells the rest for 2 dollars each. How much does she get?"


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("The answer is 26.", "26"),
        ("26", "26"),
        ("She gets $26 in all.", "26"),
        ("#### 26", "26"),
        ("13 x 2 = 26", "26"),
        ("13 x 2 = <<13*2=26>>26 dollars", "26"),
        ("First find 26, then you are done.", "26"),
        ("It is 26.0 dollars", "26"),
        ("It costs $1,234.", "1234"),
        ("It costs 1234.00 dollars.", "1234"),
        ("You get **26**!", "26"),
        ("So \\(26\\)", "26"),
        ("She gets 26dollars", "26"),
        ("That is twenty-six dollars.", "26"),
        ("Twenty six!", "26"),
        ("It is one hundred and five.", "105"),
        ("It is a bit: one thousand two hundred and thirty-four pens.", "1234"),
        ("There are nine left.", "9"),
        ("She now has seven of them.", "7"),
        ("1. Add.\n2. The rest is 4.", "4"),
        ("It fell to -5 degrees", "-5"),
        ("It is minus five degrees", "-5"),
        ("It is -3 degrees", "-3"),
        ("Was it 20 -26?", "26"),
        ("She gets half, that is .5", "0.5"),
        ("It is 1 234 pens.", "1234"),
        ("It is 1\u202f234 pens.", "1234"),
        (r"It is $1{,}234$ pens.", "1234"),
        (r"It is $1\,234$ pens.", "1234"),
        ("It is 2,5 metres.", "2.5"),
        ("It is –5 degrees", "-5"),
        # numbers that stand in the question, told as the result
        ("The answer is 3.", "3"),
        ("So the final answer: 3", "3"),
        ("16 - 13 = 3", "3"),
        ("That equals 3.", "3"),
        ("#### 16", "16"),
        ("The total number of dollars that she gets is $16.", "16"),
    ],
)
def test_an_answer_is_given_away(answer: str, final: str) -> None:
    assert reveals_answer(answer, Decimal(final), EGGS)


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("", "26"),
        ("How many eggs are left after breakfast?", "26"),
        ("Start with 16 - 3.", "26"),
        ("16 - 3 = 13. What comes next?", "26"),
        ("Think of 260, 126 and 2.6.", "26"),
        ("Is it 26,000?", "26"),
        ("Is it 1.26?", "26"),
        ("Look at A26 and v2.26.", "26"),
        ("It is 13 x 2; do it yourself.", "26"),
        ("It is the 26th.", "26"),
        ("1. Read.\n2. Subtract.\n3) Multiply.", "2"),
        ("Let us do step 7 first.", "7"),
        ("Hint 4: subtract.", "4"),
        ("Take one of the eggs away.", "1"),
        ("There is a way in two steps.", "2"),
        ("Do it in two steps.", "2"),
        ("Twenty-seven is not it.", "26"),
        ("Someone often tells.", "10"),
        ("It fell by 5 degrees", "-5"),
        # numbers that stand in the question, repeated
        ("She has 16 eggs and eats 3. What is left?", "3"),
        ("There are 16 eggs. Take 3 away.", "16"),
        ("Subtract three first.", "3"),
        ("The answer is 16 - 3, times two.", "3"),
        ("What do you get from 16 - 3 = ?", "3"),
    ],
)
def test_an_answer_is_withheld(answer: str, final: str) -> None:
    assert not reveals_answer(answer, Decimal(final), EGGS)


@pytest.mark.parametrize(
    "answer",
    [
        "What is left?",
        "Good. What do you do first? Then go on.",
        "Subtract.\nWhat remains?\n",
        "What is left?**",
        "(What is left?)",
        "*What is left?*",
        "You know 16 and 3, right?",
        'She says "stop". What now?',
        "How much does she get for one?",
        "Is it clear now?!?",
        "Why? Because.",
        "- What is given?",
        "What is 16 - 3?",
        "¿Qué queda?",
        "Can you see it ?",
        "剩下多少？",
        "كم بقي؟",
    ],
)
def test_it_asks(answer: str) -> None:
    assert asks_question(answer, EGGS)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "?",
        "???",
        "Subtract 3 from 16.",
        "How much does she get?",
        "how much does  she get?",
        "Ada has 16 eggs and eats 3. How much does she get?",
        'It says "How many are left?" there.',
        "It says “How many are left?” there.",
        "```\nx if y else z?\n```",
        "Ask what is left.",
        "What is left",
        "See page.html?id=3 for it.",
        "13 * 2 = ?",
        "- ?",
    ],
)
def test_it_does_not_ask(answer: str) -> None:
    assert not asks_question(answer, EGGS)


def test_real_solutions_give_the_answer_away_and_real_questions_do_not(real_data: Path) -> None:
    """Of 1,319 ladders all solutions tell; of the sub-questions alone, hardly any."""
    with gzip.open(
        real_data / "gsm8k/test_socratic.jsonl.gz", "rt", encoding="utf-8", newline="\n"
    ) as file:
        rows = [json.loads(line) for line in file]
    leaks = 0
    for row in rows:
        final = number_after_mark(row["answer"])
        assert final is not None
        assert reveals_answer(row["answer"], final, row["question"])
        steps = row["answer"].split("\n")[:-1]
        questions = "\n".join(step.split(" ** ")[0] for step in steps)
        leaks += reveals_answer(questions, final, row["question"])
    assert leaks < 0.01 * len(rows)
    print(f"{leaks} of {len(rows)} lists of sub-questions are taken for giving the answer away")


def test_every_real_problem_of_mathdial_has_its_number(real_data: Path) -> None:
    path = real_data / "tutoring/mathdial_test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        alone = row["ground_truth"].rsplit("\n", 1)[1].strip().replace(",", "")
        assert last_number(row["ground_truth"]) == Decimal(alone)
