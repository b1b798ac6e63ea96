"""Micro-batches (gradient accumulation): splits a batch over ranks, then by token budget."""

from collections.abc import Iterator, Sequence

from zephyr.distributed.process_group import ProcessGroup, balance_by_size
from zephyr.model.batching import Layout, pack_batches
from zephyr.model.example import Example


def micro_batches(
    examples: Sequence[Example], token_budget: int, layout: Layout, group: ProcessGroup
) -> Iterator[tuple[list[int], int]]:
    """Splits a batch into this rank's micro-batches: example indices, and loss scale (1 or 0).

    Examples are balanced over the ranks by tokens, then packed. A rank without examples makes a
    forward with scale 0, so that all ranks give the same statistics; where the weights are
    sharded (FSDP), all make equally many, since every forward is a collective.
    """
    rank_indices = balance_by_size([e.tree_length for e in examples], group.world_size)
    yielded = 0
    for indices in _pack_indices(examples, rank_indices[group.rank], token_budget, layout):
        yielded += 1
        yield indices, 1
    total = 1
    if group.is_sharded:
        total = max(
            sum(1 for _ in _pack_indices(examples, part, token_budget, layout))
            for part in rank_indices
        )
    shortest_index = min(range(len(examples)), key=lambda i: examples[i].tree_length)
    yield from (([shortest_index], 0) for _ in range(total - yielded))


def _pack_indices(
    examples: Sequence[Example], candidates: Sequence[int], budget: int, layout: Layout
) -> Iterator[list[int]]:
    """Packs the examples at `candidates` into micro-batches of at most `budget` tokens."""
    for packed in pack_batches([examples[i] for i in candidates], budget, layout):
        yield [candidates[i] for i in packed]
