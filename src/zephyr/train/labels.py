"""Labels that teach: every example has supervised tokens, and every answer a supervised end."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from zephyr.errors import ZephyrError
from zephyr.model.fork import Continuation, Fork, Ids
from zephyr.model.template import Template
from zephyr.records import Record

_AT_ONCE = 4096
"""Forks that are looked at together."""


def refuse_wrong_labels(
    forks: Sequence[Fork], template: Template, record_of: Callable[[int], Record] | None
) -> None:
    """Looks at the marks of all forks.

    `record_of` gives the record that a fork shows. It is None for pieces of text, which hold no
    answers: these must have supervised tokens, and nothing else.

    Raises:
        ZephyrError: a continuation has no supervised token, or an answer no supervised stop token.
    """
    for start in range(0, len(forks), _AT_ONCE):
        part = forks[start : start + _AT_ONCE]
        answers = [c for f in part for c in f.continuations]
        ends = np.cumsum([len(c.ids) for c in answers])
        starts = np.append(0, ends[:-1])
        marks = np.concatenate([c.supervised for c in answers])
        wrong = np.flatnonzero(~np.logical_or.reduceat(marks, starts))
        last = None
        if len(wrong) == 0 and record_of is not None:
            ids = np.concatenate([c.ids for c in answers])
            places = _unended(ids, marks, ends, template.ending)
            wrong = np.searchsorted(ends, places, side="right")
            last = places - starts[wrong]
        if len(wrong) > 0:
            counts = [len(f.continuations) for f in part]
            number = int(np.repeat(np.arange(start, start + len(part)), counts)[wrong[0]])
            where = place(number, record_of)
            answer = answers[wrong[0]]
            if last is None:
                raise _mute(template, answer, where)
            raise _endless(template, answer, int(last[0]), where)


def place(number: int, record_of: Callable[[int], Record] | None) -> str:
    """What an example is called where it is wrong; they are counted from 1."""
    if record_of is None:
        return f"example {number + 1}"
    record = record_of(number)
    return f"example {number + 1}, record {record.id} of {record.source}"


def _unended(
    ids: Ids, marks: NDArray[np.bool_], ends: NDArray[np.int64], ending: Ids
) -> NDArray[np.int64]:
    """Places of the last tokens of supervised spans that have no supervised stop token.

    `ids` and `marks` are those of all continuations in a row, which end before `ends`. A span ends
    in the stop token itself; or what the template writes before a stop token follows unsupervised,
    and then the stop token, supervised. What else has the stop token's id plays no part, so it may
    be the padding token as well.
    """
    last = np.zeros_like(marks)
    last[ends - 1] = True
    spans = np.flatnonzero(marks & (last | ~np.append(marks[1:], False)))
    spans = spans[ids[spans] != ending[-1]]
    after = spans[:, None] + 1 + np.arange(len(ending))
    inside = after[:, -1] < ends[np.searchsorted(ends, spans, side="right")]
    after = np.minimum(after, len(ids) - 1)
    marked = np.arange(len(ending)) == len(ending) - 1
    closed = inside & ((ids[after] == ending) & (marks[after] == marked)).all(axis=1)
    unended: NDArray[np.int64] = spans[~closed]
    return unended


def _mute(template: Template, answer: Continuation, where: str) -> ZephyrError:
    return ZephyrError(
        "an example has nothing to learn from",
        where=where,
        found=f"none of {len(answer.ids)} tokens is supervised: {_text(template, answer.ids[:12])}",
        todo="leave this record out of its source",
    )


def _endless(template: Template, answer: Continuation, last: int, where: str) -> ZephyrError:
    stop = _text(template, template.ending[-1:])
    tail = _text(template, answer.ids[max(0, last - 7) : last + 1])
    if template.ending[-1] in answer.ids[last + 1 : last + 1 + len(template.ending)]:
        return ZephyrError(
            "the stop token of an answer is not supervised",
            where=where,
            found=f"{stop} after {tail} does not count",
            todo="supervise it, also where it is the padding token: else no model learns to stop",
        )
    return ZephyrError(
        "a supervised answer does not end in the stop token",
        where=where,
        found=f"it ends with {tail}",
        allowed=f"{stop} at the end",
        todo="mend the `chat_template` of the tokenizer, or leave this record out of its source",
    )


def _text(template: Template, ids: Ids) -> str:
    return repr(template.tokenizer.decode(ids.tolist()))
