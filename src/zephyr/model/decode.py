"""Prompts that are answered together, a token at a time.

Prompts may join the batch at any token, and leave it when they are finished. All rows end at the
same column; what stands before a prompt is covered by the mask. What a prompt gets does not depend
on its neighbours: sampling draws from a generator of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


@dataclass(eq=False)
class Row:
    """A prompt that is being answered, and the tokens of its answer so far; `seed` is for draws."""

    prompt: Ids
    sampling: Sampling = GREEDY
    seed: int = 0
    written: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = torch.Generator().manual_seed(self.seed)

    @property
    def length(self) -> int:
        """Tokens that the cache holds once the last one has been chosen."""
        return len(self.prompt) + len(self.written) - 1


class Running:
    """The batch of a network. Each row that is in it gets a token from `add`, and from each `step`.

    Networks whose layers keep anything but the keys and values of all tokens are not supported.
    """

    def __init__(self, causal: Any) -> None:
        self.causal = causal
        self.rows: list[Row] = []
        self._cache: RoomyCache | None = None
        self._positions = "position_ids" in takes(causal)
        self._memory = memory(causal)
        self._device = next(causal.parameters()).device

    @torch.inference_mode()
    def add(self, rows: Sequence[Row]) -> None:
        """Reads the prompts of new rows, and chooses the first token of each."""
        lengths = torch.tensor([len(row.prompt) for row in rows])
        width = int(lengths.max())
        tokens = torch.zeros((len(rows), width), dtype=torch.int64)
        for row, line in zip(rows, tokens, strict=True):
            line[width - len(row.prompt) :] = torch.from_numpy(row.prompt)
        positions = (torch.arange(width) - (width - lengths)[:, None]).clamp(min=0)
        fresh = RoomyCache()
        self._forward(rows, tokens, positions, lengths, fresh)
        if self.rows:
            assert self._cache is not None
            self._cache.join(fresh)
        else:
            self._cache = fresh
        self.rows += rows

    @torch.inference_mode()
    def step(self) -> None:
        """Chooses the next token of every row."""
        assert self._cache is not None, "nothing has been added"
        lengths = torch.tensor([row.length for row in self.rows])
        self._cache.keep_columns(int(lengths.max()))
        tokens = torch.tensor([[row.written[-1]] for row in self.rows])
        self._forward(self.rows, tokens, lengths[:, None], lengths + 1, self._cache)

    @torch.inference_mode()
    def remove(self, row: Row) -> None:
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
        rows: Sequence[Row],
        tokens: Tensor,
        positions: Tensor,
        lengths: Tensor,
        cache: RoomyCache,
    ) -> None:
        """Reads `tokens` [rows, time]; a row then has `lengths` in all, and its next is chosen."""
        width = int(lengths.max())
        mask = torch.arange(width) >= (width - lengths)[:, None]
        where = {"position_ids": positions.to(self._device)} if self._positions else {}
        with by_one_token(self.causal):
            states = self.causal.base_model(
                input_ids=tokens.to(self._device),
                attention_mask=mask.to(self._device, torch.int64),
                use_cache=True,
                **{self._memory: cache},
                **where,
            )
        last = states.last_hidden_state[:, -1].contiguous()
        logits = self.causal.get_output_embeddings()(last)
        for row, token in zip(rows, _choose(logits, rows), strict=True):
            row.written.append(token)


def _choose(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """The next token of each row of logits [rows, V]."""
    chosen: list[int] = logits.argmax(dim=1).tolist()
    for at, row in enumerate(rows):
        if row.sampling.temperature > 0:
            chosen[at] = _draw(logits[at].float().cpu(), row)
    return chosen


def _draw(logits: Tensor, row: Row) -> int:
    probs = (logits / row.sampling.temperature).softmax(dim=0)
    ordered, order = probs.sort(descending=True, stable=True)
    ordered[ordered.cumsum(dim=0) - ordered >= row.sampling.top_p] = 0
    return int(order[torch.multinomial(ordered, 1, generator=row.draw)])
