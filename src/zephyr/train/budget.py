"""Token budget of a micro-batch, from measured activation memory; gradient checkpointing.

A micro-batch has as many tokens as are useful and as memory allows. Activation memory between
forward and backward grows with the tokens. It is measured on a small batch of the run's own
examples, and the budget is what fits into half of the free memory; the other half is for temporary
tensors. Where not even the longest example fits, the layers are recomputed in the backward pass
(gradient checkpointing).
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch

from zephyr.model.batching import collate, pack_batches
from zephyr.model.example import Example
from zephyr.model.model import Model
from zephyr.system.devices import DEVICE_KINDS, fork_rng, free_device_memory

PROBE_TOKENS = 512
"""Tokens of the micro-batch on which activation memory is measured."""
MEMORY_SHARE = 0.5
"""Share of the free memory that activations may take."""


class TokenBudget(NamedTuple):
    """Token budget: tokens of a micro-batch, activation bytes per token, gradient checkpointing."""

    tokens: int
    bytes_per_token: int
    checkpointing: bool


def choose_token_budget(
    model: Model, examples: Sequence[Example], memory_shares: int, fixed_tokens: int | None
) -> TokenBudget:
    """Chooses the token budget of a training that has one of `memory_shares` parts of memory.

    With `fixed_tokens` that many tokens are used. The network must be ready for training: its dtype
    and its trainable weights count.
    """
    longest_tokens = max(_padded_tokens(e, model) for e in examples)
    available_bytes = int(MEMORY_SHARE * free_device_memory(model.device) / memory_shares)
    bytes_per_token = _bytes_per_token(model, examples)
    checkpointing = longest_tokens * bytes_per_token > available_bytes and _supports_checkpointing(
        model
    )
    if checkpointing:
        enable_gradient_checkpointing(model)
        bytes_per_token = _bytes_per_token(model, examples)
    kind = DEVICE_KINDS[model.device.type]
    max_bytes = min(available_bytes, kind.useful_bytes)
    tokens = max(longest_tokens, min(kind.useful_tokens, max_bytes // bytes_per_token))
    return TokenBudget(fixed_tokens or tokens, bytes_per_token, checkpointing)


def enable_gradient_checkpointing(model: Model) -> None:
    """Enables gradient checkpointing: activations are recomputed in the backward pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers 5.24 has another name for it
        model.causal.gradient_checkpointing_enable({"use_reentrant": False})


def _supports_checkpointing(model: Model) -> bool:
    is_supported: bool = model.causal.supports_gradient_checkpointing
    return is_supported


def _padded_tokens(example: Example, model: Model) -> int:
    """Tokens that an example takes in the layout, padding included."""
    return (
        example.tree_length
        if model.layout == "tree"
        else example.max_sequence_length * len(example.completions)
    )


def _bytes_per_token(model: Model, examples: Sequence[Example]) -> int:
    """Measures activation bytes per token saved for the backward pass, weights not counted.

    Each storage counts once. What a layer holds while it is recomputed is not included.
    """
    longer_half = sorted(examples, key=lambda e: _padded_tokens(e, model))[len(examples) // 2 :]
    probe = longer_half[: max(1, PROBE_TOKENS // _padded_tokens(longer_half[0], model))]
    indices = next(pack_batches(probe, PROBE_TOKENS, model.layout))
    batch = collate([probe[i] for i in indices], model.layout).to(model.device)
    weights = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
    saved_storages: dict[int, torch.UntypedStorage] = {}

    def save_storage(tensor: torch.Tensor) -> None:
        """Keeps the storage, so that its address is not reused, and gives the autograd graph None:
        a graph that holds its own outputs is never freed."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved_storages[storage.data_ptr()] = storage

    training = model.network.training
    model.network.train()
    with (
        fork_rng(model.device),
        torch.autograd.graph.saved_tensors_hooks(save_storage, lambda nothing: nothing),
    ):
        model.network(batch)
    model.network.train(training)
    return max(
        1,
        sum(s.nbytes() for s in saved_storages.values())
        // sum(_padded_tokens(probe[i], model) for i in indices),
    )
