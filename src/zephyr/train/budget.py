"""How many tokens go into one forward: as many as help, and as memory allows.

What a training keeps between forward and backward grows with its tokens. It is counted on a small
batch of the run's own examples, and the budget is what fits into half of the memory that is free;
the other half is for what comes and goes in between. Where not even the longest example fits, the
layers are computed twice and keep little (gradient checkpointing).
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from zephyr.model.fork import Fork
from zephyr.model.layout import lay_out, pack
from zephyr.model.model import Model
from zephyr.system.memory import free_memory

USEFUL = {"cpu": (4096, 1 << 29), "cuda": (32768, 1 << 62)}
"""Tokens, and bytes kept by them, beyond which a forward gains nothing: on a processor, what does
not fit its caches is as quick in parts."""

PROBE_TOKENS = 512
SHARE = 0.5


class Budget(NamedTuple):
    """Tokens of one forward, the bytes that each keeps, and whether layers are computed twice."""

    tokens: int
    bytes_per_token: int
    checkpointing: bool


def choose(model: Model, forks: Sequence[Fork], shares: int, fixed: int | None) -> Budget:
    """The budget of a training that may have one of `shares` equal parts of the memory.

    With `fixed`, these are the tokens of a forward. The network must be ready for training: its
    dtype and its trainable weights count.
    """
    longest = max(_width(f, model) for f in forks)
    room = int(SHARE * _free(model.device) / shares)
    kept = _bytes_per_token(model, forks)
    checkpointing = longest * kept > room and _can_checkpoint(model)
    if checkpointing:
        checkpoint_layers(model)
        kept = _bytes_per_token(model, forks)
    most, bytes_of_most = USEFUL[model.device.type]
    tokens = max(longest, min(most, min(room, bytes_of_most) // kept))
    return Budget(fixed or tokens, kept, checkpointing)


def checkpoint_layers(model: Model) -> None:
    """Lets every layer keep its inputs alone while training, and compute the rest again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers 5.24 has another name for it
        model.causal.gradient_checkpointing_enable({"use_reentrant": False})


def _can_checkpoint(model: Model) -> bool:
    able: bool = model.causal.supports_gradient_checkpointing
    return able


def _width(fork: Fork, model: Model) -> int:
    return fork.length if model.layout == "tree" else fork.longest * len(fork.continuations)


def _bytes_per_token(model: Model, forks: Sequence[Fork]) -> int:
    """What is kept for the backward pass, counted once for each storage, and without the weights.

    What a layer keeps for a moment while it is computed again is not in it.
    """
    middle = sorted(forks, key=lambda f: _width(f, model))[len(forks) // 2 :]
    few = middle[: max(1, PROBE_TOKENS // _width(middle[0], model))]
    members = next(pack(few, PROBE_TOKENS, model.layout))
    batch = lay_out([few[i] for i in members], model.layout).to(model.device)
    weights = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> None:
        """Holds the storage, for its address to stay its own, but gives the graph nothing to hold:
        one that holds its own outputs is never freed."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage

    training = model.network.training
    model.network.train()
    devices: list[Any] = [model.device] if model.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.autograd.graph.saved_tensors_hooks(note, lambda nothing: nothing),
    ):
        model.network(batch)
    model.network.train(training)
    return max(
        1, sum(s.nbytes() for s in kept.values()) // sum(_width(few[i], model) for i in members)
    )


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
