"""How forks lie in a batch: `tree` or `rows`.

In `rows` each continuation has a row of its own, after a copy of its prompt. In `tree` a prompt
stands once, its continuations follow as branches that can't see each other, and several forks share
a row; a mask [batch, 1, time, time] and the positions make every token see just its own past.
Neither changes a log-probability beyond rounding; `tree` needs a network that honours such a mask
(see `Model`, which probes it).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from zephyr.model.fork import Fork

Layout = Literal["tree", "rows"]

GROUP = 512
"""Forks that are packed together: enough to fill rows well, few enough to stay quick."""


class Batch(NamedTuple):
    """Forks as tensors: T tokens in B rows, N supervised tokens to be predicted.

    `owner` numbers the continuations through all forks of the batch, in order.
    """

    input_ids: torch.Tensor
    """[B, T] int64; what is left of a row is filled with zeros, which nothing looks at. The last
    token of a continuation is left out: it is predicted, and predicts nothing."""
    mask: torch.Tensor | None
    """[B, 1, T, T] bool, True where a query (third) may look at a key (fourth); None: causal."""
    position_ids: torch.Tensor | None
    """[B, T] int64; None: counted from 0 in each row."""
    predict: torch.Tensor
    """[N] index into the B x T hidden states from which each token is predicted."""
    targets: torch.Tensor
    """[N] the ids of the predicted tokens."""
    owner: torch.Tensor
    """[N] the continuation to which each predicted token belongs."""
    continuations: int
    """How many continuations the forks hold in all."""

    def to(self, device: torch.device) -> "Batch":
        def move(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device)

        return self._replace(
            input_ids=self.input_ids.to(device),
            mask=move(self.mask),
            position_ids=move(self.position_ids),
            predict=self.predict.to(device),
            targets=self.targets.to(device),
            owner=self.owner.to(device),
        )


def pack(forks: Sequence[Fork], budget: int, layout: Layout) -> Iterator[list[int]]:
    """Cuts forks into batches of at most `budget` tokens (padding counted); yields their indices.

    Long forks go with long ones. A fork that alone exceeds the budget is a batch of its own.
    """
    size = [f.length if layout == "tree" else f.longest for f in forks]
    order = sorted(range(len(forks)), key=lambda i: (-size[i], i))
    for start in range(0, len(order), GROUP):
        left = order[start : start + GROUP]
        while left:
            taken, left = _fill(forks, left, size, budget, layout)
            yield taken


def _fill(
    forks: Sequence[Fork], order: list[int], size: list[int], budget: int, layout: Layout
) -> tuple[list[int], list[int]]:
    """The forks of one batch by first fit, and those that are left."""
    width = size[order[0]]
    most = max(1, budget // width)
    taken: list[int] = []
    left: list[int] = []
    if layout == "rows":
        used = 0
        for i in order:
            rows = len(forks[i].continuations)
            fits = not taken or used + rows <= most
            (taken if fits and not left else left).append(i)
            used += rows
        return taken, left
    room: list[int] = []
    for i in order:
        row = next((r for r, free in enumerate(room) if free >= size[i]), None)
        if row is not None:
            room[row] -= size[i]
        elif len(room) < most:
            room.append(width - size[i])
        else:
            left.append(i)
            continue
        taken.append(i)
    return taken, left


def lay_out(forks: Sequence[Fork], layout: Layout, *, one_row: bool = False) -> Batch:
    """The tensors of one batch; with `one_row`, a tree's forks share a single row."""
    if layout == "rows":
        return _rows(forks)
    lengths = [f.length for f in forks]
    return _tree(forks, sum(lengths) if one_row else max(lengths))


def _rows(forks: Sequence[Fork]) -> Batch:
    rows = [(f.prompt, c) for f in forks for c in f.continuations]
    width = max(len(prompt) + len(c.ids) - 1 for prompt, c in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    predict, targets, owner = [], [], []
    for row, (prompt, c) in enumerate(rows):
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : len(prompt) + len(c.ids) - 1] = c.ids[:-1]
        at = np.flatnonzero(c.supervised)
        predict.append(row * width + len(prompt) - 1 + at)
        targets.append(c.ids[at])
        owner.append(np.full(len(at), row))
    return _batch(tokens, None, None, predict, targets, owner, len(rows))


def _tree(forks: Sequence[Fork], width: int) -> Batch:
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(forks)), key=lambda i: (-forks[i].length, i)):
        row = next((r for r, free in enumerate(room) if free >= forks[i].length), None)
        if row is None:
            rows.append([])
            room.append(width)
            row = len(rows) - 1
        rows[row].append(i)
        room[row] -= forks[i].length

    first = np.cumsum([0, *(len(f.continuations) for f in forks)])
    shape = (len(rows), width)
    tokens, position = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    fork_of, branch_of = np.full(shape, -1), np.zeros(shape, dtype=np.int64)
    predict, targets, owner = [], [], []
    for row, members in enumerate(rows):
        at = 0
        for i in members:
            prompt = forks[i].prompt
            root = at + len(prompt)
            tokens[row, at:root] = prompt
            position[row, at:root] = np.arange(len(prompt))
            fork_of[row, at : at + forks[i].length] = i
            at = root
            for branch, c in enumerate(forks[i].continuations):
                end = at + len(c.ids) - 1
                tokens[row, at:end] = c.ids[:-1]
                position[row, at:end] = len(prompt) + np.arange(end - at)
                branch_of[row, at:end] = branch + 1
                before = np.concatenate([[root - 1], np.arange(at, end)])
                marked = np.flatnonzero(c.supervised)
                predict.append(row * width + before[marked])
                targets.append(c.ids[marked])
                owner.append(np.full(len(marked), first[i] + branch))
                at = end
    mask = _mask(fork_of, branch_of)
    return _batch(tokens, mask, position, predict, targets, owner, int(first[-1]))


def _mask(fork_of: np.ndarray, branch_of: np.ndarray) -> np.ndarray | None:
    """Which token may look at which; None where plain causal attention says the same."""
    used = fork_of >= 0
    alone = (np.where(used, fork_of, fork_of[:, :1]) == fork_of[:, :1]).all()
    if alone and branch_of.max() <= 1:
        return None
    same_fork = fork_of[:, :, None] == fork_of[:, None, :]
    same_branch = branch_of[:, :, None] == branch_of[:, None, :]
    past = np.tri(fork_of.shape[1], dtype=np.bool_)
    seen: np.ndarray = past & same_fork & (same_branch | (branch_of == 0)[:, None, :])
    return seen


def _batch(
    tokens: np.ndarray,
    mask: np.ndarray | None,
    position: np.ndarray | None,
    predict: list[np.ndarray],
    targets: list[np.ndarray],
    owner: list[np.ndarray],
    continuations: int,
) -> Batch:
    def flat(parts: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64))

    return Batch(
        torch.from_numpy(tokens),
        None if mask is None else torch.from_numpy(mask[:, None]),
        None if mask is None or position is None else torch.from_numpy(position),
        flat(predict),
        flat(targets),
        flat(owner),
        continuations,
    )
