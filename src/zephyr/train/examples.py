"""Examples of a mixture as a model is shown them: forks that fit, and an account of the rest."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zephyr.data.mixture import Split
from zephyr.errors import ZephyrError
from zephyr.model.fork import Fork, cut_prompt, fork
from zephyr.model.template import Template
from zephyr.recipe.training import Align, Tune
from zephyr.records import Passage, Record

_COUNTS = ("examples", "overlong", "cut", "tokens", "supervised_tokens")


class Examples(NamedTuple):
    """Forks to train on and held out, and the content of `examples.json`.

    `numbers` are those of the records of the mixture that `train` shows.
    """

    train: list[Fork]
    holdout: list[Fork]
    account: dict[str, Any]
    numbers: list[int]


def examples(template: Template, records: Split, spec: Tune | Align, context: int) -> Examples:
    """The forks of a mixture of chats or pairs, with their tokens counted for each source.

    What is longer than `spec.max_length` tokens, or than the model's `context`, is left out and
    counted; with `overlong: cut` its prompt is cut from the left, and never an answer.

    Raises:
        ZephyrError: no example fits.
    """
    longest = min(spec.max_length, context)
    counts: dict[str, dict[str, int]] = {}
    sides = [
        _fitted(template, side, longest, cut=spec.overlong == "cut", counts=counts)
        for side in records
    ]
    (train, numbers), (holdout, _) = sides
    account = {
        "max_length": longest,
        "train": len(train),
        "train_overlong": len(records.train) - len(train),
        "holdout": len(holdout),
        "holdout_overlong": len(records.holdout) - len(holdout),
        "supervised_tokens": sum(f.supervised for f in train),
        "sources": counts,
    }
    if not train:
        raise ZephyrError(
            "no example fits the model",
            found=f"{account['train_overlong']} examples, each longer than {longest} tokens",
            todo="raise `max_length`, take shorter examples, or set `overlong: cut`",
        )
    return Examples(train, holdout, account, numbers)


def _fitted(
    template: Template,
    records: Sequence[Record],
    longest: int,
    *,
    cut: bool,
    counts: dict[str, dict[str, int]],
) -> tuple[list[Fork], list[int]]:
    """The forks that fit, and the numbers of their records."""
    start = template.tokenizer.bos_token_id
    kept: list[Fork] = []
    numbers: list[int] = []
    wholes = template.forks(records)
    for number, (record, whole) in enumerate(zip(records, wholes, strict=True)):
        fits = whole.longest <= longest
        fork = whole if fits or not cut else cut_prompt(whole, longest, start)
        count = counts.setdefault(record.source, dict.fromkeys(_COUNTS, 0))
        if fork is None or (not fits and not cut):
            count["overlong"] += 1
            continue
        kept.append(fork)
        numbers.append(number)
        count["examples"] += 1
        count["cut"] += not fits
        count["tokens"] += fork.length
        count["supervised_tokens"] += fork.supervised
    return kept, numbers


def pieces(records: Sequence[Record], tokenizer: Any, length: int, end: int) -> list[Fork]:
    """Passages, each between two end tokens, in pieces of `length` predictions.

    No piece holds two passages: what stands in one is never looked at in another. That all start
    with one token gives attention a place to rest from the first step on (see the log).
    """
    if not records:
        return []
    passages = tokenizer([text_of(r) for r in records], add_special_tokens=False)["input_ids"]
    whole = (np.array([end, *passage, end], dtype=np.int32) for passage in passages)
    return [
        fork(tokens[at : at + 1], tokens[at + 1 : at + 1 + length])
        for tokens in whole
        for at in range(0, len(tokens) - 1, length)
    ]


def text_of(record: Record) -> str:
    """All that is written in a record, for a tokenizer or a language model."""
    if isinstance(record, Passage):
        return record.text
    return "\n".join(text for _, text in record.content[0])
