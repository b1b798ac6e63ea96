"""Row readers of multiple choice: a question, its options, and which of them is right."""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from zephyr.data.readers.answer_key import (
    LETTERS,
    AmbiguousKeysError,
    Conventions,
    LabelledOptions,
    Readings,
    choose_conventions,
    pick_reading,
    read_key,
    split_labels,
)
from zephyr.data.readers.option_columns import QuizColumns
from zephyr.data.readers.parsing import (
    RowValues,
    UnreadableRowError,
    read_list,
    read_text,
    to_text,
)
from zephyr.data.rows import SourceRow
from zephyr.errors import ZephyrError
from zephyr.recipe.data import AnswerKey
from zephyr.records import Choice, Record


def check_options(values: Any) -> tuple[str, ...]:
    """Checks the options of a question: texts, at least two, at most as many as letters."""
    if not isinstance(values, list) or len(values) < 2:
        raise UnreadableRowError("there are fewer than two options")
    if len(values) > len(LETTERS):
        raise UnreadableRowError(f"there are more than {len(LETTERS)} options")
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise UnreadableRowError("an option is not text, or empty")
    return tuple(values)


class ParsedQuiz(NamedTuple):
    """A question with its options and its key as they stand in a row."""

    question: str
    options: tuple[str, ...]
    key: Any
    subject: str = ""
    option_columns: tuple[str, ...] = ()


class _ParsedRow(NamedTuple):
    location: str
    quiz: ParsedQuiz
    options: LabelledOptions
    readings: Readings


@dataclass(frozen=True)
class QuizReader:
    """Row reader of quizzes: the key of a question is read by `conventions`.

    Those of a user's own file are found by `resolve`; `notes` say which they are.
    """

    parse: Callable[[RowValues], ParsedQuiz]
    conventions: Conventions = (("letter", "0-based"),)
    splits_labels: bool = False
    notes: tuple[str, ...] = ()

    def __call__(self, row: RowValues, source: str) -> Iterator[Record]:
        quiz, options = self._parse_row(row)
        readings = read_key(quiz.key, options, quiz.option_columns)
        answer = pick_reading(readings, self.conventions)
        yield Choice(source, quiz.question, options.texts, answer, quiz.subject)

    def _parse_row(self, row: RowValues) -> tuple[ParsedQuiz, LabelledOptions]:
        quiz = self.parse(row)
        if self.splits_labels:
            return quiz, split_labels(quiz.options)
        return quiz, LabelledOptions(quiz.options)

    def resolve(
        self, rows: Iterable[SourceRow], answer_key: AnswerKey | None, label: str, where: str
    ) -> "QuizReader":
        """The reader of a source: its keys are read by `answer_key`, or by what most of them are.

        Raises:
            ZephyrError: the keys can be read in two ways that give different answers.
        """
        reader = replace(self, splits_labels=True)
        parsed_rows: list[_ParsedRow] = []
        for row in rows:
            try:
                quiz, options = reader._parse_row(row.value or {})
                readings = read_key(quiz.key, options, quiz.option_columns)
            except UnreadableRowError:
                continue  # counted when the row is read
            parsed_rows.append(_ParsedRow(row.location, quiz, options, readings))
        try:
            conventions = (
                ((answer_key,),)
                if answer_key is not None
                else choose_conventions([row.readings for row in parsed_rows])
            )
        except AmbiguousKeysError as error:
            rows_shown = [parsed_rows[number] for number in error.numbers[:2]]
            raise _ambiguity_error(label, where, rows_shown) from None
        counts = Counter(
            " or ".join(_CONVENTION_NAMES[name] for name in group if name in row.readings)
            for row in parsed_rows
            if (group := next((g for g in conventions if set(g) & row.readings.keys()), None))
        )
        notes = [f"{count} as {name}" for name, count in counts.most_common()]
        text = f"the keys of source {label!r} are read: {', '.join(notes)}"
        if labelled_count := sum(bool(row.options.labels) for row in parsed_rows):
            text += f"; {labelled_count} questions had a letter or number before each option"
        return replace(reader, conventions=conventions, notes=(text,) if notes else ())


_CONVENTION_NAMES: Mapping[AnswerKey, str] = {
    "letter": "a letter",
    "0-based": "a place from 0",
    "1-based": "a place from 1",
    "text": "the text of an option",
}


def _ambiguity_error(label: str, where: str, rows: Sequence[_ParsedRow]) -> ZephyrError:
    found, names = [], []
    for row in rows:
        meanings = [
            f"as {_CONVENTION_NAMES[name]} it is {LETTERS[at]}, {row.options.texts[at][:60]!r}"
            for name, at in row.readings.items()
        ]
        names += [name for name in row.readings if name not in names]
        found.append(
            f"{row.quiz.question[:80]!r} has the key {row.quiz.key!r}: {'; '.join(meanings)}"
        )
    return ZephyrError(
        f"the keys of source {label!r} can be read in more than one way",
        where=f"{where}, {rows[0].location}",
        found="; ".join(found),
        allowed=_CONVENTION_NAMES,
        todo="say which it is beside the `path` of this source: "
        + " or ".join(f"`answer_key: {name}`" for name in names),
    )


def _parse_choices(row: RowValues) -> ParsedQuiz:
    """Parses MMLU's columns: a question, a list of options, and a key."""
    row = row["train"] if isinstance(row.get("train"), dict) else row  # MMLU's auxiliary_train
    subject = row.get("subject")
    return ParsedQuiz(
        read_text(row, "question"),
        check_options(parse_option_list(row.get("choices"))),
        row.get("answer"),
        subject if isinstance(subject, str) else "",
    )


read_choices = QuizReader(_parse_choices)
"""Reads MMLU: a question, a list of options, and the answer as a letter or 0-based number."""


def quiz_columns_reader(columns: QuizColumns) -> QuizReader:
    """The reader of a quiz by its columns: options in columns of their own, or in a list."""

    def parse(row: RowValues) -> ParsedQuiz:
        if len(columns.options) == 1:
            option_columns: tuple[str, ...] = ()
            values = parse_option_list(row.get(columns.options[0]))
        else:
            option_columns = columns.options
            cells = [_option_text(row.get(name)) for name in option_columns]
            values = [cell.strip() if isinstance(cell, str) else cell for cell in cells]
            while values and values[-1] == "":
                values.pop()
        subject = row.get(columns.subject) if columns.subject is not None else ""
        return ParsedQuiz(
            read_text(row, columns.question),
            check_options(values),
            row.get(columns.key),
            subject if isinstance(subject, str) else "",
            option_columns,
        )

    return QuizReader(parse)


def _option_text(value: Any) -> Any:
    """An option as text, a number as its digits; the value itself where it is no text."""
    text = to_text(value)
    return value if text is None else text


_SEPARATORS = ("\n", "|", ";")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def parse_option_list(value: Any) -> Any:
    """Parses a list of options, or the text that a cell of a table holds in place of one.

    JSON, a list of Python or NumPy, or options between line breaks, `|` or `;`.

    Raises:
        UnreadableRowError: it can't be told where one option ends and the next begins.
    """
    if isinstance(value, list):
        return [_option_text(option) for option in value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        return _parse_written_list(text)
    separators = [sign for sign in _SEPARATORS if sign in text]
    if len(separators) > 1:
        raise UnreadableRowError("the options are separated by more than one sign")
    if not separators:
        raise UnreadableRowError("the options are no list (JSON), nor between | or ;")
    return [option.strip() for option in text.strip(separators[0]).split(separators[0])]


def _parse_written_list(text: str) -> list[Any]:
    """Parses a list as JSON, Python or NumPy write it."""
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = _parse_quoted_list(text)
    texts = [_option_text(option) for option in options]
    try:
        "".join(map(str, texts)).encode()
    except UnicodeEncodeError:
        raise UnreadableRowError("an option holds half a character (a surrogate)") from None
    return texts


def _parse_quoted_list(text: str) -> list[Any]:
    """Parses quoted options between brackets, with or without commas (Python, NumPy)."""
    quoted = _QUOTED.findall(text)
    if quoted and not re.sub(r"[\[\],\s]", "", _QUOTED.sub("", text)):
        try:
            return [ast.literal_eval(part) for part in quoted]
        except (ValueError, SyntaxError):
            pass
    raise UnreadableRowError("the list of options is neither JSON nor Python")


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
    readings = read_key(row.get("label"), LabelledOptions(endings))
    yield Choice(source, context, endings, pick_reading(readings, (("0-based",),)))


_TITLE = re.compile(r" \[title\]")
_BRACKETS = re.compile(r"\[.*?\]")


def _clean_hellaswag(words: str) -> str:
    """lm-evaluation-harness's HellaSwag preprocessing: removes brackets and double spaces."""
    return _BRACKETS.sub("", _TITLE.sub(". ", words.strip())).replace("  ", " ")
