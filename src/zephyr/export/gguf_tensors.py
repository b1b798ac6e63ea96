"""GGUF tensors of a network: gguf's names for its weights, in the order that llama.cpp expects.

Names are those of gguf's tensor name map; what a family of networks stores in another way than
llama.cpp (order, offset, weights in one matrix or in several) is in the table of families.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zephyr.errors import ZephyrError
from zephyr.export.gguf_families import find_family
from zephyr.export.gguf_rope import rope_factor_tensors

Weights = NDArray[np.float32]

_FLOAT32_PARTS = ("position_embd", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "ssm_a", "ssm_d")
"""Parts of names of matrices that llama.cpp computes with in float32 only."""


def stays_float32(tensor: str, value: Weights) -> bool:
    """Whether llama.cpp needs a tensor in float32: vectors, positions, routers, state space."""
    return value.ndim < 2 or any(part in tensor for part in _FLOAT32_PARTS)


def named_tensors(causal: Any) -> Iterator[tuple[str, Weights]]:
    """All tensors of a network under their GGUF names, in GGUF order; a tied head only once.

    Raises:
        ZephyrError: the network's family can't be written, or a weight has no name in gguf.
    """
    import gguf

    config = causal.config.get_text_config()
    family = find_family(config)
    names = gguf.get_tensor_name_map(
        next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == family.architecture),
        config.num_hidden_layers,
    )
    yield from rope_factor_tensors(config)
    for name, weights in _weights(causal):
        parts = [(name, weights)]
        for change in family.changes:
            parts = [part for old in parts for part in change(*old, config)]
        for part, value in parts:
            yield _gguf_name(names, part), np.ascontiguousarray(value, dtype=np.float32)


def _weights(causal: Any) -> Iterator[tuple[str, Weights]]:
    """Parameters and stored buffers of a network in float32; a tied head only once."""
    head = causal.get_output_embeddings().weight
    is_tied = head is causal.get_input_embeddings().weight
    stored = causal.state_dict(keep_vars=True)
    for name, tensor in stored.items():
        if is_tied and tensor is head and name.startswith(("lm_head", "embed_out")):
            continue
        yield name, tensor.detach().to("cpu", torch.float32).numpy()


def _gguf_name(names: Any, name: str) -> str:
    """gguf's name of a weight; one that a family's change has already named stays as it is."""
    if name.startswith(("blk.", "rope_")):
        return name
    for candidate in (name, name.removeprefix("transformer.")):
        found: str | None = names.get_name(candidate, try_suffixes=(".weight", ".bias"))
        if found is not None:
            return found
    raise ZephyrError(
        "a weight of this network has no name in GGUF",
        found=name,
        todo="export it with --to merged",
    )
