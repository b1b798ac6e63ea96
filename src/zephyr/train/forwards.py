"""Which forwards of a batch a process makes."""

from collections.abc import Iterator, Sequence

from zephyr.distributed.process_group import Group, shares
from zephyr.model.fork import Fork
from zephyr.model.layout import Layout, pack


def forwards(
    forks: Sequence[Fork], budget: int, layout: Layout, group: Group
) -> Iterator[tuple[list[int], int]]:
    """The forks of each forward of this process, and 1, or 0 for one that counts nothing.

    Forks are shared out by their tokens, then packed. A process without a share makes a forward
    that counts nothing, so that all processes give the same statistics; where the weights are
    divided, all make equally many, since they meet in every forward.
    """
    parts = shares([f.length for f in forks], group.size)
    made = 0
    for cut in _cut(forks, parts[group.rank], budget, layout):
        made += 1
        yield cut, 1
    most = 1
    if group.divides:
        most = max(sum(1 for _ in _cut(forks, part, budget, layout)) for part in parts)
    shortest = min(range(len(forks)), key=lambda i: forks[i].length)
    yield from (([shortest], 0) for _ in range(most - made))


def _cut(
    forks: Sequence[Fork], part: Sequence[int], budget: int, layout: Layout
) -> Iterator[list[int]]:
    for cut in pack([forks[i] for i in part], budget, layout):
        yield [part[i] for i in cut]
