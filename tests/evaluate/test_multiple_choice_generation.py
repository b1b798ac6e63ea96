"""The letter that is parsed from a generated answer."""

from typing import Any

import pytest

from zephyr.data.quiz_format import format_quiz
from zephyr.evaluate.letters import parse_letter
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
        # an explanation after the letter
        ("C\n\nA thermometer measures heat.", 2),
        ("b\nbecause it is so", 1),
        ("**C**\nIt is the longest.", 2),
        ("D - a whale", 3),
        ("D – a whale", 3),
        ("B, because A is a planet", 1),
        ("B because it floats", 1),
        ("(a) is what I would say", 0),
        ("b) pressure", 1),
        # words around it
        ("Option C", 2),
        ("Option C is correct.", 2),
        ("choice (d)", 3),
        ("The right choice is B.", 1),
        ("The correct option would be: **B**", 1),
        ("The answer to this question is D, since whales breathe.", 3),
        ("My final answer is option A.", 0),
        ("**Answer:** B", 1),
        ("Answer:\n\nB", 1),
        ("Answer -> C", 2),
        ("Answer: I think it is D.", 3),
        ("I'd go with option B here", 1),
        ("I choose C", 2),
        ("I'm sure that it's A.", 0),
        ("So B.", 1),
        ("Hmm, (C) looks like the one", 2),
        ("C is the answer.", 2),
        # boxes and LaTeX
        (r"\boxed{D}", 3),
        (r"Thus $\boxed{\text{C}}$.", 2),
        (r"\(\boxed{\textbf{(B)}}\)", 1),
        (r"\boxed{B) a barometer}", 1),
        (r"The answer is A. No: \boxed{C}", 2),
        (r"\boxed{42}", None),
        # the last statement counts, and what is denied does not
        ("It is not A, the answer is C", 2),
        ("The answer is not A. The answer is C", 2),
        ("The answer is C. Note that B is a usual mistake.", 2),
        ("A is wrong, B is correct.", 1),
        ("A and B are wrong, so the answer is D.", 3),
        ("(B) is wrong.", None),
        ("Option B isn't right.", None),
        ("I would not choose B", None),
        ("<think>The answer is A? No.</think>\n\nC", 2),
        ("<think>The answer is A", None),
        # none, or several
        ("The answer is A or B.", None),
        ("The answer is A, C", None),
        ("(A) and (C)", None),
        ("A, B", None),
        ("A/B", None),
        ("Both A and B are correct", None),
        (r"\boxed{A, C}", None),
        ("A. cat\nB. horse\nC. hen\nD. cow", None),
        ("A. cat\nB. horse\nC. hen\nD. cow\n\nThe answer is C", 2),
        ("I cannot answer that.", None),
        ("I don't know.", None),
        ("None of the above", None),
        ("All of them are possible.", None),
        ("The answer is a push or a pull.", None),
        ("It is a push.", None),
        ("It's a plan B of nature", None),
        ("Vitamin C helps", None),
        ("Answer: E", None),
    ],
)
def test_letters(text: str, expected: int | None) -> None:
    assert parse_letter(text, 4) == expected


def test_i_is_a_letter_where_it_is_no_word() -> None:
    assert parse_letter("The answer is I.", 9) == 8
    assert parse_letter("Answer: I would pick B", 9) == 1
    assert parse_letter("I think so", 9) is None


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
