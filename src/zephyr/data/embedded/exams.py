"""Rows of the evaluation sets, each in the columns of the real data set."""

from random import Random
from typing import Any

from zephyr.data.embedded import quizzes, stories
from zephyr.data.embedded.splits import draw

Row = dict[str, Any]


def _quiz(random: Random, side: str, makers: tuple[quizzes.Maker, ...]) -> quizzes.Quiz:
    return draw(random, side, quizzes.of(makers), lambda made: made.question)


def _arc(random: Random, side: str, makers: tuple[quizzes.Maker, ...]) -> Row:
    """ARC's columns; as there, some questions label their options with digits."""
    quiz = _quiz(random, side, makers)
    options, right = quiz.options(random)
    labels = list(random.choice(("ABCD", "ABCD", "ABCD", "1234")))
    return {
        "id": f"embedded_{random.randrange(1 << 32):08x}",
        "question": quiz.question,
        "choices": {"text": options, "label": labels},
        "answerKey": labels[right],
    }


def arc_easy(random: Random, side: str) -> Row:
    return _arc(random, side, quizzes.EASY)


def arc_challenge(random: Random, side: str) -> Row:
    return _arc(random, side, quizzes.HARD)


def mmlu(random: Random, side: str) -> Row:
    quiz = _quiz(random, side, quizzes.ALL)
    options, right = quiz.options(random)
    row = {"question": quiz.question, "subject": quiz.subject, "choices": options, "answer": right}
    return {"train": row} if side == "train" else row


def hellaswag(random: Random, side: str) -> Row:
    """Two steps of an activity, and four endings of which one comes next."""
    cast = draw(random, side, stories.cast, " ".join)
    scene = stories.scene(cast, random)
    endings = random.sample([scene.ending, *scene.wrong], 4)
    return {
        "ind": random.randrange(100_000),
        "activity_label": cast.activity,
        "ctx_a": scene.told,
        "ctx_b": scene.pronoun,
        "ctx": f"{scene.told} {scene.pronoun}",
        "endings": endings,
        "source_id": "embedded",
        "split": "train" if side == "train" else "val",
        "split_type": "indomain",
        "label": str(endings.index(scene.ending)),
    }


def asked(row: Row) -> str:
    """What a row asks: no two rows of a split ask the same."""
    inner = row.get("train", row)
    return f"{inner['activity_label']}: {inner['ctx']}" if "ctx" in inner else inner["question"]
