"""Evaluation workloads: items of public test sets, drawn by a seed, in the form of lm-eval.

Rows of HellaSwag hold what lm-eval's own preparation makes of them; a prompt of GSM8K is a
question as lm-eval puts it, without examples, and its answer has as many tokens as the reference.
"""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bench.shared.datasets import read_rows, read_text
from zephyr.evaluate.page_perplexity import detokenize_page, split_pages

SEED = 0
WARMUP = 2
SUBJECT = "machine_learning"
"""Of MMLU: five examples of 571 Qwen tokens and questions of 78, where items have 575 and 109."""
SHORTEST, LONGEST = 6_000, 20_000
"""Characters of the pages of WikiText-2 that are drawn: one to three windows of 2,048 tokens."""
TOLERANCE = {"bfloat16": 0.12, "float32": 1e-3}
"""Nats for each token by which two ways of one forward differ by rounding, in the mean."""
SAME_CHOICE = 0.9
"""Least share of items at which both choose the same option."""

Row = dict[str, Any]


class Entry(NamedTuple):
    """A line of the table: a task on a model, its items, and the batch sizes that lm-eval tries.

    A trial is of `trial` items; the largest batch is that of all.
    """

    task: str
    model: str
    items: int
    trial: int
    batches: tuple[int, ...]
    context: int = 2048

    @property
    def name(self) -> str:
        return f"{self.task} · {self.model}"

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.model == "qwen" else "float32"


ENTRIES = (
    Entry("hellaswag", "qwen", 48, 16, (1, 8)),
    Entry("mmlu", "qwen", 32, 8, (1, 4)),
    Entry("gsm8k", "qwen", 32, 32, (32,)),
    Entry("wikitext", "qwen", 3, 3, (1,)),
    Entry("hellaswag", "tinystories", 500, 200, (8, 32, 128), 512),
    Entry("gsm8k", "tinystories", 200, 200, (32, 200), 512),
    Entry("wikitext", "tinystories", 12, 12, (1, 8), 512),
)


class Workload(NamedTuple):
    """The items of a task, and how many tokens are scored in them or generated."""

    rows: list[Row]
    warmup: list[Row]
    few_shot: list[Row]
    tokens: int


def workload(entry: Entry, tokenizer: Any, count: int) -> Workload:
    """`count` items of a task, `WARMUP` others, and five worked examples for MMLU."""

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def scored_tokens(row: Row) -> int:
        if entry.task == "hellaswag":
            return sum(length(f" {ending}") for ending in row["choices"])
        if entry.task == "mmlu":
            return len(row["choices"])
        return row["tokens"] if "tokens" in row else length(detokenize_page(row["page"]))

    def gsm8k() -> Iterator[Row]:
        for row in read_rows("gsm8k/test"):
            prompt = f"Question: {row['question']}\nAnswer:"
            tokens = length(f" {row['answer']}")
            if length(prompt) + tokens + 1 < entry.context:
                yield {"prompt": prompt, "answer": row["answer"], "tokens": tokens}

    items = gsm8k() if entry.task == "gsm8k" else _ITEMS[entry.task]()
    drawn = random.Random(SEED).sample(list(items), count + WARMUP)
    few_shot = list(_mmlu("dev")) if entry.task == "mmlu" else []
    tokens = sum(map(scored_tokens, drawn[:count]))
    return Workload(drawn[:count], drawn[count:], few_shot, tokens)


def _hellaswag() -> Iterator[Row]:
    for row in read_rows("hellaswag/validation_first_5000"):
        label = int(row["label"])
        yield {"query": row["ctx"], "choices": row["endings"], "label": label, "gold": label}


def _mmlu(split: str = "test") -> Iterator[Row]:
    for row in read_rows(f"mmlu/mmlu_{split}"):
        if row["subject"] == SUBJECT:
            yield row | {"answer": "ABCD".index(row["answer"])}


def _wikitext() -> Iterator[Row]:
    for page in split_pages(read_text("wikitext2/wiki.test.raw.txt").replace("\r\n", "\n")):
        if SHORTEST <= len(page) <= LONGEST:
            yield {"page": page}


_ITEMS = {"hellaswag": _hellaswag, "mmlu": _mmlu, "wikitext": _wikitext}


def agreement(
    entry: Entry, tokens: int, ours: dict[str, Any], theirs: dict[str, Any]
) -> dict[str, float]:
    """How far two measurements of the same items, of so many scored tokens, are apart.

    `nats` is the mean difference of a log-probability for each of its tokens, `same` the share of
    items at which the likeliest option is the same one.

    Raises:
        SystemExit: they are further apart than rounding.
    """
    if entry.task == "gsm8k":
        found = {"tokens": float(ours["tokens"]), "expected": float(tokens)}
        agree = ours["tokens"] == theirs["tokens"] == tokens
    else:
        pairs = list(zip(ours["values"], theirs["values"], strict=True))
        gaps = [abs(a - b) for own, other in pairs for a, b in zip(own, other, strict=True)]
        same = float(np.mean([np.argmax(own) == np.argmax(other) for own, other in pairs]))
        found = {"nats": sum(gaps) / tokens, "same": same}
        agree = found["nats"] <= TOLERANCE[entry.dtype] and same >= SAME_CHOICE
    if not agree:
        raise SystemExit(f"{entry.name}: the two frameworks do not agree: {found}")
    return found


def best_batch(trials: list[dict[str, Any]]) -> int:
    """The batch size with the highest rate."""
    return int(max(trials, key=lambda trial: trial.get("rate", 0.0))["batch"])
