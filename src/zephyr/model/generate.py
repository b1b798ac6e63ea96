"""Offline generation: answers many prompts with continuous batching.

Long prompts come first. As rows of the decode batch finish, the next prompts are prefilled and join
it, so that the batch stays full until there are none left.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from zephyr.model.decoding import GREEDY, DecodeBatch, DecodeRow, SamplingParams
from zephyr.model.detokenizer import IncrementalDetokenizer, find_stop
from zephyr.model.example import TokenIds, to_token_ids
from zephyr.model.template import ChatTemplate

FinishReason = Literal["end token", "stop string", "length"]
"""Why a completion ended: EOS (end token), a stop string, or the limit of tokens."""

REFILL_DIVISOR = 4
"""New prompts join once 1/4 of the rows are free: prefilled together they are faster."""


class Generation(NamedTuple):
    """A completion: its ids without the end token, text up to a stop string, finish reason."""

    ids: TokenIds
    text: str
    finish_reason: FinishReason

    @property
    def is_complete(self) -> bool:
        """Whether it ended by an end token or stop string, not by the token limit."""
        return self.finish_reason != "length"


class GenerationRequest(NamedTuple):
    """A generation request: prompt, maximum number of new tokens, and sampling seed."""

    prompt: TokenIds
    max_new_tokens: int
    seed: int = 0


def generate(
    causal: Any,
    template: ChatTemplate,
    requests: Sequence[GenerationRequest],
    *,
    token_budget: int,
    sampling: SamplingParams = GREEDY,
    stop: Sequence[str] = (),
    on_done: Callable[[int, Generation], None] = lambda at, found: None,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generation]:
    """Generates for each request; the KV cache grows to about `token_budget` tokens.

    `on_done(i, generation)` is called as soon as one is finished, and `on_text(i, text)` with its
    new text as it comes, never ending within a character, or within what may become a stop string.
    """
    waiting = deque(sorted(range(len(requests)), key=lambda i: (-len(requests[i].prompt), i)))
    generations: dict[int, Generation] = {}
    batch: DecodeBatch[DecodeRow] = DecodeBatch(causal)
    texts: dict[DecodeRow, tuple[int, IncrementalDetokenizer | None]] = {}
    while waiting or batch.rows:
        free_rows = _count_free_rows(requests, waiting, batch, token_budget)
        if free_rows and (
            free_rows == len(waiting) or REFILL_DIVISOR * free_rows >= len(batch.rows)
        ):
            indices = [waiting.popleft() for _ in range(free_rows)]
            rows = [DecodeRow(requests[i].prompt, sampling, requests[i].seed) for i in indices]
            for i, row in zip(indices, rows, strict=True):
                texts[row] = (
                    i,
                    IncrementalDetokenizer(template.decode, template.decode_continued_text, stop)
                    if stop or on_text
                    else None,
                )
            batch.add(rows)
        else:
            rows = list(batch.rows)
            batch.step()
        for row in rows:
            i, text = texts[row]
            finish_reason = find_finish_reason(row, text, template, requests[i].max_new_tokens)
            if finish_reason is not None:
                batch.remove(row)
                generations[i] = Generation(
                    to_token_ids(row.output_ids), _output_text(row, template, stop), finish_reason
                )
                on_done(i, generations[i])
            if on_text is not None and text is not None:
                on_text(
                    i, text.take_new_text(None if finish_reason is None else generations[i].text)
                )
    return [generations[i] for i in range(len(requests))]


def _count_free_rows(
    requests: Sequence[GenerationRequest],
    waiting: deque[int],
    batch: DecodeBatch[DecodeRow],
    token_budget: int,
) -> int:
    """How many more prompts may join the batch; one always may where it is empty."""
    if not waiting:
        return 0
    longest = max(len(requests[waiting[0]].prompt), *(row.cached_length for row in batch.rows), 0)
    max_rows = max(1, token_budget // (longest + max(requests[i].max_new_tokens for i in waiting)))
    return min(len(waiting), max(0, max_rows - len(batch.rows)))


def find_finish_reason(
    row: DecodeRow, text: IncrementalDetokenizer | None, template: ChatTemplate, max_new_tokens: int
) -> FinishReason | None:
    """The finish reason, if the last token ended the completion; an end token is removed."""
    if row.output_ids[-1] in template.stop_token_ids:
        row.output_ids.pop()
        del row.output_logprobs[len(row.output_ids) :]
        return "end token"
    if text is not None:
        text.add_token(row.output_ids[-1])
        if text.has_stopped:
            return "stop string"
    return "length" if len(row.output_ids) >= max_new_tokens else None


def _output_text(row: DecodeRow, template: ChatTemplate, stop: Sequence[str]) -> str:
    """The text of a finished row, up to its first stop string."""
    text = template.decode(to_token_ids(row.output_ids))
    return text[: find_stop(text, stop)]
