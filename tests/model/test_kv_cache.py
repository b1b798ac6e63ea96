"""A preallocated KV cache, written in place, holds what one that copies would."""

import random

import torch

from zephyr.model.kv_cache import PreallocatedLayer


def random_states(rows: int, columns: int) -> torch.Tensor:
    return torch.rand(rows, 2, columns, 4)


def filled_layer(rows: int, columns: int) -> PreallocatedLayer:
    layer = PreallocatedLayer()
    layer.update(random_states(rows, columns), random_states(rows, columns))
    return layer


def test_a_wide_row_joins_where_columns_have_been_left_behind() -> None:
    layer = filled_layer(1, 40)
    layer.keep_last_columns(10)
    kept = layer.keys.clone()
    other = filled_layer(1, 30)  # more than are kept, fewer than were written
    layer.append_rows(other)
    assert torch.equal(layer.keys[0, :, -10:], kept[0])
    assert torch.equal(layer.keys[1, :, -30:], other.keys[0])


def test_rows_keep_their_columns_whatever_comes_and_goes() -> None:
    """Columns are left behind as they are by a batch: all that its longest row does not need."""
    rng = random.Random(0)
    for _ in range(50):
        layer = filled_layer(1, rng.randrange(1, 100))
        rows = [layer.keys[0].clone()]
        for _ in range(60):
            action = rng.random()
            if action < 0.2 and len(rows) < 8:
                other = filled_layer(1, rng.randrange(1, 100))
                layer.append_rows(other)
                rows.append(other.keys[0].clone())
            elif action < 0.35 and len(rows) > 1:
                at = rng.randrange(len(rows))
                layer.remove_row(at)
                last = rows.pop()
                if at < len(rows):
                    rows[at] = last
            else:
                layer.keep_last_columns(max(row.shape[1] for row in rows))
                new = random_states(len(rows), 1)
                layer.update(new, new)
                rows = [torch.cat([row, one], dim=1) for row, one in zip(rows, new, strict=True)]
            for at, row in enumerate(rows):
                assert torch.equal(layer.keys[at, :, -row.shape[1] :], row)
