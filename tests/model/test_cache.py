"""A cache whose rooms are written in place holds what one that copies would."""

import random

import torch

from zephyr.model.cache import RoomyLayer


def states(rows: int, columns: int) -> torch.Tensor:
    return torch.rand(rows, 2, columns, 4)


def filled(rows: int, columns: int) -> RoomyLayer:
    layer = RoomyLayer()
    layer.update(states(rows, columns), states(rows, columns))
    return layer


def test_a_wide_row_joins_where_columns_have_been_left_behind() -> None:
    layer = filled(1, 40)
    layer.keep_columns(10)
    kept = layer.keys.clone()
    other = filled(1, 30)  # more than are kept, fewer than were written
    layer.join(other)
    assert torch.equal(layer.keys[0, :, -10:], kept[0])
    assert torch.equal(layer.keys[1, :, -30:], other.keys[0])


def test_rows_keep_their_columns_whatever_comes_and_goes() -> None:
    """Columns are left behind as they are by a batch: all that its longest row does not need."""
    draw = random.Random(0)
    for _ in range(50):
        layer = filled(1, draw.randrange(1, 100))
        rows = [layer.keys[0].clone()]
        for _ in range(60):
            what = draw.random()
            if what < 0.2 and len(rows) < 8:
                other = filled(1, draw.randrange(1, 100))
                layer.join(other)
                rows.append(other.keys[0].clone())
            elif what < 0.35 and len(rows) > 1:
                at = draw.randrange(len(rows))
                layer.leave(at)
                last = rows.pop()
                if at < len(rows):
                    rows[at] = last
            else:
                layer.keep_columns(max(row.shape[1] for row in rows))
                new = states(len(rows), 1)
                layer.update(new, new)
                rows = [torch.cat([row, one], dim=1) for row, one in zip(rows, new, strict=True)]
            for at, row in enumerate(rows):
                assert torch.equal(layer.keys[at, :, -row.shape[1] :], row)
