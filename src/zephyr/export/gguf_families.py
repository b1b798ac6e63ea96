"""GGUF families: which networks can be written, and what each needs beside its plain weights.

A row says the architecture's name in llama.cpp, the writers of keys and the changes of weights, and
the settings that llama.cpp assumes. A network that no row fits is refused from its config alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Any

from zephyr.errors import ZephyrError
from zephyr.export import gguf_hyperparameters as keys
from zephyr.export import gguf_weight_changes as weights
from zephyr.export.gguf_rope import FACTOR_TYPES, check_rope, head_dim, rope_type, unsupported

_SILU = MappingProxyType({"hidden_act": ("silu", "swish")})
_SCALED = ("default", "linear", "yarn")
_NO_TIME_STEP = 1e-9
_PLAIN_ROPE = ("default",)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of networks in GGUF.

    `required`: settings that llama.cpp assumes, each with the allowed values; one that a config
    lacks is as allowed. `rope_types`: the RoPE scaling that llama.cpp reads for this architecture.
    """

    architecture: str
    writers: tuple[keys.WriteKeys, ...]
    changes: tuple[weights.Change, ...] = ()
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    rope_types: tuple[str, ...] = _SCALED


def find_family(config: Any) -> Family:
    """Finds the family of a network from its config.

    Raises:
        ZephyrError: none is known here, or llama.cpp lacks a setting of this network.
    """
    config = config.get_text_config()
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ZephyrError(
            "this architecture can't be written as GGUF here",
            found=config.model_type,
            allowed=", ".join(sorted(FAMILIES)),
            todo="export it with --to merged",
        )
    for name, allowed in family.required.items():
        value = getattr(config, name, allowed[0])
        if value not in allowed:
            raise unsupported(f"{name}: {value}", ", ".join(map(str, allowed)))
    if keys.write_rotary in family.writers:
        if rope_type(config) not in family.rope_types:
            raise unsupported(f"rope_type: {rope_type(config)}", ", ".join(family.rope_types))
        check_rope(config)
    if check := _CHECKS.get(config.model_type):
        check(config)
    return family


# -- what a row can't say in values ---------------------------------------------------------------


def _check_query_scale(config: Any) -> None:
    """llama.cpp scales Gemma's queries by the size of a head, whatever the config says."""
    if config.query_pre_attn_scalar != head_dim(config):
        raise unsupported(
            f"query_pre_attn_scalar: {config.query_pre_attn_scalar}",
            f"{head_dim(config)}, the size of a head",
        )


def _check_window(config: Any) -> None:
    """These networks have a sliding window in transformers, and none in llama.cpp."""
    window = getattr(config, "sliding_window", None)
    if window and window < config.max_position_embeddings:
        raise unsupported(
            f"sliding_window: {window}",
            f"none, or at least the context ({config.max_position_embeddings})",
        )


def _check_rope_layers(config: Any) -> None:
    """llama.cpp leaves out RoPE in every fourth layer of SmolLM3."""
    expected = [int((i + 1) % 4 != 0) for i in range(config.num_hidden_layers)]
    if list(config.no_rope_layers) != expected:
        raise unsupported(f"no_rope_layers: {config.no_rope_layers}", str(expected))


def _check_exaone_window(config: Any) -> None:
    """llama.cpp has EXAONE 4's window (three layers of four) in networks of 64 layers alone."""
    if not getattr(config, "sliding_window", None):
        return
    expected = ["full_attention" if i % 4 == 3 else "sliding_attention" for i in range(64)]
    if config.layer_types != expected:
        raise unsupported(
            f"a sliding window in {config.num_hidden_layers} layers",
            "none, or 64 layers of which every fourth has full attention",
        )


def _check_hybrid_layers(config: Any) -> None:
    """llama.cpp's hybrid Granite has layers of both kinds."""
    if len(set(config.layer_types)) < 2:
        raise unsupported(f"{config.layer_types[0]} in all layers", "both kinds of layers")


def _check_full_attention(config: Any) -> None:
    """Qwen3.5 has full attention in every n-th layer, and equal sizes of keys and values."""
    interval = config.layer_types.index("full_attention") + 1
    kinds = ["linear_attention"] * (interval - 1) + ["full_attention"]
    expected = [kinds[i % interval] for i in range(config.num_hidden_layers)]
    if config.layer_types != expected:
        raise unsupported("layers of full attention at uneven distances", str(expected))
    if config.linear_key_head_dim != config.linear_value_head_dim:
        raise unsupported("keys and values of two sizes", "one size")


def _check_mixers(config: Any) -> None:
    """llama.cpp does not clamp Nemotron-H's time steps, which transformers does."""
    if "moe" in config.layers_block_type:
        raise unsupported("layers of experts (moe)", "linear_attention, full_attention, mlp")
    if config.time_step_min > _NO_TIME_STEP:
        raise unsupported(f"time_step_min: {config.time_step_min}", f"at most {_NO_TIME_STEP}")


def _check_moe_layers(config: Any) -> None:
    if config.mlp_only_layers or config.decoder_sparse_step != 1:
        raise unsupported("layers without experts", "experts in every layer")


_CHECKS = {
    "nemotron_h": _check_mixers,
    "granitemoehybrid": _check_hybrid_layers,
    "qwen3_5_text": _check_full_attention,
    "exaone4": _check_exaone_window,
    "gemma2": _check_query_scale,
    "gemma3_text": _check_query_scale,
    "mistral": _check_window,
    "phi3": _check_window,
    "starcoder2": _check_window,
    "smollm3": _check_rope_layers,
    "qwen3_moe": _check_moe_layers,
}

# -- the table ------------------------------------------------------------------------------------

_ROTARY = (keys.write_rotary,)
_WINDOWED = (keys.write_rotary, keys.write_window)
_PAIRS = (weights.permute_rotary_rows,)
_NO_WINDOW = MappingProxyType({**_SILU, "use_sliding_window": (False, None)})
_FACTORS = (*_SCALED, *FACTOR_TYPES[:1])
_NO_BIAS = MappingProxyType({"attention_bias": (False,), "use_bias": (False,)})
_UNLIMITED = MappingProxyType({"time_step_limit": ((0.0, inf), [0.0, inf])})
_GELU = ("gelu_pytorch_tanh", "gelu_new")
"""llama.cpp computes GELU by tanh. Exact GELU (GPT-NeoX) is within 5e-4 of it, which is less than
the rounding of llama.cpp's own table of float16."""

FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        architecture="llama",
        writers=_ROTARY,
        changes=_PAIRS,
        required=_SILU,
        rope_types=_FACTORS,
    ),
    "mistral": Family(architecture="llama", writers=_ROTARY, changes=_PAIRS, required=_SILU),
    "ministral3": Family(
        architecture="mistral3",
        writers=(keys.write_rotary, keys.write_temperature),
        changes=_PAIRS,
        required=_SILU,
        rope_types=("yarn",),
    ),
    "qwen2": Family(architecture="qwen2", writers=_ROTARY, required=_NO_WINDOW),
    "qwen3": Family(architecture="qwen3", writers=_ROTARY, required={**_NO_WINDOW, **_NO_BIAS}),
    "qwen3_moe": Family(
        architecture="qwen3moe",
        writers=(keys.write_rotary, keys.write_experts),
        changes=(weights.split_experts,),
        required={**_NO_WINDOW, "norm_topk_prob": (True,)},
    ),
    "gemma": Family(
        architecture="gemma",
        writers=_ROTARY,
        changes=(weights.add_one_to_norms,),
        required={"hidden_act": _GELU, **_NO_BIAS},
        rope_types=_PLAIN_ROPE,
    ),
    "gemma2": Family(
        architecture="gemma2",
        writers=(*_WINDOWED, keys.write_soft_caps),
        changes=(weights.add_one_to_norms,),
        required={"hidden_activation": _GELU, **_NO_BIAS},
        rope_types=_PLAIN_ROPE,
    ),
    "gemma3_text": Family(
        architecture="gemma3",
        writers=_WINDOWED,
        changes=(weights.add_one_to_norms,),
        required={
            **_NO_BIAS,
            "hidden_activation": _GELU,
            "use_bidirectional_attention": (False, None),
            "final_logit_softcapping": (None,),
            "attn_logit_softcapping": (None,),
        },
        rope_types=("default", "linear"),
    ),
    "smollm3": Family(architecture="smollm3", writers=_ROTARY, changes=_PAIRS, required=_NO_WINDOW),
    "phi3": Family(
        architecture="phi3",
        writers=_ROTARY,
        required=_SILU,
        rope_types=("default", "longrope"),
    ),
    "olmo2": Family(architecture="olmo2", writers=_ROTARY, required={**_SILU, **_NO_BIAS}),
    "olmo3": Family(architecture="olmo2", writers=_WINDOWED, required={**_SILU, **_NO_BIAS}),
    "granite": Family(
        architecture="granite",
        writers=(keys.write_rotary, keys.write_granite_scales),
        changes=_PAIRS,
        required=_SILU,
        rope_types=_FACTORS,
    ),
    "granitemoe": Family(
        architecture="granitemoe",
        writers=(keys.write_rotary, keys.write_granite_scales, keys.write_experts),
        changes=(weights.permute_rotary_rows, weights.split_experts),
        required=_SILU,
    ),
    "lfm2": Family(
        architecture="lfm2",
        writers=(keys.write_rotary, keys.write_short_convolutions),
        changes=(weights.squeeze_convolution, weights.name_token_norm),
        required={"conv_bias": (False,)},
    ),
    "gpt2": Family(
        architecture="gpt2",
        writers=(),
        changes=(weights.transpose_conv1d,),
        required={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
        },
    ),
    "bloom": Family(
        architecture="bloom",
        writers=(),
        changes=(weights.join_head_parts,),
        required={"apply_residual_connection_post_layernorm": (False,)},
    ),
    "gpt_neox": Family(
        architecture="gptneox",
        writers=(keys.write_rotary, keys.write_parallel_residual),
        changes=(weights.join_head_parts,),
        required={"hidden_act": ("gelu", *_GELU), "attention_bias": (True,)},
    ),
    "stablelm": Family(
        architecture="stablelm",
        writers=(keys.write_rotary, keys.write_parallel_residual),
        required={**_SILU, "qk_layernorm": (False,), "use_parallel_residual": (False,)},
    ),
    "starcoder2": Family(
        architecture="starcoder2", writers=_ROTARY, required={"hidden_act": _GELU}
    ),
    "exaone4": Family(
        architecture="exaone4",
        writers=(keys.write_rotary, keys.write_window_if_any),
        required=_SILU,
        rope_types=_FACTORS,
    ),
    "ernie4_5": Family(architecture="ernie4_5", writers=_ROTARY, required={**_SILU, **_NO_BIAS}),
    "hunyuan_v1_dense": Family(
        architecture="hunyuan-dense", writers=_ROTARY, required=_SILU, rope_types=_PLAIN_ROPE
    ),
    "glm4": Family(architecture="glm4", writers=_ROTARY, required=_SILU, rope_types=_PLAIN_ROPE),
    "cohere2": Family(
        architecture="cohere2",
        writers=(*_WINDOWED, keys.write_logit_scale),
        required={**_SILU, **_NO_BIAS},
        rope_types=_PLAIN_ROPE,
    ),
    "cohere": Family(
        architecture="command-r",
        writers=(keys.write_rotary, keys.write_logit_scale),
        required={**_SILU, **_NO_BIAS, "use_qk_norm": (False,)},
        rope_types=_PLAIN_ROPE,
    ),
    "internlm3": Family(
        architecture="llama",
        writers=_ROTARY,
        changes=_PAIRS,
        required={**_SILU, "bias": (False,), "qkv_bias": (False,)},
    ),
    "helium": Family(
        architecture="llama",
        writers=_ROTARY,
        required={**_SILU, **_NO_BIAS, "mlp_bias": (False,)},
    ),
    "seed_oss": Family(architecture="seed_oss", writers=_ROTARY, required=_SILU),
    "falcon_h1": Family(
        architecture="falcon-h1",
        writers=(keys.write_rotary, keys.write_state_space),
        changes=(
            weights.multiply_falcon_h1,
            weights.squeeze_convolution,
            weights.convert_state_space,
        ),
        required={
            **_SILU,
            "mamba_rms_norm": (False,),
            **_UNLIMITED,
        },
        rope_types=_PLAIN_ROPE,
    ),
    "mamba2": Family(
        architecture="mamba2",
        writers=(keys.write_state_space,),
        changes=(weights.squeeze_convolution, weights.convert_state_space),
        required={**_SILU, **_UNLIMITED},
    ),
    "granitemoehybrid": Family(
        architecture="granitehybrid",
        writers=(
            keys.write_no_rope,
            keys.write_granite_scales,
            keys.write_state_space,
            keys.write_shared_experts,
        ),
        changes=(
            weights.split_experts,
            weights.split_shared_mlp,
            weights.squeeze_convolution,
            weights.convert_state_space,
        ),
        required={**_SILU, "position_embedding_type": (None, "nope"), **_UNLIMITED},
    ),
    "qwen3_5_text": Family(
        architecture="qwen35",
        writers=(keys.write_rotary, keys.write_linear_attention),
        changes=(
            weights.add_one_to_norms,
            weights.squeeze_convolution,
            weights.tile_value_heads,
        ),
        required=_SILU,
        rope_types=_PLAIN_ROPE,
    ),
    "nemotron_h": Family(
        architecture="nemotron_h",
        writers=(keys.write_no_rope, keys.write_state_space),
        changes=(weights.name_mixers, weights.squeeze_convolution, weights.convert_state_space),
        required={"mlp_hidden_act": ("relu2",)},
    ),
}
