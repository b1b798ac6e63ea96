"""Packs and collates examples into batches, in the layout `tree` or `rows`.

In `rows` each completion has a padded row of its own, after a copy of its prompt. In `tree`
(sequence packing) a prompt stands once, its completions follow as branches that can't attend to
each other, and several examples share a row; an attention mask [B, 1, T, T] and position ids make
every token attend to just its own past. Neither changes a log-probability beyond rounding; `tree`
needs a network that honours such a mask (see `Model`, which probes it).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from zephyr.model.example import Example

Layout = Literal["tree", "rows"]
"""Batch layout: `tree` packs examples and shares prompts, `rows` pads one row per completion."""

PACKING_WINDOW = 512
"""Examples among which first-fit packing chooses: enough to fill rows, few enough to be fast."""


class Batch(NamedTuple):
    """A collated batch: T tokens in B rows, and the N loss-mask tokens to be predicted.

    `completion_index` numbers the completions through all examples of the batch, in order.
    """

    input_ids: torch.Tensor
    """[B, T] int64; padding is zeros, to which nothing attends. The last token of a completion is
    left out: it is predicted, and predicts nothing."""
    attention_mask: torch.Tensor | None
    """[B, 1, T, T] bool, True where a query (third) may attend to a key (fourth); None: causal."""
    position_ids: torch.Tensor | None
    """[B, T] int64; None: counted from 0 in each row."""
    hidden_index: torch.Tensor
    """[N] index into the B x T hidden states from which each token is predicted."""
    targets: torch.Tensor
    """[N] the ids of the predicted tokens."""
    completion_index: torch.Tensor
    """[N] the index of the completion to which each predicted token belongs."""
    num_completions: int
    """How many completions the examples hold in all."""

    def to(self, device: torch.device) -> "Batch":
        """The batch with all its tensors on `device`."""

        def move(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device)

        return self._replace(
            input_ids=self.input_ids.to(device),
            attention_mask=move(self.attention_mask),
            position_ids=move(self.position_ids),
            hidden_index=self.hidden_index.to(device),
            targets=self.targets.to(device),
            completion_index=self.completion_index.to(device),
        )


def pack_batches(
    examples: Sequence[Example], token_budget: int, layout: Layout
) -> Iterator[list[int]]:
    """Packs examples into batches of at most `token_budget` tokens, padding too; yields indices.

    Examples are sorted by length. One that alone exceeds the budget is a batch of its own.
    """
    lengths = [e.tree_length if layout == "tree" else e.max_sequence_length for e in examples]
    order = sorted(range(len(examples)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), PACKING_WINDOW):
        remaining = order[start : start + PACKING_WINDOW]
        while remaining:
            selected, remaining = _first_fit(examples, remaining, lengths, token_budget, layout)
            yield selected


def _first_fit(
    examples: Sequence[Example],
    order: list[int],
    lengths: list[int],
    token_budget: int,
    layout: Layout,
) -> tuple[list[int], list[int]]:
    """Fills one batch by first fit: the examples in it, and those that remain."""
    width = lengths[order[0]]
    max_rows = max(1, token_budget // width)
    selected: list[int] = []
    remaining: list[int] = []
    if layout == "rows":
        used_rows = 0
        for i in order:
            rows = len(examples[i].completions)
            fits = not selected or used_rows + rows <= max_rows
            (selected if fits and not remaining else remaining).append(i)
            used_rows += rows
        return selected, remaining
    free_tokens: list[int] = []
    for i in order:
        row = next((r for r, free in enumerate(free_tokens) if free >= lengths[i]), None)
        if row is not None:
            free_tokens[row] -= lengths[i]
        elif len(free_tokens) < max_rows:
            free_tokens.append(width - lengths[i])
        else:
            remaining.append(i)
            continue
        selected.append(i)
    return selected, remaining


def collate(examples: Sequence[Example], layout: Layout, *, one_row: bool = False) -> Batch:
    """Collates examples into one batch; with `one_row`, a tree's examples share a single row."""
    if layout == "rows":
        return _collate_rows(examples)
    lengths = [e.tree_length for e in examples]
    return _collate_tree(examples, sum(lengths) if one_row else max(lengths))


def _collate_rows(examples: Sequence[Example]) -> Batch:
    """The `rows` layout: each completion in a row [T] of its own, after a copy of its prompt."""
    rows = [(e.prompt, c) for e in examples for c in e.completions]
    width = max(len(prompt) + len(c.ids) - 1 for prompt, c in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    hidden_index, targets, completion_index = [], [], []
    for row, (prompt, c) in enumerate(rows):
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : len(prompt) + len(c.ids) - 1] = c.ids[:-1]
        loss_positions = np.flatnonzero(c.loss_mask)
        hidden_index.append(row * width + len(prompt) - 1 + loss_positions)
        targets.append(c.ids[loss_positions])
        completion_index.append(np.full(len(loss_positions), row))
    return _to_batch(tokens, None, None, hidden_index, targets, completion_index, len(rows))


def _collate_tree(examples: Sequence[Example], width: int) -> Batch:
    """The `tree` layout: several examples in a row, completions as branches after one prompt."""
    rows: list[list[int]] = []
    free_tokens: list[int] = []
    for i in sorted(range(len(examples)), key=lambda i: (-examples[i].tree_length, i)):
        row = next(
            (r for r, free in enumerate(free_tokens) if free >= examples[i].tree_length), None
        )
        if row is None:
            rows.append([])
            free_tokens.append(width)
            row = len(rows) - 1
        rows[row].append(i)
        free_tokens[row] -= examples[i].tree_length

    first_completion = np.cumsum([0, *(len(e.completions) for e in examples)])
    shape = (len(rows), width)
    tokens, position = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    example_of, branch_of = np.full(shape, -1), np.zeros(shape, dtype=np.int64)
    hidden_index, targets, completion_index = [], [], []
    for row, members in enumerate(rows):
        offset = 0
        for i in members:
            prompt = examples[i].prompt
            prompt_end = offset + len(prompt)
            tokens[row, offset:prompt_end] = prompt
            position[row, offset:prompt_end] = np.arange(len(prompt))
            example_of[row, offset : offset + examples[i].tree_length] = i
            offset = prompt_end
            for branch, c in enumerate(examples[i].completions):
                end = offset + len(c.ids) - 1
                tokens[row, offset:end] = c.ids[:-1]
                position[row, offset:end] = len(prompt) + np.arange(end - offset)
                branch_of[row, offset:end] = branch + 1
                source_positions = np.concatenate([[prompt_end - 1], np.arange(offset, end)])
                loss_positions = np.flatnonzero(c.loss_mask)
                hidden_index.append(row * width + source_positions[loss_positions])
                targets.append(c.ids[loss_positions])
                completion_index.append(np.full(len(loss_positions), first_completion[i] + branch))
                offset = end
    mask = _tree_attention_mask(example_of, branch_of)
    return _to_batch(
        tokens, mask, position, hidden_index, targets, completion_index, int(first_completion[-1])
    )


def _tree_attention_mask(example_of: np.ndarray, branch_of: np.ndarray) -> np.ndarray | None:
    """The block-sparse attention mask [B, T, T] of `tree` rows; None where causal is the same."""
    used = example_of >= 0
    is_one_example_per_row = (
        np.where(used, example_of, example_of[:, :1]) == example_of[:, :1]
    ).all()
    if is_one_example_per_row and branch_of.max() <= 1:
        return None
    same_example = example_of[:, :, None] == example_of[:, None, :]
    same_branch = branch_of[:, :, None] == branch_of[:, None, :]
    past = np.tri(example_of.shape[1], dtype=np.bool_)
    visible: np.ndarray = past & same_example & (same_branch | (branch_of == 0)[:, None, :])
    return visible


def _to_batch(
    tokens: np.ndarray,
    attention_mask: np.ndarray | None,
    position: np.ndarray | None,
    hidden_index: list[np.ndarray],
    targets: list[np.ndarray],
    completion_index: list[np.ndarray],
    num_completions: int,
) -> Batch:
    """Makes the `Batch` of arrays: tokens and positions [B, T], mask [B, T, T], the others [N]."""

    def concatenate(arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(np.int64))

    return Batch(
        torch.from_numpy(tokens),
        None if attention_mask is None else torch.from_numpy(attention_mask[:, None]),
        None if attention_mask is None or position is None else torch.from_numpy(position),
        concatenate(hidden_index),
        concatenate(targets),
        concatenate(completion_index),
        num_completions,
    )
