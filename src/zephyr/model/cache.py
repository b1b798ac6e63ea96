"""A key-value cache that is written in place.

transformers' own copies all keys and values at every token. Here they lie in a larger room: a token
is written behind the last column, a prompt that joins gets free rows, a row that leaves is replaced
by the last one, and columns that nobody sees any more are left behind. Only a full room is copied.
"""

import inspect
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


def takes(causal: Any) -> Collection[str]:
    """The names of what the layers of a network can be given."""
    return inspect.signature(causal.base_model.forward).parameters


def memory(causal: Any) -> str:
    """The name by which a network is given a cache; transformers changed it with 5.24."""
    return "cache" if "cache" in takes(causal) else "past_key_values"


BLOCK = 64
"""Columns by which a room is larger than what it has to hold."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """Keys and values [rows, heads, columns, width] as views of a larger room.

    What lies outside the views is zero or stale, and always finite: a mask may cover it.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.rooms = [_room(key_states, BLOCK), _room(value_states, BLOCK)]
        self.rows, self.begin, self.end = len(key_states), 0, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes new columns, and gives all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.end + key_states.shape[2]
        if end > self.rooms[0].shape[2]:
            self._move(len(self.rooms[0]), 0, end - self.end + BLOCK)
            end = self.end + key_states.shape[2]
        for room, states in zip(self.rooms, (key_states, value_states), strict=True):
            room[: self.rows, :, self.end : end] = states
        self.end = end
        self._look()
        return self.keys, self.values

    def join(self, other: "RoomyLayer") -> None:
        """Adds the rows of `other`, whose last columns are put below these last columns."""
        rows, width = self.rows + other.rows, other.end - other.begin
        if rows > len(self.rooms[0]) or width > self.end:
            before = max(0, width - (self.end - self.begin))
            self._move(max(rows, len(self.rooms[0])), before, BLOCK)
        self.begin = min(self.begin, self.end - width)
        for room, states in zip(self.rooms, (other.keys, other.values), strict=True):
            room[self.rows : rows, :, self.end - width : self.end] = states
        self.rows = rows
        self._look()

    def leave(self, row: int) -> None:
        """Drops a row: the last one takes its place."""
        self.rows -= 1
        for room in self.rooms:
            room[row, :, self.begin : self.end] = room[self.rows, :, self.begin : self.end]
        self._look()

    def keep_columns(self, width: int) -> None:
        """Leaves all but the last `width` columns behind."""
        self.begin = self.end - width
        self._look()

    def _move(self, rows: int, before: int, after: int) -> None:
        """To a room of `rows` rows, with so many more columns before and after those in use."""
        width = self.end - self.begin
        for at, room in enumerate(self.rooms):
            shape = (rows, room.shape[1], before + width + after, room.shape[3])
            larger = room.new_zeros(shape)
            larger[: self.rows, :, before : before + width] = self._seen(room)
            self.rooms[at] = larger
        self.begin, self.end = before, before + width

    def _look(self) -> None:
        self.keys, self.values = map(self._seen, self.rooms)

    def _seen(self, room: Tensor) -> Tensor:
        return room[: self.rows, :, self.begin : self.end]


class RoomyCache(Cache):  # type: ignore[misc]  # transformers ships no types
    """A `RoomyLayer` for each layer of a network, made as they are first used."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=RoomyLayer)

    def join(self, other: "RoomyCache") -> None:
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs)

    def leave(self, row: int) -> None:
        for layer in self.layers:
            layer.leave(row)

    def keep_columns(self, width: int) -> None:
        for layer in self.layers:
            layer.keep_columns(width)


def _room(states: Tensor, spare: int) -> Tensor:
    rows, heads, columns, width = states.shape
    return torch.zeros(
        (rows, heads, columns + spare, width), dtype=states.dtype, device=states.device
    )
