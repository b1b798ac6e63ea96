"""Row readers of multiple choice: a question, its options, and which of them is right."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from zephyr.data.readers.parsing import RowValues, UnreadableRowError, read_list, read_text
from zephyr.records import Choice, Record

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def check_options(values: Any) -> tuple[str, ...]:
    """Checks the options of a question: texts, at least two, at most as many as letters."""
    if not isinstance(values, list) or len(values) < 2:
        raise UnreadableRowError("there are fewer than two options")
    if len(values) > len(LETTERS):
        raise UnreadableRowError(f"there are more than {len(LETTERS)} options")
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise UnreadableRowError("an option is not text, or empty")
    return tuple(values)


_NUMBER = re.compile("[0-9]{1,9}")


def answer_index(answer: Any, labels: Sequence[str]) -> int:
    """The 0-based index of an answer given as a label, a letter, or a 0-based number."""
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise UnreadableRowError("the answer is neither a letter nor a number")
    if isinstance(answer, int):
        index = answer
    elif answer.strip() in labels:
        index = labels.index(answer.strip())
    elif _NUMBER.fullmatch(answer.strip()):
        index = int(answer)
    else:
        raise UnreadableRowError("the answer is none of the options")
    if not 0 <= index < len(labels):
        raise UnreadableRowError("the answer is none of the options")
    return index


def read_choices(row: RowValues, source: str) -> Iterator[Record]:
    """Reads MMLU: a question, a list of options, and the answer as a letter or 0-based number."""
    row = row["train"] if isinstance(row.get("train"), dict) else row  # MMLU's auxiliary_train
    option_texts = check_options(row.get("choices"))
    answer = answer_index(row.get("answer"), LETTERS[: len(option_texts)])
    subject = row.get("subject")
    yield Choice(
        source,
        read_text(row, "question"),
        option_texts,
        answer,
        subject if isinstance(subject, str) else "",
    )


def read_arc(row: RowValues, source: str) -> Iterator[Record]:
    """Reads ARC as on the hub (lists of texts and labels), or in AI2's own form (stem)."""
    if isinstance(row.get("question"), dict):
        stem, option_texts, labels = _read_ai2_question(row["question"])
    else:
        stem, options_value = read_text(row, "question"), row.get("choices")
        if not isinstance(options_value, dict):
            raise UnreadableRowError("column 'choices' is not an object")
        option_texts, labels = (
            check_options(options_value.get("text")),
            read_list(options_value, "label"),
        )
    key, label_texts = read_text(row, "answerKey"), [str(label) for label in labels]
    if len(label_texts) != len(option_texts) or key not in label_texts:
        raise UnreadableRowError("the answer is none of the options")
    yield Choice(source, stem, option_texts, label_texts.index(key))


def _read_ai2_question(question: RowValues) -> tuple[str, tuple[str, ...], list[Any]]:
    stem, option_objects = read_text(question, "stem"), read_list(question, "choices")
    if not all(isinstance(option, dict) for option in option_objects):
        raise UnreadableRowError("an option is not an object")
    option_texts = check_options([option.get("text") for option in option_objects])
    return stem, option_texts, [option.get("label") for option in option_objects]


def read_hellaswag(row: RowValues, source: str) -> Iterator[Record]:
    """Reads HellaSwag, preprocessed as in lm-evaluation-harness (if not done already)."""
    context, endings = read_text(row, "ctx"), check_options(row.get("endings"))
    if "ctx_a" in row:
        second = read_text(row, "ctx_b", allow_empty=True).capitalize()
        context = _clean_hellaswag(
            f"{read_text(row, 'activity_label')}: {read_text(row, 'ctx_a')} {second}"
        )
        endings = tuple(map(_clean_hellaswag, endings))
    answer = answer_index(row.get("label"), [str(i) for i in range(len(endings))])
    yield Choice(source, context, endings, answer)


_TITLE = re.compile(r" \[title\]")
_BRACKETS = re.compile(r"\[.*?\]")


def _clean_hellaswag(words: str) -> str:
    """lm-evaluation-harness's HellaSwag preprocessing: removes brackets and double spaces."""
    return _BRACKETS.sub("", _TITLE.sub(". ", words.strip())).replace("  ", " ")
