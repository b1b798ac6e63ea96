"""The weights and figures of a network as llama.cpp's files hold them.

Names are those of gguf's own map. What differs in order: Llama's queries and keys are stored there
with the two numbers that a rotation turns side by side, where transformers has them half a head
apart; BLOOM's fused projection is stored there as all queries, all keys, all values, where
transformers has the three of each head together; GPT-2's layers are stored the other way round.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zephyr.errors import ZephyrError

Weights = NDArray[np.float32]


class _Family(NamedTuple):
    """How an architecture is told: its name in gguf, its figures, and the order of its weights.

    `assumed` are settings that llama.cpp takes for granted, each with the values that agree.
    """

    architecture: str
    figures: Callable[[Any, Any], None]
    ordered: Callable[[str, Weights, Any], Weights]
    assumed: Mapping[str, tuple[Any, ...]]


def family_of(config: Any) -> _Family:
    """The architecture of a network, as llama.cpp computes it.

    Raises:
        ZephyrError: it is none of those known here, or has a setting that llama.cpp does not know.
    """
    family = _FAMILIES.get(config.model_type)
    if family is None:
        raise ZephyrError(
            "this architecture can't be written as GGUF here",
            found=config.model_type,
            allowed=sorted(_FAMILIES),
            todo="export it with --to merged",
        )
    facts = config.to_dict() | {"rope_type": _rope(config).get("rope_type", "default")}
    for key, values in family.assumed.items():
        if facts.get(key, values[0]) not in values:
            raise ZephyrError(
                "llama.cpp does not compute this network as transformers does",
                found=f"{key}: {facts[key]}",
                allowed=", ".join(map(str, values)),
                todo="export it with --to merged",
            )
    return family


def tensors(causal: Any) -> Iterator[tuple[str, Weights]]:
    """Every tensor of a network under llama.cpp's name, in its order; a tied head stands once."""
    import gguf

    config = causal.config
    family = family_of(config)
    names = gguf.get_tensor_name_map(
        next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == family.architecture),
        config.num_hidden_layers,
    )
    head = causal.get_output_embeddings().weight
    tied = head is causal.get_input_embeddings().weight
    for name, parameter in causal.named_parameters(remove_duplicate=False):
        if tied and parameter is head and name.startswith("lm_head"):
            continue
        found = names.get_name(
            name.removeprefix("transformer."), try_suffixes=(".weight", ".bias")
        ) or names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, f"{name} has no name in gguf"
        value = parameter.detach().to("cpu", torch.float32).numpy()
        yield found, np.ascontiguousarray(family.ordered(name, value, config))


def _rope(config: Any) -> dict[str, Any]:
    return getattr(config, "rope_parameters", None) or {}


# -- what each architecture is --------------------------------------------------------------------


def _rotary(writer: Any, config: Any) -> None:
    """The figures of a network with rotary positions and gated layers."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _gpt2_figures(writer: Any, config: Any) -> None:
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _bloom_figures(writer: Any, config: Any) -> None:
    writer.add_context_length(getattr(config, "seq_length", 2048))  # ALiBi has no table to ask
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.hidden_size)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _same(name: str, value: Weights, config: Any) -> Weights:
    return value


def _llama_order(name: str, value: Weights, config: Any) -> Weights:
    """The rows of a head's queries and keys 0, n/2, 1, n/2 + 1, … instead of 0, 1, 2, …"""
    if ".q_proj." in name:
        heads = config.num_attention_heads
    elif ".k_proj." in name:
        heads = config.num_key_value_heads
    else:
        return value
    halves = value.reshape(heads, 2, -1, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape)


def _bloom_order(name: str, value: Weights, config: Any) -> Weights:
    """[head, (q, k, v), width] as [(q, k, v), head, width]."""
    if ".query_key_value." not in name:
        return value
    heads = value.reshape(config.n_head, 3, -1, *value.shape[1:])
    return heads.swapaxes(0, 1).reshape(value.shape)


def _gpt2_order(name: str, value: Weights, config: Any) -> Weights:
    turned = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    return value.T if turned else value


_ROTARY = {"hidden_act": ("silu",), "rope_type": ("default",)}
_FAMILIES = {
    "llama": _Family("llama", _rotary, _llama_order, _ROTARY),
    "qwen2": _Family("qwen2", _rotary, _same, _ROTARY | {"use_sliding_window": (False,)}),
    "gpt2": _Family(
        "gpt2",
        _gpt2_figures,
        _gpt2_order,
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
        },
    ),
    "bloom": _Family(
        "bloom",
        _bloom_figures,
        _bloom_order,
        {"apply_residual_connection_post_layernorm": (False,)},
    ),
}
