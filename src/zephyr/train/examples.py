"""Builds tokenized training examples from a mixture, truncated or dropped to fit the context."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zephyr.data.mixture import RecordSplit
from zephyr.errors import ZephyrError
from zephyr.model.example import Example, make_example, truncate_prompt
from zephyr.model.template import ChatTemplate
from zephyr.recipe.training import Align, Tune
from zephyr.records import Passage, Record

_COUNTS = ("examples", "overlong", "cut", "tokens", "supervised_tokens")


class ExampleSet(NamedTuple):
    """Training and hold-out examples, and the summary that `examples.json` holds.

    `record_indices` are the mixture's records that `train` was built from.
    """

    train: list[Example]
    holdout: list[Example]
    summary: dict[str, Any]
    record_indices: list[int]


def build_examples(
    template: ChatTemplate, records: RecordSplit, spec: Tune | Align, context_length: int
) -> ExampleSet:
    """Builds tokenized examples of chats (SFT) or pairs (DPO), with token counts per source.

    What is longer than `spec.max_length` tokens, or than the model's `context_length`, is left out
    and counted; with `overlong: cut` its prompt is truncated from the left, and never a completion.

    Raises:
        ZephyrError: no example fits.
    """
    max_tokens = min(spec.max_length, context_length)
    source_counts: dict[str, dict[str, int]] = {}
    split_examples = [
        _fit_examples(
            template,
            side,
            max_tokens,
            truncates=spec.overlong == "cut",
            source_counts=source_counts,
        )
        for side in records
    ]
    (train, record_indices), (holdout, _) = split_examples
    summary = {
        "max_length": max_tokens,
        "train": len(train),
        "train_overlong": len(records.train) - len(train),
        "holdout": len(holdout),
        "holdout_overlong": len(records.holdout) - len(holdout),
        "supervised_tokens": sum(e.num_loss_tokens for e in train),
        "sources": source_counts,
    }
    if not train:
        raise ZephyrError(
            "no example fits the model",
            found=f"{summary['train_overlong']} examples, each longer than {max_tokens} tokens",
            todo="raise `max_length`, take shorter examples, or set `overlong: cut`",
        )
    return ExampleSet(train, holdout, summary, record_indices)


def _fit_examples(
    template: ChatTemplate,
    records: Sequence[Record],
    max_tokens: int,
    *,
    truncates: bool,
    source_counts: dict[str, dict[str, int]],
) -> tuple[list[Example], list[int]]:
    """The examples within `max_tokens` tokens, truncated if asked, and their record indices."""
    bos_token_id = template.tokenizer.bos_token_id
    fitting: list[Example] = []
    record_indices: list[int] = []
    full_examples = template.make_examples(records)
    for number, (record, full_example) in enumerate(zip(records, full_examples, strict=True)):
        fits = full_example.max_sequence_length <= max_tokens
        example = (
            full_example
            if fits or not truncates
            else truncate_prompt(full_example, max_tokens, bos_token_id)
        )
        count = source_counts.setdefault(record.source, dict.fromkeys(_COUNTS, 0))
        if example is None or (not fits and not truncates):
            count["overlong"] += 1
            continue
        fitting.append(example)
        record_indices.append(number)
        count["examples"] += 1
        count["cut"] += not fits
        count["tokens"] += example.tree_length
        count["supervised_tokens"] += example.num_loss_tokens
    return fitting, record_indices


def chunk_passages(
    records: Sequence[Record], tokenizer: Any, chunk_tokens: int, eos_token_id: int
) -> list[Example]:
    """Language-modeling examples (pretraining): passages between EOS tokens, in chunks.

    A chunk has `chunk_tokens` tokens to predict at most, and never holds two passages. The common
    first token gives attention a place to rest (attention sink) from the first step on
    (docs/log.md).
    """
    if not records:
        return []
    passages = tokenizer([record_text(r) for r in records], add_special_tokens=False)["input_ids"]
    token_sequences = (
        np.array([eos_token_id, *passage, eos_token_id], dtype=np.int32) for passage in passages
    )
    return [
        make_example(tokens[at : at + 1], tokens[at + 1 : at + 1 + chunk_tokens])
        for tokens in token_sequences
        for at in range(0, len(tokens) - 1, chunk_tokens)
    ]


def record_text(record: Record) -> str:
    """All text of a record, for a tokenizer or a language model."""
    if isinstance(record, Passage):
        return record.text
    return "\n".join(text for _, text in record.content[0])
