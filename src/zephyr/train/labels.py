"""Checks of labels (loss masks): supervised tokens, and a supervised stop token per answer."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from zephyr.errors import ZephyrError
from zephyr.model.example import Completion, Example, TokenIds
from zephyr.model.template import ChatTemplate
from zephyr.records import Record

_BLOCK_EXAMPLES = 4096
"""Examples that are checked together."""


def check_labels(
    examples: Sequence[Example], template: ChatTemplate, record_of: Callable[[int], Record] | None
) -> None:
    """Checks the loss masks (labels) of all examples: supervised tokens and stop tokens.

    `record_of` gives the record of an example. It is None for chunks of text, which hold no
    answers: these must have supervised tokens, and nothing else.

    Raises:
        ZephyrError: a completion has no supervised token, or no supervised stop token.
    """
    for start in range(0, len(examples), _BLOCK_EXAMPLES):
        block = examples[start : start + _BLOCK_EXAMPLES]
        completions = [c for e in block for c in e.completions]
        ends = np.cumsum([len(c.ids) for c in completions])
        starts = np.append(0, ends[:-1])
        loss_mask = np.concatenate([c.loss_mask for c in completions])
        wrong = np.flatnonzero(~np.logical_or.reduceat(loss_mask, starts))
        last_tokens = None
        if len(wrong) == 0 and record_of is not None:
            ids = np.concatenate([c.ids for c in completions])
            last_positions = _spans_without_stop(ids, loss_mask, ends, template.ending_ids)
            wrong = np.searchsorted(ends, last_positions, side="right")
            last_tokens = last_positions - starts[wrong]
        if len(wrong) > 0:
            counts = [len(e.completions) for e in block]
            example_index = int(np.repeat(np.arange(start, start + len(block)), counts)[wrong[0]])
            where = describe_example(example_index, record_of)
            completion = completions[wrong[0]]
            if last_tokens is None:
                raise _nothing_supervised_error(template, completion, where)
            raise _missing_stop_error(template, completion, int(last_tokens[0]), where)


def describe_example(example_index: int, record_of: Callable[[int], Record] | None) -> str:
    """Names an example in an error message; examples are counted from 1."""
    if record_of is None:
        return f"example {example_index + 1}"
    record = record_of(example_index)
    return f"example {example_index + 1}, record {record.id} of {record.source}"


def _spans_without_stop(
    ids: TokenIds, loss_mask: NDArray[np.bool_], ends: NDArray[np.int64], ending: TokenIds
) -> NDArray[np.int64]:
    """Positions of the last tokens of supervised spans that have no supervised stop token.

    `ids` and `loss_mask` [T] are those of all completions concatenated, which end before `ends`. A
    span ends in the stop token itself; or in unsupervised template text, and then the supervised
    stop token. Other tokens with the stop token's id don't count, so that it may be the padding
    token as well.
    """
    is_last = np.zeros_like(loss_mask)
    is_last[ends - 1] = True
    span_ends = np.flatnonzero(loss_mask & (is_last | ~np.append(loss_mask[1:], False)))
    span_ends = span_ends[ids[span_ends] != ending[-1]]
    following = span_ends[:, None] + 1 + np.arange(len(ending))
    fits = following[:, -1] < ends[np.searchsorted(ends, span_ends, side="right")]
    following = np.minimum(following, len(ids) - 1)
    expected_mask = np.arange(len(ending)) == len(ending) - 1
    has_stop = fits & ((ids[following] == ending) & (loss_mask[following] == expected_mask)).all(
        axis=1
    )
    unended: NDArray[np.int64] = span_ends[~has_stop]
    return unended


def _nothing_supervised_error(
    template: ChatTemplate, completion: Completion, where: str
) -> ZephyrError:
    return ZephyrError(
        "an example has nothing to learn from",
        where=where,
        found=f"none of {len(completion.ids)} tokens is supervised: "
        f"{_quoted_text(template, completion.ids[:12])}",
        todo="leave this record out of its source",
    )


def _missing_stop_error(
    template: ChatTemplate, completion: Completion, last: int, where: str
) -> ZephyrError:
    stop = _quoted_text(template, template.ending_ids[-1:])
    tail = _quoted_text(template, completion.ids[max(0, last - 7) : last + 1])
    if template.ending_ids[-1] in completion.ids[last + 1 : last + 1 + len(template.ending_ids)]:
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


def _quoted_text(template: ChatTemplate, ids: TokenIds) -> str:
    return repr(template.tokenizer.decode(ids.tolist()))
