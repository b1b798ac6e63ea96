"""Token budget of a micro-batch: as many tokens per forward as help, and as memory allows.

Activation memory between forward and backward grows with the tokens. It is measured on a small
batch of the run's own examples, and the budget is what fits into half of the memory that is free;
the other half is for what comes and goes in between. Where not even the longest example fits, the
layers are recomputed in the backward pass (gradient checkpointing).
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from zephyr.model.batching import collate, pack_batches
from zephyr.model.example import Example
from zephyr.model.model import Model
from zephyr.system.memory import free_memory

USEFUL_LIMITS = {"cpu": (4096, 1 << 29), "cuda": (32768, 1 << 62)}
"""Tokens, and bytes kept by them, beyond which a forward gains nothing: on a processor, what does
not fit its caches is as quick in parts."""

PROBE_TOKENS = 512
MEMORY_SHARE = 0.5


class Budget(NamedTuple):
    """Token budget of a forward, activation bytes per token, and gradient checkpointing or not."""

    tokens: int
    bytes_per_token: int
    checkpointing: bool


def choose_budget(
    model: Model, examples: Sequence[Example], memory_shares: int, fixed_tokens: int | None
) -> Budget:
    """The token budget of a training that may have one of `memory_shares` equal parts of memory.

    With `fixed_tokens`, these are the tokens of a forward. The network must be ready for
    training: its dtype and its trainable weights count.
    """
    longest_tokens = max(_padded_tokens(f, model) for f in examples)
    available_bytes = int(MEMORY_SHARE * _free_bytes(model.device) / memory_shares)
    bytes_per_token = _bytes_per_token(model, examples)
    checkpointing = longest_tokens * bytes_per_token > available_bytes and _supports_checkpointing(
        model
    )
    if checkpointing:
        enable_gradient_checkpointing(model)
        bytes_per_token = _bytes_per_token(model, examples)
    max_tokens, max_bytes = USEFUL_LIMITS[model.device.type]
    tokens = max(
        longest_tokens, min(max_tokens, min(available_bytes, max_bytes) // bytes_per_token)
    )
    return Budget(fixed_tokens or tokens, bytes_per_token, checkpointing)


def enable_gradient_checkpointing(model: Model) -> None:
    """Turns on gradient checkpointing: layers keep only their inputs and are recomputed."""
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
    """Activation bytes per token kept for the backward pass, weights not counted.

    Each storage counts once. What a layer keeps while it is recomputed is not in it.
    """
    longer_half = sorted(examples, key=lambda f: _padded_tokens(f, model))[len(examples) // 2 :]
    probe = longer_half[: max(1, PROBE_TOKENS // _padded_tokens(longer_half[0], model))]
    indices = next(pack_batches(probe, PROBE_TOKENS, model.layout))
    batch = collate([probe[i] for i in indices], model.layout).to(model.device)
    weights = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
    saved_storages: dict[int, torch.UntypedStorage] = {}

    def save_storage(tensor: torch.Tensor) -> None:
        """Holds the storage, for its address to stay its own, but gives the graph nothing to hold:
        one that holds its own outputs is never freed."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved_storages[storage.data_ptr()] = storage

    training = model.network.training
    model.network.train()
    devices: list[Any] = [model.device] if model.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.autograd.graph.saved_tensors_hooks(save_storage, lambda nothing: nothing),
    ):
        model.network(batch)
    model.network.train(training)
    return max(
        1,
        sum(s.nbytes() for s in saved_storages.values())
        // sum(_padded_tokens(probe[i], model) for i in indices),
    )


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
