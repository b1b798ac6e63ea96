"""Records as a model will see them: the whole prompt, and which tokens are learned."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from zephyr.model.fork import Continuation, Fork
from zephyr.model.template import Template
from zephyr.records import Chat, Pair, Record

LEARNED = "green"
REJECTED = "red"


def views(records: Sequence[Record], tokenizer: Any) -> Iterator[Text]:
    """Each record with its source, its length, and what is supervised in colour."""
    template = Template(tokenizer)
    for record in records:
        if isinstance(record, Chat | Pair):
            [fork] = template.forks([record])
            yield _head(record, fork.length, fork.supervised) + _body(record, fork, tokenizer)
        else:
            tokens = len(tokenizer("\n".join(record.texts), add_special_tokens=False)["input_ids"])
            yield _head(record, tokens, tokens) + Text("\n".join(record.texts) + "\n", LEARNED)


def _head(record: Record, tokens: int, supervised: int) -> Text:
    said = f"{record.source} · {record.kind} · {record.id} · {tokens:,} tokens"
    return Text(f"── {said}, {supervised:,} supervised\n", "bold")


def _body(record: Record, fork: Fork, tokenizer: Any) -> Text:
    text = Text(tokenizer.decode(fork.prompt), "dim")
    if isinstance(record, Chat):
        return text + _continued(fork.continuations[0], tokenizer, LEARNED) + Text("\n")
    for name, style, answer in zip(
        ("chosen", "rejected"), (LEARNED, REJECTED), fork.continuations, strict=True
    ):
        text += Text(f"\n{name}: ", "bold") + _continued(answer, tokenizer, style)
    return text + Text("\n")


def _continued(answer: Continuation, tokenizer: Any, style: str) -> Text:
    """Supervised tokens in colour, the others dim; neighbours of one kind are decoded together."""
    text = Text()
    start = 0
    marks = answer.supervised
    for end in range(1, len(marks) + 1):
        if end == len(marks) or marks[end] != marks[start]:
            text += Text(tokenizer.decode(answer.ids[start:end]), style if marks[start] else "dim")
            start = end
    return text
