"""Prefix caching: what many prompts begin with is computed once.

Few-shot examples open every prompt of a subject. Their keys and values are computed once,
and what differs is packed into single rows, each token of which sees the whole prefix.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from zephyr.model.batching import Batch, collate
from zephyr.model.example import Example, TokenIds

MIN_PREFIX_TOKENS = 64
"""The least tokens of a shared prefix: for fewer, a forward of its own saves nothing."""

MAX_ROW_TOKENS = 512
"""Tokens of a row after a prefix. In longer ones attention costs more than the products gain."""


class PrefixGroup(NamedTuple):
    """Examples, by index, whose prompts all begin with the same `prefix` and do not end there."""

    prefix: TokenIds
    indices: list[int]


def group_by_prefix(
    examples: Sequence[Example], min_prefix_tokens: int = MIN_PREFIX_TOKENS
) -> tuple[list[PrefixGroup], list[int]]:
    """Groups of at least two examples with a common prefix, and the examples of no group."""
    order = sorted(range(len(examples)), key=lambda i: examples[i].prompt.astype(">u4").tobytes())
    groups: list[PrefixGroup] = []
    ungrouped: list[int] = []
    start = 0
    while start < len(order):
        first = examples[order[start]].prompt
        shared, end = len(first) - 1, start + 1
        while end < len(order):
            common = _common_prefix_length(
                examples[order[end - 1]].prompt, examples[order[end]].prompt
            )
            if end > start + 1 and common < 0.75 * shared:
                break
            shared, end = min(shared, common), end + 1
            if shared < min_prefix_tokens:
                end -= 1
                break
        indices = order[start:end]
        if len(indices) > 1 and shared >= min_prefix_tokens:
            groups.append(PrefixGroup(first[:shared], indices))
        else:
            ungrouped += indices
        start = end
    return groups, sorted(ungrouped)


def _common_prefix_length(a: TokenIds, b: TokenIds) -> int:
    """How many leading tokens two prompts share, the last of each left out."""
    max_length = min(len(a), len(b)) - 1
    differences = (a[:max_length] != b[:max_length]).nonzero()[0]
    return int(differences[0]) if len(differences) else max_length


class CachedPrefix:
    """A shared prefix's KV cache (keys and values of every layer), computed once."""

    def __init__(
        self, causal: Any, cache_argument: str, prefix: TokenIds, device: torch.device
    ) -> None:
        self.length = len(prefix)
        self.cache = Cache(layer_class_to_replicate=_FrozenPrefixLayer)
        tokens = torch.from_numpy(prefix.astype("int64"))[None].to(device)
        causal.base_model(input_ids=tokens, use_cache=True, **{cache_argument: self.cache})

    def suffix_batches(
        self, group: PrefixGroup, examples: Sequence[Example]
    ) -> Iterator[tuple[list[int], Batch]]:
        """Batches of what follows the prefix, some examples of the group in each row."""
        suffixes = {
            i: Example(examples[i].prompt[self.length :], examples[i].completions)
            for i in group.indices
        }
        selected: list[int] = []
        used_tokens = 0
        for i in [*group.indices, None]:
            if selected and (i is None or used_tokens + suffixes[i].tree_length > MAX_ROW_TOKENS):
                yield (
                    selected,
                    self._with_prefix(
                        collate([suffixes[j] for j in selected], "tree", one_row=True)
                    ),
                )
                selected, used_tokens = [], 0
            if i is not None:
                selected.append(i)
                used_tokens += suffixes[i].tree_length

    def _with_prefix(self, batch: Batch) -> Batch:
        suffix_length = batch.input_ids.shape[1]
        attention_mask, position_ids = batch.attention_mask, batch.position_ids
        if attention_mask is None:
            attention_mask = torch.ones(suffix_length, suffix_length, dtype=torch.bool).tril()[
                None, None
            ]
        if position_ids is None:
            position_ids = torch.arange(suffix_length)[None]
        prefix_mask = torch.ones(1, 1, suffix_length, self.length, dtype=torch.bool)
        return batch._replace(
            attention_mask=torch.cat([prefix_mask, attention_mask], dim=3),
            position_ids=position_ids + self.length,
        )


class _FrozenPrefixLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """A KV-cache layer of the prefix: keeps what comes first, before whatever comes later."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            return super().update(key_states, value_states)  # type: ignore[no-any-return]  # untyped
        return (
            torch.cat([self.keys, key_states], dim=2),
            torch.cat([self.values, value_states], dim=2),
        )
