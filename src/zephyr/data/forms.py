"""Forms of columns: how a row is read, by the columns it has.

A registered source is read by its own reader. Where its columns are not there, and for a file of
one's own, the form of the columns decides.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from zephyr.data import course
from zephyr.data.readers import chat, choice, pair, passage
from zephyr.data.readers.values import Reader
from zephyr.data.table import Source
from zephyr.errors import ZephyrError, nearest
from zephyr.records import Kind


@dataclass(frozen=True)
class Form:
    """Columns that a reader needs, further ones that it looks at, and what kind it reads.

    `many` says that one row gives several records.
    """

    kind: Kind
    columns: tuple[str, ...]
    reader: Reader
    optional: tuple[str, ...] = ()
    many: bool = False


_SAID_BEFORE = ("input", "system", "history")
_CLEANED = ("ctx_a", "ctx_b", "activity_label")
FORMS = (
    Form("chat", ("messages",), chat.messages),
    Form("chat", ("conversations",), chat.conversations),
    Form("chat", ("instruction", "output"), chat.instruction, _SAID_BEFORE),
    Form("chat", ("question", "answer"), chat.question_answer("question", "answer")),
    Form("chat", ("prompt", "completion"), chat.prompt_completion),
    Form("chat", ("prompt", "response"), chat.question_answer("prompt", "response")),
    Form("pair", ("question_complete", "preference"), pair.epfl, many=True),
    Form("pair", ("instruction", "chosen", "rejected"), pair.instruction_pair, _SAID_BEFORE),
    Form("pair", ("prompt", "chosen", "rejected"), pair.prompt_pair),
    Form("pair", ("conversations", "chosen", "rejected"), pair.conversations_pair),
    Form("pair", ("input", "preferred_output", "non_preferred_output"), pair.orca_messages),
    Form("pair", ("chosen", "rejected"), pair.turns_pair),
    Form("choice", ("question", "choices", "answer"), choice.choices, ("subject", "train")),
    Form("choice", ("train",), choice.choices),  # MMLU's auxiliary_train: the row within a row
    Form("choice", ("question", "choices", "answerKey"), choice.arc),
    Form("choice", ("question", "answerKey"), choice.arc),  # AI2's own: options in the question
    Form("choice", ("subject", "question", "answer"), course.read),
    Form("choice", ("ctx", "endings", "label"), choice.hellaswag, _CLEANED),
    Form("passage", ("text",), passage.passage),
)
"""Tried in order: the first of the right kind whose columns are all there is taken."""


def form_of(there: Collection[str], kind: Kind, registered: Source | None, where: str) -> Form:
    """The form of rows with the columns that are `there`: the source's own, or the first that fits.

    Rows that lack one of a registered source's columns are not read by another form of the rest:
    WikiQA without labels would give its wrong answers too.

    Raises:
        ZephyrError: there is none.
    """
    forms = [form for form in FORMS if form.kind == kind and not _cut(form, registered)]
    if registered is not None:
        source = registered
        own = Form(source.kind, source.columns, source.reader, source.optional, source.many)
        forms = [own, *forms]
    for form in forms:
        if set(there) >= set(form.columns):
            return form
    known = list(dict.fromkeys(form.columns for form in forms))
    closest = max(known, key=lambda columns: _likeness(columns, there))
    spare = set(there) - set(closest)
    near = [f"{c} -> {n}" for c in closest if c not in there and (n := nearest(c, spare))]
    raise ZephyrError(
        f"the columns of this source are of no form that is known for kind {kind!r}",
        where=where,
        found=", ".join(sorted(there)) or "no columns",
        allowed="; ".join(map(", ".join, known)),
        nearest=", ".join(near) or None,
        todo="map the names with `columns: {name that is allowed: name in the file}`",
    )


def _cut(form: Form, registered: Source | None) -> bool:
    """Whether a form is no other form than a source's own, with some of its columns left out."""
    return (
        registered is not None
        and set(form.columns) < set(registered.columns)
        and form.reader is not registered.reader
    )


def _likeness(columns: Sequence[str], there: Collection[str]) -> float:
    """How well names fit the closest of those that are there: 1 where all of them are."""
    best = (
        max((SequenceMatcher(None, column, name).ratio() for name in there), default=0.0)
        for column in columns
    )
    return sum(best) / len(columns)
