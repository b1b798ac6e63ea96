"""Prefix caching: the KV cache of a prefix that many prompts share is computed once.

Few-shot examples open every prompt of a subject. Their keys and values are computed once, and the
suffixes are packed into single rows, each token of which attends to the whole prefix.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from zephyr.model.batching import Batch, collate
from zephyr.model.example import Example, TokenIds

MIN_PREFIX_TOKENS = 64
"""Minimum tokens of a shared prefix: for fewer, a forward pass of its own saves nothing."""

MAX_ROW_TOKENS = 512
"""Maximum tokens of a packed row of suffixes: beyond, attention costs more than packing gains."""


class PrefixGroup(NamedTuple):
    """Examples, by index, whose prompts share the same `prefix` and go on after it."""

    prefix: TokenIds
    indices: list[int]


def group_by_prefix(
    examples: Sequence[Example], min_prefix_tokens: int = MIN_PREFIX_TOKENS
) -> tuple[list[PrefixGroup], list[int]]:
    """Groups examples by shared prompt prefix (at least two each); and the ungrouped indices."""
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
    """Length of the common prefix of two prompts, the last token of each left out."""
    max_length = min(len(a), len(b)) - 1
    differences = (a[:max_length] != b[:max_length]).nonzero()[0]
    return int(differences[0]) if len(differences) else max_length


class CachedPrefix:
    """The KV cache of a shared prefix (keys and values of every layer), computed once."""

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
        """Packed batches of the suffixes after the prefix, with the indices of their examples."""
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
        """Adds the K prefix tokens to mask [1, 1, T, K + T] and position ids [1, T]."""
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
    """A read-only KV-cache layer: keeps the prefix, puts it before later keys and values."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            return super().update(key_states, value_states)  # type: ignore[no-any-return]  # untyped
        return (
            torch.cat([self.keys, key_states], dim=2),
            torch.cat([self.values, value_states], dim=2),
        )
