"""Column formats: which reader parses a row, detected by the columns it has.

A registered source is read by its own reader. Where its columns are missing, and for a user's own
file, the columns decide which format it has.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from zephyr.data import quiz_format
from zephyr.data.readers import chat, choice, pair, passage
from zephyr.data.readers.option_columns import find_quiz_columns
from zephyr.data.readers.parsing import (
    CONVERSATION_COLUMNS,
    TURN_FLAGS,
    TURN_KEYS,
    RowReader,
    RowValues,
    is_blank,
)
from zephyr.data.table import RegisteredSource
from zephyr.errors import ZephyrError, closest_name
from zephyr.records import RecordKind


@dataclass(frozen=True)
class ColumnFormat:
    """A column format: the columns a reader needs, optional ones, and the kind of record it reads.

    With `has_many_records`, one row holds several records.
    """

    kind: RecordKind
    columns: tuple[str, ...]
    reader: RowReader
    optional_columns: tuple[str, ...] = ()
    has_many_records: bool = False

    @property
    def all_columns(self) -> tuple[str, ...]:
        """The columns that the reader looks at."""
        return (*self.columns, *self.optional_columns)


_MESSAGE_COLUMNS = (*CONVERSATION_COLUMNS, "kto_tag")
_HELLASWAG_RAW_COLUMNS = ("ctx_a", "ctx_b", "activity_label")
COLUMN_FORMATS = (
    ColumnFormat("chat", ("messages",), chat.read_openai_messages, _MESSAGE_COLUMNS),
    ColumnFormat("chat", ("conversations",), chat.read_sharegpt, _MESSAGE_COLUMNS),
    ColumnFormat("chat", ("instruction", "output"), chat.read_alpaca, ("input", *_MESSAGE_COLUMNS)),
    ColumnFormat(
        "chat",
        ("question", "answer"),
        chat.question_answer_reader("question", "answer"),
        CONVERSATION_COLUMNS,
    ),
    ColumnFormat(
        "chat",
        ("prompt", "completion"),
        chat.read_prompt_completion,
        (*CONVERSATION_COLUMNS, "label"),
    ),
    ColumnFormat(
        "chat",
        ("prompt", "response"),
        chat.question_answer_reader("prompt", "response"),
        CONVERSATION_COLUMNS,
    ),
    ColumnFormat(
        "pair", ("question_complete", "preference"), pair.read_epfl, has_many_records=True
    ),
    ColumnFormat(
        "pair",
        ("instruction", "chosen", "rejected"),
        pair.read_alpaca_pair,
        ("input", *CONVERSATION_COLUMNS),
    ),
    ColumnFormat(
        "pair", ("prompt", "chosen", "rejected"), pair.read_trl_pair, CONVERSATION_COLUMNS
    ),
    ColumnFormat(
        "pair",
        ("conversations", "chosen", "rejected"),
        pair.read_sharegpt_pair,
        CONVERSATION_COLUMNS,
    ),
    ColumnFormat(
        "pair",
        ("input", "preferred_output", "non_preferred_output"),
        pair.read_openai_pair,
        CONVERSATION_COLUMNS,
    ),
    ColumnFormat("pair", ("chosen", "rejected"), pair.read_conversation_pair, CONVERSATION_COLUMNS),
    ColumnFormat(
        "choice", ("question", "choices", "answer"), choice.read_choices, ("subject", "train")
    ),
    ColumnFormat(
        "choice", ("train",), choice.read_choices
    ),  # MMLU's auxiliary_train: the row within a row
    ColumnFormat("choice", ("question", "choices", "answerKey"), choice.read_arc),
    ColumnFormat(
        "choice", ("question", "answerKey"), choice.read_arc
    ),  # AI2's own: options in the question
    ColumnFormat("choice", ("subject", "question", "answer"), quiz_format.read_quiz_row),
    ColumnFormat(
        "choice", ("ctx", "endings", "label"), choice.read_hellaswag, _HELLASWAG_RAW_COLUMNS
    ),
    ColumnFormat("passage", ("text",), passage.read_passage),
)
"""Tried in order: the first of the right kind whose columns are all present is used."""


def detect_format(
    found_columns: Collection[str],
    kind: RecordKind,
    registered_source: RegisteredSource | None,
    where: str,
) -> ColumnFormat:
    """Detects the format of rows by their columns: the source's own, or the first that matches.

    Rows that lack a column of a registered source are not read by a format of its other columns:
    WikiQA without labels would yield its wrong answers too.

    Raises:
        ZephyrError: there is none.
    """
    formats = [
        column_format
        for column_format in COLUMN_FORMATS
        if column_format.kind == kind and not _is_reduced_format(column_format, registered_source)
    ]
    if registered_source is not None:
        source = registered_source
        registered_format = ColumnFormat(
            source.kind,
            source.columns,
            source.reader,
            source.optional_columns,
            source.has_many_records,
        )
        formats = [registered_format, *formats]
    quiz = find_quiz_columns(found_columns) if kind == "choice" else None
    if quiz is not None and registered_source is None:
        columns = (quiz.question, *quiz.options, quiz.key)
        subject = (quiz.subject,) if quiz.subject is not None else ()
        form = ColumnFormat("choice", columns, choice.quiz_columns_reader(quiz), subject)
        formats = [form, *formats] if len(quiz.options) > 1 else [*formats, form]
    for form in formats:
        if set(found_columns) >= set(form.columns):
            return form
    known_columns = list(dict.fromkeys(form.columns for form in formats))
    closest = max(known_columns, key=lambda columns: _similarity(columns, found_columns))
    unmatched = set(found_columns) - set(closest)
    suggestions = [
        f"{c} -> {n}"
        for c in closest
        if c not in found_columns and (n := closest_name(c, unmatched))
    ]
    raise ZephyrError(
        f"the columns of this source are of no form that is known for kind {kind!r}",
        where=where,
        found=", ".join(sorted(found_columns)) or "no columns",
        allowed="; ".join(map(", ".join, known_columns))
        + ("; question, option_a, option_b, …, answer" if kind == "choice" else ""),
        nearest=", ".join(suggestions) or None,
        todo="map the names with `columns: {name that is allowed: name in the file}`",
    )


def find_unused_columns(
    row: RowValues, known_columns: Collection[str], kind: RecordKind
) -> tuple[str, ...]:
    """The columns of a row that have a value and are not read, and such keys of its turns."""
    unused = [name for name in row if name not in known_columns and not is_blank(row[name])]
    if kind in ("chat", "pair"):
        known_keys = TURN_KEYS | set(TURN_FLAGS) if kind == "chat" else TURN_KEYS
        for column in known_columns:
            turns = row[column] if isinstance(row.get(column), list) else ()
            keys = {
                key
                for turn in turns
                if isinstance(turn, dict) and ("role" in turn or "from" in turn)
                for key in turn.keys() - known_keys
                if not is_blank(turn[key])
            }
            unused += [f"{column}.{key}" for key in sorted(keys)]
    return tuple(unused)


def _is_reduced_format(
    column_format: ColumnFormat, registered_source: RegisteredSource | None
) -> bool:
    """Whether a format is only a source's own with some of its columns left out."""
    return (
        registered_source is not None
        and set(column_format.columns) < set(registered_source.columns)
        and column_format.reader is not registered_source.reader
    )


def _similarity(columns: Sequence[str], found_columns: Collection[str]) -> float:
    """The similarity of column names to the closest of those found: 1 where all are there."""
    best_ratios = (
        max((SequenceMatcher(None, column, name).ratio() for name in found_columns), default=0.0)
        for column in columns
    )
    return sum(best_ratios) / len(columns)
