"""A preallocated KV cache that is written in place.

transformers' own copies all keys and values at every token. Here they are views of larger storage:
a token is written behind the last column, new rows are appended, a removed row is replaced by the
last one, and columns that are padding in all rows are dropped. Only full storage is reallocated.
"""

import inspect
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


def forward_parameters(causal: Any) -> Collection[str]:
    """The names of the parameters of a network's `forward`."""
    return inspect.signature(causal.base_model.forward).parameters


def cache_argument_name(causal: Any) -> str:
    """The keyword of `forward` that takes the KV cache; transformers changed it with 5.24."""
    return "cache" if "cache" in forward_parameters(causal) else "past_key_values"


SPARE_COLUMNS = 64
"""Columns (tokens) that storage is allocated beyond those in use."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """Keys and values [B, heads, T, head_dim] of one layer, as views of larger storage.

    What lies outside the views is zero or stale, and always finite: a mask may cover it.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.storage = [
            _allocate(key_states, SPARE_COLUMNS),
            _allocate(value_states, SPARE_COLUMNS),
        ]
        self.rows, self.begin, self.end = len(key_states), 0, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends keys and values [B, heads, T, head_dim] of new tokens, and returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.end + key_states.shape[2]
        if end > self.storage[0].shape[2]:
            self._reallocate(len(self.storage[0]), 0, end - self.end + SPARE_COLUMNS)
            end = self.end + key_states.shape[2]
        for tensor, states in zip(self.storage, (key_states, value_states), strict=True):
            tensor[: self.rows, :, self.end : end] = states
        self.end = end
        self._update_views()
        return self.keys, self.values

    def append_rows(self, other: "PreallocatedLayer") -> None:
        """Appends the rows of `other` to the batch, aligned at the last column."""
        rows, width = self.rows + other.rows, other.end - other.begin
        if rows > len(self.storage[0]) or width > self.end:
            columns_before = max(0, width - (self.end - self.begin))
            self._reallocate(max(rows, len(self.storage[0])), columns_before, SPARE_COLUMNS)
        self.begin = min(self.begin, self.end - width)
        for tensor, states in zip(self.storage, (other.keys, other.values), strict=True):
            tensor[self.rows : rows, :, self.end - width : self.end] = states
        self.rows = rows
        self._update_views()

    def remove_row(self, row: int) -> None:
        """Removes a row from the batch: the last one takes its place."""
        self.rows -= 1
        for tensor in self.storage:
            tensor[row, :, self.begin : self.end] = tensor[self.rows, :, self.begin : self.end]
        self._update_views()

    def keep_last_columns(self, width: int) -> None:
        """Drops all but the last `width` columns (tokens)."""
        self.begin = self.end - width
        self._update_views()

    def _reallocate(self, rows: int, columns_before: int, columns_after: int) -> None:
        """Moves to storage of `rows` rows, with more columns before and after those in use."""
        width = self.end - self.begin
        for index, tensor in enumerate(self.storage):
            shape = (rows, tensor.shape[1], columns_before + width + columns_after, tensor.shape[3])
            larger = tensor.new_zeros(shape)
            larger[: self.rows, :, columns_before : columns_before + width] = self._used_view(
                tensor
            )
            self.storage[index] = larger
        self.begin, self.end = columns_before, columns_before + width

    def _update_views(self) -> None:
        self.keys, self.values = map(self._used_view, self.storage)

    def _used_view(self, tensor: Tensor) -> Tensor:
        return tensor[: self.rows, :, self.begin : self.end]


class PreallocatedCache(Cache):  # type: ignore[misc]  # transformers ships no types
    """A KV cache: one `PreallocatedLayer` for each layer, made as they are first used."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=PreallocatedLayer)

    def append_rows(self, other: "PreallocatedCache") -> None:
        """Appends the rows of another cache to the batch, in every layer."""
        for own_layer, other_layer in zip(self.layers, other.layers, strict=True):
            own_layer.append_rows(other_layer)

    def remove_row(self, row: int) -> None:
        """Removes a row from the batch: the last one takes its place."""
        for layer in self.layers:
            layer.remove_row(row)

    def keep_last_columns(self, width: int) -> None:
        """Drops all but the last `width` columns (tokens), in every layer."""
        for layer in self.layers:
            layer.keep_last_columns(width)


def _allocate(states: Tensor, spare_columns: int) -> Tensor:
    """Zeroed storage for `states` [B, heads, T, head_dim], with spare columns."""
    rows, heads, columns, width = states.shape
    return torch.zeros(
        (rows, heads, columns + spare_columns, width), dtype=states.dtype, device=states.device
    )
