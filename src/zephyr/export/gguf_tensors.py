"""GGUF tensors and metadata of a network: names, order of weights, and architecture keys.

Names are those of gguf's tensor name map. The order differs from transformers: in GGUF, Llama's
query and key rows are permuted for RoPE (pairs side by side, not half a head apart); BLOOM's fused
projection has all queries, all keys, all values (not the three of each head together); GPT-2's
Conv1D weights are transposed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zephyr.errors import ZephyrError

Weights = NDArray[np.float32]


class _Architecture(NamedTuple):
    """An architecture in GGUF: its name, its metadata, and the order of its weights.

    `required_settings`: config settings that llama.cpp assumes, each with the allowed values.
    """

    name: str
    write_metadata: Callable[[Any, Any], None]
    reorder_weights: Callable[[str, Weights, Any], Weights]
    required_settings: Mapping[str, tuple[Any, ...]]


def find_architecture(config: Any) -> _Architecture:
    """Finds the GGUF architecture of a network from its config.

    Raises:
        ZephyrError: it is not supported, or has a setting that llama.cpp does not support.
    """
    architecture = _ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise ZephyrError(
            "this architecture can't be written as GGUF here",
            found=config.model_type,
            allowed=sorted(_ARCHITECTURES),
            todo="export it with --to merged",
        )
    settings = config.to_dict() | {
        "rope_type": _rope_parameters(config).get("rope_type", "default")
    }
    for key, values in architecture.required_settings.items():
        if settings.get(key, values[0]) not in values:
            raise ZephyrError(
                "llama.cpp does not compute this network as transformers does",
                found=f"{key}: {settings[key]}",
                allowed=", ".join(map(str, values)),
                todo="export it with --to merged",
            )
    return architecture


def named_tensors(causal: Any) -> Iterator[tuple[str, Weights]]:
    """All tensors of a network under their GGUF names, in GGUF order; a tied head only once."""
    import gguf

    config = causal.config
    architecture = find_architecture(config)
    names = gguf.get_tensor_name_map(
        next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture.name),
        config.num_hidden_layers,
    )
    head = causal.get_output_embeddings().weight
    is_tied = head is causal.get_input_embeddings().weight
    for name, parameter in causal.named_parameters(remove_duplicate=False):
        if is_tied and parameter is head and name.startswith("lm_head"):
            continue
        found = names.get_name(
            name.removeprefix("transformer."), try_suffixes=(".weight", ".bias")
        ) or names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, f"{name} has no name in gguf"
        value = parameter.detach().to("cpu", torch.float32).numpy()
        yield found, np.ascontiguousarray(architecture.reorder_weights(name, value, config))


def _rope_parameters(config: Any) -> dict[str, Any]:
    return getattr(config, "rope_parameters", None) or {}


# -- architectures --------------------------------------------------------------------------------


def _write_rotary_metadata(writer: Any, config: Any) -> None:
    """Writes the metadata of a network with RoPE and gated MLPs (Llama, Qwen2)."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(_rope_parameters(config).get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write_gpt2_metadata(writer: Any, config: Any) -> None:
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _write_bloom_metadata(writer: Any, config: Any) -> None:
    writer.add_context_length(getattr(config, "seq_length", 2048))  # ALiBi has no position table
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.hidden_size)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _keep_order(name: str, value: Weights, config: Any) -> Weights:
    return value


def _reorder_llama(name: str, value: Weights, config: Any) -> Weights:
    """Permutes query and key rows for RoPE: 0, n/2, 1, n/2 + 1, … instead of 0, 1, 2, …"""
    if ".q_proj." in name:
        heads = config.num_attention_heads
    elif ".k_proj." in name:
        heads = config.num_key_value_heads
    else:
        return value
    halves = value.reshape(heads, 2, -1, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape)


def _reorder_bloom(name: str, value: Weights, config: Any) -> Weights:
    """Reorders [head, (q, k, v), width] to [(q, k, v), head, width]."""
    if ".query_key_value." not in name:
        return value
    heads = value.reshape(config.n_head, 3, -1, *value.shape[1:])
    return heads.swapaxes(0, 1).reshape(value.shape)


def _reorder_gpt2(name: str, value: Weights, config: Any) -> Weights:
    is_transposed = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    return value.T if is_transposed else value


_ROTARY_SETTINGS = {"hidden_act": ("silu",), "rope_type": ("default",)}
_ARCHITECTURES = {
    "llama": _Architecture("llama", _write_rotary_metadata, _reorder_llama, _ROTARY_SETTINGS),
    "qwen2": _Architecture(
        "qwen2",
        _write_rotary_metadata,
        _keep_order,
        _ROTARY_SETTINGS | {"use_sliding_window": (False,)},
    ),
    "gpt2": _Architecture(
        "gpt2",
        _write_gpt2_metadata,
        _reorder_gpt2,
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
        },
    ),
    "bloom": _Architecture(
        "bloom",
        _write_bloom_metadata,
        _reorder_bloom,
        {"apply_residual_connection_post_layernorm": (False,)},
    ),
}
