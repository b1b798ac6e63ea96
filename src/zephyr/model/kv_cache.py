"""A preallocated KV cache that is written in place, and the states of recurrent layers.

transformers' own copies all keys and values at every token. Here they are views of larger storage:
a token is written behind the last column, new rows are appended, a removed row is replaced by the
last one, and columns that are padding in all rows are dropped. Only full storage is reallocated.

Convolutions, state spaces (Mamba) and linear attention keep states of a fixed size instead of one
column for each token: of these only rows come and go.
"""

import inspect
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from zephyr.errors import ZephyrError


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


class RecurrentLayer(LinearAttentionLayer):  # type: ignore[misc]  # transformers ships no types
    """Convolution and recurrent states [B, ...] of one layer, by the number of the state."""

    def append_rows(self, other: "RecurrentLayer") -> None:
        """Appends the rows of `other` to the batch."""
        for own_states, new_states in (
            (self.conv_states, other.conv_states),
            (self.recurrent_states, other.recurrent_states),
        ):
            for number, state in new_states.items():
                if state is not None:
                    own_states[number] = torch.cat([own_states[number], state])

    def remove_row(self, row: int) -> None:
        """Removes a row from the batch: the last one takes its place."""
        for states in (self.conv_states, self.recurrent_states):
            for number, state in states.items():
                if state is not None:
                    state[row] = state[-1]
                    states[number] = state[:-1]

    def keep_last_columns(self, width: int) -> None:
        """Does nothing: states have no columns."""


class HybridLayer(RecurrentLayer, PreallocatedLayer):
    """A layer with attention and a recurrent part side by side (Falcon-H1)."""

    is_compileable = False

    def __init__(self, number_of_states: int = 1) -> None:
        PreallocatedLayer.__init__(self)
        LinearAttentionLayer.__init__(self, number_of_states=number_of_states)

    def lazy_initialization(self, *keys_and_values: Tensor, **states: Any) -> None:
        """transformers calls it with keys and values, or with states by name."""
        if keys_and_values:
            PreallocatedLayer.lazy_initialization(self, *keys_and_values)
        else:
            RecurrentLayer.lazy_initialization(self, **states)

    def append_rows(self, other: "HybridLayer") -> None:
        """Appends the rows of `other` to the batch."""
        PreallocatedLayer.append_rows(self, other)
        RecurrentLayer.append_rows(self, other)

    def remove_row(self, row: int) -> None:
        """Removes a row from the batch: the last one takes its place."""
        PreallocatedLayer.remove_row(self, row)
        RecurrentLayer.remove_row(self, row)

    def keep_last_columns(self, width: int) -> None:
        """Drops all but the last `width` columns (tokens) of the attention."""
        PreallocatedLayer.keep_last_columns(self, width)


class PreallocatedCache(Cache):  # type: ignore[misc]  # transformers ships no types
    """A cache with one `PreallocatedLayer`, `RecurrentLayer` or `HybridLayer` for each layer."""

    def __init__(self, config: Any) -> None:
        """A cache for the layers that the config of a causal LM tells of.

        Raises:
            ZephyrError: a layer keeps something else than keys, values and states.
        """
        super().__init__(layers=[_make_layer(layer) for layer in _config_layers(config)])

    def append_rows(self, other: "PreallocatedCache") -> None:
        """Appends the rows of another cache to the batch, in every layer."""
        for own_layer, other_layer in zip(self._layers_in_use, other._layers_in_use, strict=True):
            own_layer.append_rows(other_layer)

    def remove_row(self, row: int) -> None:
        """Removes a row from the batch: the last one takes its place."""
        for layer in self._layers_in_use:
            layer.remove_row(row)

    def keep_last_columns(self, width: int) -> None:
        """Drops all but the last `width` columns (tokens), in every layer."""
        for layer in self._layers_in_use:
            layer.keep_last_columns(width)

    @property
    def _layers_in_use(self) -> list[Any]:
        """Layers whose cache the network has written to: some share another's, or have none."""
        return [
            layer
            for layer in self.layers
            if isinstance(layer, RecurrentLayer)
            or (isinstance(layer, PreallocatedLayer) and layer.is_initialized)
        ]


def _config_layers(config: Any) -> list[Any]:
    """transformers' own cache layers for a config; what it has no layer for is refused."""
    try:
        return list(DynamicCache(config=config).layers)
    except KeyError as error:
        raise _unsupported_layer(str(error.args[0])) from error


_HYBRID_LAYERS = (
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
_DUMMY_LAYER = getattr(cache_utils, "DummyLayer", None)  # transformers 5.17 has none


def _make_layer(layer: Any) -> Any:
    """The cache layer to use in place of one of transformers'."""
    kind = type(layer)  # subclasses of other models keep more than their bases
    if kind in (DynamicLayer, DynamicSlidingWindowLayer):
        return PreallocatedLayer()
    if kind is LinearAttentionLayer:
        return RecurrentLayer(number_of_states=layer.number_of_states)
    if kind in _HYBRID_LAYERS:
        return HybridLayer(layer.number_of_states)
    if kind is _DUMMY_LAYER:
        return layer
    raise _unsupported_layer(kind.__name__)


def _unsupported_layer(kind: str) -> ZephyrError:
    return ZephyrError(
        "no text can be generated by this architecture here",
        found=f"layers of the kind {kind}, whose cache is not known",
        allowed="attention, convolution, state spaces, linear attention",
        todo="ask it tasks that are ranked, or use another base model",
    )


def _allocate(states: Tensor, spare_columns: int) -> Tensor:
    """Zeroed storage for `states` [B, heads, T, head_dim], with spare columns."""
    rows, heads, columns, width = states.shape
    return torch.zeros(
        (rows, heads, columns + spare_columns, width), dtype=states.dtype, device=states.device
    )
