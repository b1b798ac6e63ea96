"""What many prompts begin with, computed once.

Worked examples stand before every question of a subject. Their keys and values are computed once,
and what differs is packed into single rows, each token of which sees the whole prefix.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from zephyr.model.fork import Fork, Ids
from zephyr.model.layout import Batch, lay_out

WORTH = 64
"""Tokens that a shared prefix has at least: for fewer, a forward of its own saves nothing."""

ROW = 512
"""Tokens of a row after a prefix. In longer ones attention costs more than the products gain."""


class Family(NamedTuple):
    """Forks, by number, whose prompts all begin with the same `prefix` and do not end there."""

    prefix: Ids
    members: list[int]


def families(forks: Sequence[Fork], worth: int = WORTH) -> tuple[list[Family], list[int]]:
    """Those of at least two members, and the forks that belong to none."""
    order = sorted(range(len(forks)), key=lambda i: forks[i].prompt.astype(">u4").tobytes())
    found: list[Family] = []
    alone: list[int] = []
    start = 0
    while start < len(order):
        first = forks[order[start]].prompt
        shared, end = len(first) - 1, start + 1
        while end < len(order):
            common = _common(forks[order[end - 1]].prompt, forks[order[end]].prompt)
            if end > start + 1 and common < 0.75 * shared:
                break
            shared, end = min(shared, common), end + 1
            if shared < worth:
                end -= 1
                break
        members = order[start:end]
        if len(members) > 1 and shared >= worth:
            found.append(Family(first[:shared], members))
        else:
            alone += members
        start = end
    return found, sorted(alone)


def _common(a: Ids, b: Ids) -> int:
    """How many leading tokens two prompts share, the last of each left out."""
    most = min(len(a), len(b)) - 1
    differ = (a[:most] != b[:most]).nonzero()[0]
    return int(differ[0]) if len(differ) else most


class Prefix:
    """The keys and values of a network for a prefix."""

    def __init__(self, causal: Any, memory: str, prefix: Ids, device: torch.device) -> None:
        self.length = len(prefix)
        self.cache = Cache(layer_class_to_replicate=_FixedLayer)
        tokens = torch.from_numpy(prefix.astype("int64"))[None].to(device)
        causal.base_model(input_ids=tokens, use_cache=True, **{memory: self.cache})

    def rows(self, family: Family, forks: Sequence[Fork]) -> Iterator[tuple[list[int], Batch]]:
        """What follows the prefix, some members of the family in each row."""
        rests = {
            i: Fork(forks[i].prompt[self.length :], forks[i].continuations) for i in family.members
        }
        taken: list[int] = []
        used = 0
        for i in [*family.members, None]:
            if taken and (i is None or used + rests[i].length > ROW):
                yield taken, self._after(lay_out([rests[j] for j in taken], "tree", one_row=True))
                taken, used = [], 0
            if i is not None:
                taken.append(i)
                used += rests[i].length

    def _after(self, batch: Batch) -> Batch:
        time = batch.input_ids.shape[1]
        mask, places = batch.mask, batch.position_ids
        if mask is None:
            mask = torch.ones(time, time, dtype=torch.bool).tril()[None, None]
        if places is None:
            places = torch.arange(time)[None]
        seen = torch.ones(1, 1, time, self.length, dtype=torch.bool)
        return batch._replace(
            mask=torch.cat([seen, mask], dim=3), position_ids=places + self.length
        )


class _FixedLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """Keeps what it is given first, and puts it before whatever comes later."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            return super().update(key_states, value_states)  # type: ignore[no-any-return]  # untyped
        return (
            torch.cat([self.keys, key_states], dim=2),
            torch.cat([self.values, value_states], dim=2),
        )
