"""Readers of multiple choice: rows that hold a question, options, and which of them is right."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from zephyr.data.readers.values import Columns, Unreadable, items, text
from zephyr.records import Choice, Record

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def options(values: Any) -> tuple[str, ...]:
    """Options that are all text: at least two, and no more than there are letters for them."""
    if not isinstance(values, list) or len(values) < 2:
        raise Unreadable("there are fewer than two options")
    if len(values) > len(LETTERS):
        raise Unreadable(f"there are more than {len(LETTERS)} options")
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise Unreadable("an option is not text, or empty")
    return tuple(values)


_NUMBER = re.compile("[0-9]{1,9}")


def position(answer: Any, labels: Sequence[str]) -> int:
    """The 0-based place of an answer given as a label, a letter, or a 0-based number."""
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise Unreadable("the answer is neither a letter nor a number")
    if isinstance(answer, int):
        at = answer
    elif answer.strip() in labels:
        at = labels.index(answer.strip())
    elif _NUMBER.fullmatch(answer.strip()):
        at = int(answer)
    else:
        raise Unreadable("the answer is none of the options")
    if not 0 <= at < len(labels):
        raise Unreadable("the answer is none of the options")
    return at


def choices(row: Columns, source: str) -> Iterator[Record]:
    """A question, a list of options, and the answer as a letter or a 0-based number (MMLU)."""
    row = row["train"] if isinstance(row.get("train"), dict) else row  # MMLU's auxiliary_train
    given = options(row.get("choices"))
    answer = position(row.get("answer"), LETTERS[: len(given)])
    subject = row.get("subject")
    yield Choice(
        source, text(row, "question"), given, answer, subject if isinstance(subject, str) else ""
    )


def arc(row: Columns, source: str) -> Iterator[Record]:
    """ARC as on the hub (lists of texts and labels), or in AI2's own form (stem and choices)."""
    if isinstance(row.get("question"), dict):
        stem, given, labels = _ai2(row["question"])
    else:
        stem, listed = text(row, "question"), row.get("choices")
        if not isinstance(listed, dict):
            raise Unreadable("column 'choices' is not an object")
        given, labels = options(listed.get("text")), items(listed, "label")
    key, names = text(row, "answerKey"), [str(label) for label in labels]
    if len(names) != len(given) or key not in names:
        raise Unreadable("the answer is none of the options")
    yield Choice(source, stem, given, names.index(key))


def _ai2(question: Columns) -> tuple[str, tuple[str, ...], list[Any]]:
    stem, listed = text(question, "stem"), items(question, "choices")
    if not all(isinstance(option, dict) for option in listed):
        raise Unreadable("an option is not an object")
    given = options([option.get("text") for option in listed])
    return stem, given, [option.get("label") for option in listed]


def hellaswag(row: Columns, source: str) -> Iterator[Record]:
    """HellaSwag as lm-evaluation-harness prepares it, or a file where that has been done."""
    context, endings = text(row, "ctx"), options(row.get("endings"))
    if "ctx_a" in row:
        second = text(row, "ctx_b", empty=True).capitalize()
        context = _clean(f"{text(row, 'activity_label')}: {text(row, 'ctx_a')} {second}")
        endings = tuple(map(_clean, endings))
    answer = position(row.get("label"), [str(i) for i in range(len(endings))])
    yield Choice(source, context, endings, answer)


_TITLE = re.compile(r" \[title\]")
_BRACKETS = re.compile(r"\[.*?\]")


def _clean(words: str) -> str:
    """The harness's rules: titles end a sentence, other brackets go, then double blanks, once."""
    return _BRACKETS.sub("", _TITLE.sub(". ", words.strip())).replace("  ", " ")
