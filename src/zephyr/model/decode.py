"""Prompts that are answered together, a token at a time.

Prompts may join the batch at any token, and leave it when they are finished. All rows end at the
same column; what stands before a prompt is covered by the mask. What a prompt gets does not depend
on its neighbours: sampling draws from a generator of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from zephyr.model.attention import by_one_token
from zephyr.model.cache import RoomyCache, memory, takes
from zephyr.model.fork import Ids


class Sampling(NamedTuple):
    """How the next token is chosen: greedily at temperature 0, else drawn.

    `top_p` keeps the smallest set of likeliest tokens whose probability reaches it.
    """

    temperature: float = 0.0
    top_p: float = 1.0


GREEDY = Sampling()

COLDEST = 1e-4
"""Below this temperature the likeliest token is taken: logits over it would leave float32."""


class Noted(NamedTuple):
    """The natural-log probability of a chosen token, and the likeliest tokens with theirs."""

    logprob: float
    likeliest: list[tuple[int, float]]


@dataclass(eq=False)
class Row:
    """A prompt that is being answered, and the tokens of its answer so far; `seed` is for draws.

    Where `alternatives` is given, each chosen token is noted with so many of the likeliest. They
    are those of the model, whatever the temperature.
    """

    prompt: Ids
    sampling: Sampling = GREEDY
    seed: int = 0
    alternatives: int | None = None
    written: list[int] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = torch.Generator().manual_seed(self.seed)

    @property
    def length(self) -> int:
        """Tokens that the cache holds once the last one has been chosen."""
        return len(self.prompt) + len(self.written) - 1


R = TypeVar("R", bound=Row)


class Reading(Generic[R]):
    """Prompts that are being read, some columns at a time, before their rows join a batch."""

    def __init__(self, rows: Sequence[R]) -> None:
        self.rows = list(rows)
        lengths = torch.tensor([len(row.prompt) for row in rows])
        self.width = int(lengths.max())
        self.read = 0
        """Columns that have been read."""
        self.tokens = torch.zeros((len(rows), self.width), dtype=torch.int64)
        for row, line in zip(rows, self.tokens, strict=True):
            line[self.width - len(row.prompt) :] = torch.from_numpy(row.prompt)
        self.positions = (torch.arange(self.width) - (self.width - lengths)[:, None]).clamp(min=0)
        self.mask = _below(lengths)
        self.cache = RoomyCache()


class Running(Generic[R]):
    """The batch of a network. Each row that is in it gets a token from `add`, and from each `step`.

    Networks whose layers keep anything but the keys and values of all tokens are not supported.
    """

    def __init__(self, causal: Any) -> None:
        self.causal = causal
        self.rows: list[R] = []
        self._cache: RoomyCache | None = None
        self._positions = "position_ids" in takes(causal)
        self._memory = memory(causal)
        self._device = next(causal.parameters()).device

    def add(self, rows: Sequence[R]) -> None:
        """Reads the prompts of new rows, and chooses the first token of each."""
        self.read(Reading(rows))

    @torch.inference_mode()
    def read(self, reading: Reading[R], most: int | None = None) -> bool:
        """Reads `most` further columns of new prompts, or all; says whether that was the last.

        Then their rows have joined, each with its first token.
        """
        begin = reading.read
        end = reading.width if most is None else min(begin + most, reading.width)
        part = slice(begin, end)
        states = self._forward(
            reading.rows,
            reading.tokens[:, part],
            reading.positions[:, part],
            reading.mask[:, :end],
            reading.cache,
        )
        reading.read = end
        if end < reading.width:
            return False
        self._choose(states, reading.rows)
        if self.rows:
            assert self._cache is not None
            self._cache.join(reading.cache)
        else:
            self._cache = reading.cache
        self.rows += reading.rows
        return True

    @torch.inference_mode()
    def step(self) -> None:
        """Chooses the next token of every row."""
        assert self._cache is not None, "nothing has been added"
        lengths = torch.tensor([row.length for row in self.rows])
        self._cache.keep_columns(int(lengths.max()))
        tokens = torch.tensor([[row.written[-1]] for row in self.rows])
        mask = _below(lengths + 1)
        states = self._forward(self.rows, tokens, lengths[:, None], mask, self._cache)
        self._choose(states, self.rows)

    @torch.inference_mode()
    def remove(self, row: R) -> None:
        """Takes a row out; the rest goes on."""
        at = self.rows.index(row)
        last = self.rows.pop()
        if last is not row:
            self.rows[at] = last
        if self.rows:
            assert self._cache is not None
            self._cache.leave(at)
        else:
            self._cache = None

    def _forward(
        self,
        rows: Sequence[R],
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: RoomyCache,
    ) -> Tensor:
        """The hidden states [rows, time, width] of `tokens` [rows, time], which the cache keeps."""
        where = {"position_ids": positions.to(self._device)} if self._positions else {}
        with by_one_token(self.causal):
            states: Tensor = self.causal.base_model(
                input_ids=tokens.to(self._device),
                attention_mask=mask.to(self._device, torch.int64),
                use_cache=True,
                **{self._memory: cache},
                **where,
            ).last_hidden_state
        return states

    def _choose(self, states: Tensor, rows: Sequence[Row]) -> None:
        """Writes the next token of each row, from its last hidden state."""
        logits = self.causal.get_output_embeddings()(states[:, -1].contiguous())
        likeliest = logits.argmax(dim=1).tolist()
        for row, own, first in zip(rows, logits, likeliest, strict=True):
            warm = row.sampling.temperature > COLDEST
            row.written.append(_draw(own.float().cpu(), row) if warm else first)
            if row.alternatives is not None:
                row.noted.append(_note(own.float().cpu(), row.written[-1], row.alternatives))


def _below(lengths: Tensor) -> Tensor:
    """The last `lengths` [rows] columns of as many as the longest has, as a mask."""
    width = int(lengths.max())
    return torch.arange(width) >= (width - lengths)[:, None]


LIKELY = 1024
"""Tokens among which `top_p` is nearly always reached; for the rest all are sorted."""


def _draw(logits: Tensor, row: Row) -> int:
    """A token drawn from the softmax of logits [V], by the inverse of its distribution function."""
    probs = (logits.double() / row.sampling.temperature).softmax(dim=0)
    if row.sampling.top_p >= 1:
        return _drawn(probs, row.draw)
    order = probs.topk(min(LIKELY, len(probs))).indices
    if probs[order].sum() < row.sampling.top_p:
        order = probs.argsort(descending=True, stable=True)
    likely = probs[order]
    likely[likely.cumsum(dim=0) - likely >= row.sampling.top_p] = 0
    return int(order[_drawn(likely, row.draw)])


def _drawn(weights: Tensor, draw: torch.Generator) -> int:
    reached = weights.cumsum(dim=0)
    place = torch.rand(1, generator=draw, dtype=torch.float64) * reached[-1]
    return min(int(torch.searchsorted(reached, place, right=True)), len(weights) - 1)


def _note(logits: Tensor, chosen: int, alternatives: int) -> Noted:
    logprobs = logits.log_softmax(dim=0)
    values, tokens = logprobs.topk(min(alternatives, len(logprobs)))
    likeliest = list(zip(tokens.tolist(), values.tolist(), strict=True))
    return Noted(float(logprobs[chosen]), likeliest)
