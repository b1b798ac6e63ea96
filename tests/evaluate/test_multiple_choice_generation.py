"""The letter that is parsed from a generated answer."""

from typing import Any

import pytest

from zephyr.data.quiz_format import format_quiz
from zephyr.evaluate.multiple_choice_generation import parse_letter
from zephyr.evaluate.scoring import run_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        (" b ", 1),
        ("(C)", 2),
        ("D.", 3),
        ("**A**", 0),
        ("The answer is B.", 1),
        ("The answer is (c), since work is force times distance.", 2),
        ("Answer: D", 3),
        ("The answer is A. No, the answer is B.", 1),
        ("C) 12 joules", 2),
        ("A. A unit of energy", 0),
        ("A: energy", 0),
        ("(D) None of these", 3),
        ("", None),
        ("E", None),
        ("The answer is E.", None),
        ("A force changes how a body moves.", None),
        ("energy", None),
        ("B or C", None),
        ("I think that it is energy.", None),
        ("The answer is about energy.", None),
        ("The answer is a unit of energy.", None),
        ("The answer is: b\nIt is the work done.", 1),
    ],
)
def test_letters(text: str, expected: int | None) -> None:
    assert parse_letter(text, 4) == expected


def test_quizzes_are_asked_in_the_courses_form_and_judged_by_their_letters(fake_model: Any) -> None:
    questions = [Choice("quiz", f"Question {n}", ("yes", "no"), n % 2, "logic") for n in range(4)]
    answers = {0: "A", 1: "The answer is A.", 2: "I do not know.", 3: ""}
    model = fake_model(answer_fn=lambda prompt: answers[int(prompt.partition("Question ")[2][0])])
    few_shot_examples = [Choice("quiz", "Earlier", ("yes", "no"), 1, "logic")]
    task = TaskSpec(name="mcqa_written", shots=1)
    result = run_task(
        task, questions, model, split_label="test", few_shot_examples=few_shot_examples, seed=0
    )
    assert [i["scores"]["acc"] for i in result.items] == [1, 0, 0, 0]
    assert [i["scores"]["named"] for i in result.items] == [1, 1, 0, 0]
    assert result.scores["counts"] == {"no letter in the answer": 2}
    assert result.items[0]["detail"]["request"] == (
        f"user: {format_quiz(few_shot_examples[0])}\nassistant: B\nuser: "
        f"{format_quiz(questions[0])}\n"
    )
    assert "1-shot · chat · greedy, at most 32 tokens" in result.scores["metrics"][0]["protocol"]
