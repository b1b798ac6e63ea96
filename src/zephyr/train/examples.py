"""Builds tokenized training examples from a mixture, truncated or dropped to fit the context."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zephyr.data.mixture import RecordSplit
from zephyr.errors import ZephyrError
from zephyr.model.example import Example, make_example
from zephyr.model.template import ChatTemplate, CutPrompt
from zephyr.recipe.training import Align, Tune
from zephyr.records import Chat, Pair, Passage, Record

_COUNTS = (
    *("examples", "overlong", "cut", "cut_messages", "cut_tokens"),
    *("tokens", "supervised_tokens"),
)


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
    and counted. With `overlong: cut` its prompt is cut, and never a completion: the system message
    and the roles' markers stay, and the messages and tokens that were lost are counted.

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
    (train, record_indices, train_overlong), (holdout, _, holdout_overlong) = split_examples
    summary = {
        "max_length": max_tokens,
        "train": len(train),
        "train_overlong": train_overlong,
        "holdout": len(holdout),
        "holdout_overlong": holdout_overlong,
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
) -> tuple[list[Example], list[int], int]:
    """The examples within `max_tokens` tokens, cut if asked, and their record indices.

    Last is how many examples were left out.
    """
    fitting: list[Example] = []
    record_indices: list[int] = []
    numbered = [
        (n, part) for n, record in enumerate(records) for part in template.split_answers(record)
    ]
    full_examples = template.make_examples(record for _, record in numbered)
    for (number, record), full_example in zip(numbered, full_examples, strict=True):
        example = full_example
        count = source_counts.setdefault(record.source, dict.fromkeys(_COUNTS, 0))
        if full_example.max_sequence_length > max_tokens:
            cut = _cut_prompt(template, record, full_example, max_tokens) if truncates else None
            if cut is None:
                count["overlong"] += 1
                continue
            example = Example(cut.ids, full_example.completions)
            count["cut"] += 1
            count["cut_messages"] += cut.lost_messages
            count["cut_tokens"] += cut.lost_tokens
        fitting.append(example)
        record_indices.append(number)
        count["examples"] += 1
        count["tokens"] += example.tree_length
        count["supervised_tokens"] += example.num_loss_tokens
    return fitting, record_indices, len(full_examples) - len(fitting)


def _cut_prompt(
    template: ChatTemplate, record: Record, example: Example, max_tokens: int
) -> CutPrompt | None:
    """The prompt of an example, cut so that at most `max_tokens` tokens enter a network."""
    assert isinstance(record, Chat | Pair), "only these have a prompt"
    completion_tokens = example.max_sequence_length - len(example.prompt)
    return template.cut_prompt(template.prompt_messages(record), max_tokens - completion_tokens)


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
