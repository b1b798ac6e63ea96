"""What both programs are asked: rows of public files, drawn by a seed, in the form of lm-eval.

Rows of HellaSwag hold what lm-eval's own preparation makes of them; a prompt of GSM8K is a
question as lm-eval puts it, without examples, and its answer has as many tokens as the reference.
"""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.evaluate.page_perplexity import detokenize_page, split_pages

SEED = 0
SUBJECT = "machine_learning"
"""Of MMLU: five examples of 571 Qwen tokens and questions of 78, where items have 575 and 109."""
SHORTEST, LONGEST = 6_000, 20_000
"""Characters of the pages of WikiText-2 that are drawn: one to three windows of 2,048 tokens."""

Row = dict[str, Any]


class Paper(NamedTuple):
    """What is asked at one work, and how many tokens the answers have that are weighed.

    `weighed` counts those of each value that a contender gives; `tokens` is what a rate in tokens
    divides.
    """

    rows: list[Row]
    warming: list[Row]
    shown: list[Row]
    weighed: list[list[int]]
    tokens: int


WARMING = 2


def paper(work: str, data: Path, count: int, tokenizer: Any, context: int) -> Paper:
    """`count` rows of a work, `WARMING` others, and five worked examples for MMLU."""
    found = list(_ROWS[work](data, tokenizer, context))
    drawn = random.Random(SEED).sample(found, count + WARMING)
    rows, warming = drawn[:count], drawn[count:]
    shown = list(_mmlu(data, "dev")) if work == "mmlu" else []
    weighed = [_weighed(work, row, tokenizer) for row in rows]
    return Paper(rows, warming, shown, weighed, sum(map(sum, weighed)))


def _weighed(work: str, row: Row, tokenizer: Any) -> list[int]:
    if work == "hellaswag":
        return [_length(f" {ending}", tokenizer) for ending in row["choices"]]
    if work == "mmlu":
        return [1] * len(row["choices"])
    if work == "gsm8k":
        return [row["tokens"]]
    return [_length(detokenize_page(row["page"]), tokenizer)]


def _hellaswag(data: Path, tokenizer: Any, context: int) -> Iterator[Row]:
    for row in _lines(data / "hellaswag" / "validation_first_5000.jsonl.gz"):
        label = int(row["label"])
        yield {"query": row["ctx"], "choices": row["endings"], "label": label, "gold": label}


def _questions(data: Path, tokenizer: Any, context: int) -> Iterator[Row]:
    return _mmlu(data, "test")


def _mmlu(data: Path, split: str) -> Iterator[Row]:
    for row in _lines(data / "mmlu" / f"mmlu_{split}.jsonl.gz"):
        if row["subject"] == SUBJECT:
            yield row | {"answer": "ABCD".index(row["answer"])}


def _gsm8k(data: Path, tokenizer: Any, context: int) -> Iterator[Row]:
    for row in _lines(data / "gsm8k" / "test.jsonl.gz"):
        prompt = f"Question: {row['question']}\nAnswer:"
        tokens = _length(f" {row['answer']}", tokenizer)
        if _length(prompt, tokenizer) + tokens + 1 < context:
            yield {"prompt": prompt, "answer": row["answer"], "tokens": tokens}


def _wikitext(data: Path, tokenizer: Any, context: int) -> Iterator[Row]:
    text = gzip.decompress((data / "wikitext2" / "wiki.test.raw.txt.gz").read_bytes()).decode()
    for page in split_pages(text.replace("\r\n", "\n")):
        if SHORTEST <= len(page) <= LONGEST:
            yield {"page": page}


_ROWS = {"hellaswag": _hellaswag, "mmlu": _questions, "gsm8k": _gsm8k, "wikitext": _wikitext}


def _length(text: str, tokenizer: Any) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _lines(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)
