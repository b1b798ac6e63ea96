"""`zephyr data show`: records as tokenized for training, with the loss mask in colour."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from zephyr.model.example import Completion, Example
from zephyr.model.template import ChatTemplate
from zephyr.records import Chat, Pair, Record

SUPERVISED_STYLE = "green"
REJECTED_STYLE = "red"


def render_records(records: Sequence[Record], tokenizer: Any) -> Iterator[Text]:
    """Renders each record with its source, its length, and its loss mask in colour."""
    template = ChatTemplate(tokenizer)
    for record in records:
        if isinstance(record, Chat | Pair):
            for example in template.make_examples(template.split_answers(record)):
                yield _render_header(
                    record, example.tree_length, example.num_loss_tokens
                ) + _render_example(record, example, tokenizer)
        else:
            tokens = len(tokenizer("\n".join(record.texts), add_special_tokens=False)["input_ids"])
            yield _render_header(record, tokens, tokens) + Text(
                "\n".join(record.texts) + "\n", SUPERVISED_STYLE
            )


def _render_header(record: Record, tokens: int, supervised_tokens: int) -> Text:
    description = f"{record.source} · {record.kind} · {record.id} · {tokens:,} tokens"
    return Text(f"── {description}, {supervised_tokens:,} supervised\n", "bold")


def _render_example(record: Record, example: Example, tokenizer: Any) -> Text:
    text = Text(tokenizer.decode(example.prompt), "dim")
    if isinstance(record, Chat):
        return (
            text
            + _render_completion(example.completions[0], tokenizer, SUPERVISED_STYLE)
            + Text("\n")
        )
    for name, style, completion in zip(
        ("chosen", "rejected"), (SUPERVISED_STYLE, REJECTED_STYLE), example.completions, strict=True
    ):
        text += Text(f"\n{name}: ", "bold") + _render_completion(completion, tokenizer, style)
    return text + Text("\n")


def _render_completion(completion: Completion, tokenizer: Any, style: str) -> Text:
    """Renders a completion: tokens in the loss mask in colour, others dim."""
    text = Text()
    start = 0
    loss_mask = completion.loss_mask
    for end in range(1, len(loss_mask) + 1):
        if end == len(loss_mask) or loss_mask[end] != loss_mask[start]:
            text += Text(
                tokenizer.decode(completion.ids[start:end]), style if loss_mask[start] else "dim"
            )
            start = end
    return text
