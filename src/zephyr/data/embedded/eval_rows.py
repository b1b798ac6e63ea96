"""Synthetic rows of the evaluation sets, each in the columns of the real data set."""

from random import Random
from typing import Any

from zephyr.data.embedded import quizzes, stories
from zephyr.data.embedded.splits import sample_on_side

Row = dict[str, Any]


def _sample_quiz(
    random: Random, side: str, makers: tuple[quizzes.QuizMaker, ...]
) -> quizzes.QuizQuestion:
    return sample_on_side(random, side, quizzes.random_maker(makers), lambda made: made.question)


def _arc_row(random: Random, side: str, makers: tuple[quizzes.QuizMaker, ...]) -> Row:
    """An ARC row; as in the real data, some questions label their options with digits."""
    quiz = _sample_quiz(random, side, makers)
    options, right = quiz.shuffled_options(random)
    labels = list(random.choice(("ABCD", "ABCD", "ABCD", "1234")))
    return {
        "id": f"embedded_{random.randrange(1 << 32):08x}",
        "question": quiz.question,
        "choices": {"text": options, "label": labels},
        "answerKey": labels[right],
    }


def arc_easy(random: Random, side: str) -> Row:
    """An ARC-Easy row."""
    return _arc_row(random, side, quizzes.EASY_MAKERS)


def arc_challenge(random: Random, side: str) -> Row:
    """An ARC-Challenge row."""
    return _arc_row(random, side, quizzes.HARD_MAKERS)


def mmlu(random: Random, side: str) -> Row:
    """An MMLU row."""
    quiz = _sample_quiz(random, side, quizzes.ALL_MAKERS)
    options, right = quiz.shuffled_options(random)
    row = {"question": quiz.question, "subject": quiz.subject, "choices": options, "answer": right}
    return {"train": row} if side == "train" else row


def hellaswag(random: Random, side: str) -> Row:
    """A HellaSwag row: two steps of an activity, and four possible endings."""
    scenario = sample_on_side(random, side, stories.sample_scenario, " ".join)
    scene = stories.make_scene(scenario, random)
    endings = random.sample([scene.ending, *scene.wrong_endings], 4)
    return {
        "ind": random.randrange(100_000),
        "activity_label": scenario.activity,
        "ctx_a": scene.context,
        "ctx_b": scene.pronoun,
        "ctx": f"{scene.context} {scene.pronoun}",
        "endings": endings,
        "source_id": "embedded",
        "split": "train" if side == "train" else "val",
        "split_type": "indomain",
        "label": str(endings.index(scene.ending)),
    }


def row_question(row: Row) -> str:
    """The question of a row, by which rows of a split are unique."""
    columns = row.get("train", row)
    return (
        f"{columns['activity_label']}: {columns['ctx']}"
        if "ctx" in columns
        else columns["question"]
    )
