"""Changes of weights for GGUF: what llama.cpp stores in another order, form or place.

A change gets a weight with its name in transformers and the config, and gives the weights that take
its place: most often one, several where a matrix is split.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
NamedWeights = Iterable[tuple[str, Weights]]
Change = Callable[[str, Weights, Any], NamedWeights]


def permute_rotary_rows(name: str, value: Weights, config: Any) -> NamedWeights:
    """Permutes query and key rows for RoPE of pairs: 0, n/2, 1, n/2 + 1, … instead of 0, 1, 2, …"""
    if ".q_proj." in name:
        heads = config.num_attention_heads
    elif ".k_proj." in name:
        heads = config.num_key_value_heads
    else:
        return [(name, value)]
    halves = value.reshape(heads, 2, -1, *value.shape[1:])
    return [(name, halves.swapaxes(1, 2).reshape(value.shape))]


def join_head_parts(name: str, value: Weights, config: Any) -> NamedWeights:
    """Reorders a fused projection: [head, (q, k, v), width] to [(q, k, v), head, width]."""
    if ".query_key_value." not in name:
        return [(name, value)]
    heads = value.reshape(config.num_attention_heads, 3, -1, *value.shape[1:])
    return [(name, heads.swapaxes(0, 1).reshape(value.shape))]


def transpose_conv1d(name: str, value: Weights, config: Any) -> NamedWeights:
    """Transposes the matrices of GPT-2's `Conv1D`, [in, out], to [out, in]."""
    is_transposed = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    return [(name, value.T if is_transposed else value)]


def add_one_to_norms(name: str, value: Weights, config: Any) -> NamedWeights:
    """Adds 1 to the weights of norms that multiply by 1 + weight (Gemma, Qwen3.5)."""
    is_norm = name.endswith("norm.weight") and ".linear_attn." not in name
    return [(name, value + 1 if is_norm else value)]


def split_experts(name: str, value: Weights, config: Any) -> NamedWeights:
    """Splits gate and up of all experts, [expert, (gate, up), hidden], and names their stacks."""
    match = re.fullmatch(r"model\.layers\.(\d+)\..*experts\.(gate_up_proj|down_proj)", name)
    if match is None:
        router = re.fullmatch(r"model\.layers\.(\d+)\.block_sparse_moe\.router\.weight", name)
        return [(f"blk.{router[1]}.ffn_gate_inp.weight" if router else name, value)]
    if match[2] == "down_proj":
        return [(f"blk.{match[1]}.ffn_down_exps.weight", value)]
    gate, up = np.split(value, 2, axis=1)
    return [
        (f"blk.{match[1]}.ffn_{part}_exps.weight", half)
        for part, half in (("gate", gate), ("up", up))
    ]


def squeeze_convolution(name: str, value: Weights, config: Any) -> NamedWeights:
    """Drops the middle axis of a depthwise convolution, [channels, 1, kernel]."""
    is_convolution = name.endswith((".conv.conv.weight", ".conv1d.weight"))
    return [(name, value.squeeze(1) if is_convolution else value)]


def name_token_norm(name: str, value: Weights, config: Any) -> NamedWeights:
    """Names LFM2's last norm as llama.cpp does: it takes the place of `token_embd_norm`."""
    return [("token_embd_norm.weight" if name == "model.embedding_norm.weight" else name, value)]


def convert_state_space(name: str, value: Weights, config: Any) -> NamedWeights:
    """Writes a Mamba-2 layer's A as -exp(A_log), A and D as columns, its norm by groups."""
    if name.endswith(".A_log"):
        return [(name, -np.exp(value)[:, None])]
    if name.endswith(".D"):
        return [(name, value[:, None])]
    if name.endswith(".dt_bias"):
        return [(name.removesuffix("_bias") + "_proj.bias", value)]
    if name.endswith((".mixer.norm.weight", ".mamba.norm.weight")):
        groups = getattr(config, "mamba_n_groups", None) or config.n_groups
        return [(name, value.reshape(groups, -1))]
    return [(name, value)]


def multiply_falcon_h1(name: str, value: Weights, config: Any) -> NamedWeights:
    """Multiplies Falcon-H1's multipliers into its weights: llama.cpp has no keys for them."""
    factors = {
        "mlp.down_proj": config.mlp_multipliers[1],
        "feed_forward.down_proj": config.mlp_multipliers[1],
        "feed_forward.gate_proj": config.mlp_multipliers[0],
        "self_attn.q_proj": config.attention_in_multiplier,
        "self_attn.k_proj": config.attention_in_multiplier * config.key_multiplier,
        "self_attn.v_proj": config.attention_in_multiplier,
        "self_attn.o_proj": config.attention_out_multiplier,
        "mamba.out_proj": config.ssm_out_multiplier,
        "lm_head": config.lm_head_multiplier,
        "embed_tokens": config.embedding_multiplier,
    }
    if name.endswith(".mup_vector"):
        return []
    if name.endswith(".mamba.in_proj.weight"):
        inner, state = config.mamba_d_ssm, config.mamba_n_groups * config.mamba_d_state
        sizes = (inner, inner, state, state, config.mamba_n_heads)
        rows = np.repeat(np.float32(config.ssm_multipliers), sizes)
        return [(name, value * (rows * np.float32(config.ssm_in_multiplier))[:, None])]
    factor = next((f for part, f in factors.items() if f"{part}." in name), 1.0)
    return [(name, value * np.float32(factor))]


def tile_value_heads(name: str, value: Weights, config: Any) -> NamedWeights:
    """Reorders Qwen3.5's value heads from [key head, copy] to [copy, key head], as they are tiled.

    Its A is written as -exp(A_log), as a vector.
    """
    if ".linear_attn." not in name:
        return [(name, value)]
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    first = 2 * keys * config.linear_key_head_dim

    def tile(part: Weights, axis: int = 0) -> Weights:
        moved = np.moveaxis(part, axis, 0)
        heads = moved.reshape(keys, values // keys, -1, *moved.shape[1:]).swapaxes(0, 1)
        return np.moveaxis(heads.reshape(moved.shape), 0, axis)

    if name.endswith(".A_log"):
        return [(name, -np.exp(tile(value)))]
    if name.endswith(".dt_bias"):
        return [(name.removesuffix("_bias") + "_proj.bias", tile(value))]
    if name.endswith((".in_proj_qkv.weight", ".conv1d.weight")):
        return [(name, np.concatenate([value[:first], tile(value[first:])]))]
    if name.endswith(".out_proj.weight"):
        return [(name, tile(value, axis=1))]
    is_norm = name.endswith(".norm.weight")  # of the size of one head, it serves all
    return [(name, value if is_norm else tile(value))]


def split_shared_mlp(name: str, value: Weights, config: Any) -> NamedWeights:
    """Splits gate and up of Granite 4's shared feed-forward layer; alone, it is the plain one."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.shared_mlp\.(input|output)_linear\.weight", name)
    if match is None:
        return [(name, value)]
    kind = "_shexp" if config.num_local_experts else ""
    if match[2] == "output":
        return [(f"blk.{match[1]}.ffn_down{kind}.weight", value)]
    gate, up = np.split(value, 2)
    return [
        (f"blk.{match[1]}.ffn_gate{kind}.weight", gate),
        (f"blk.{match[1]}.ffn_up{kind}.weight", up),
    ]


def name_mixers(name: str, value: Weights, config: Any) -> NamedWeights:
    """Names the weights of Nemotron-H as gguf's map does: its layers are under `backbone`."""
    return [(name.replace("model.layers.", "backbone.layers."), value)]
