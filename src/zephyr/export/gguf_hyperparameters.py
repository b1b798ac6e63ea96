"""GGUF hyperparameters: the keys that llama.cpp reads of a network, from its config."""

from collections.abc import Callable
from typing import Any

from zephyr.export.gguf_rope import head_dim, rope_settings, rotary_dim, write_rope

WriteKeys = Callable[[Any, Any], None]


def write_shape(writer: Any, config: Any, context_length: int) -> None:
    """Writes the keys of every network: sizes and counts, and the epsilon of its norms."""
    writer.add_context_length(context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(_feed_forward_size(config))
    if config.model_type == "mamba2":
        writer.add_head_count(0)
    else:
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(_key_value_heads(config))
    for names, add in (
        (("rms_norm_eps", "norm_eps"), writer.add_layer_norm_rms_eps),
        (("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"), writer.add_layer_norm_eps),
    ):
        epsilon = next((getattr(config, n) for n in names if hasattr(config, n)), None)
        if epsilon is not None:
            add(epsilon)
    if config.model_type in ("mamba2", "nemotron_h"):  # their norms are RMS norms
        writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)


def _feed_forward_size(config: Any) -> int | list[int]:
    """Size of the feed-forward layer; LFM2 makes two thirds of it a multiple of a number.

    In Nemotron-H a layer is either a feed-forward one or has size 0.
    """
    if config.model_type == "nemotron_h":
        return [config.intermediate_size * (kind == "mlp") for kind in config.layers_block_type]
    if config.model_type == "mamba2":
        return 0
    own = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    if config.model_type == "granitemoehybrid" and not config.num_local_experts:
        own = config.shared_intermediate_size
    size = int(own or 4 * config.hidden_size)
    if config.model_type == "lfm2" and config.block_auto_adjust_ff_dim:
        size = int(config.block_ffn_dim_multiplier * int(2 * size / 3))
        return int(config.block_multiple_of * -(-size // config.block_multiple_of))
    return size


def _key_value_heads(config: Any) -> int | list[int]:
    """Key-value heads: a number, or one a layer, 0 where it has no attention."""
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    kinds = {
        "lfm2": "layer_types",
        "granitemoehybrid": "layer_types",
        "nemotron_h": "layers_block_type",
    }
    if config.model_type in kinds:
        layers = getattr(config, kinds[config.model_type])
        return [heads if kind == "full_attention" else 0 for kind in layers]
    return heads


def write_rotary(writer: Any, config: Any) -> None:
    """Writes the size of heads and RoPE."""
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    write_rope(writer, config)


def write_window(writer: Any, config: Any) -> None:
    """Writes the sliding window of attention, and which layers have one."""
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([t == "sliding_attention" for t in config.layer_types])
    sliding = rope_settings(config, "sliding_attention").get("rope_theta")
    if sliding is not None:
        writer.add_rope_freq_base_swa(float(sliding))


def write_window_if_any(writer: Any, config: Any) -> None:
    """Writes the sliding window of a network that may have none (EXAONE 4)."""
    if getattr(config, "sliding_window", None):
        write_window(writer, config)


def write_soft_caps(writer: Any, config: Any) -> None:
    """Writes the soft caps of attention scores and logits (Gemma 2)."""
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)


def write_granite_scales(writer: Any, config: Any) -> None:
    """Writes Granite's multipliers of embeddings, attention scores, residuals and logits."""
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def write_logit_scale(writer: Any, config: Any) -> None:
    """Writes the factor of logits (Cohere)."""
    writer.add_logit_scale(config.logit_scale)


def write_experts(writer: Any, config: Any) -> None:
    """Writes the number of experts, how many compute a token, and their size."""
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    size = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    writer.add_expert_feed_forward_length(size)


def write_parallel_residual(writer: Any, config: Any) -> None:
    """Writes whether attention and feed-forward are computed side by side."""
    writer.add_parallel_residual(config.use_parallel_residual)


def write_short_convolutions(writer: Any, config: Any) -> None:
    """Writes the kernel size of LFM2's convolutions."""
    writer.add_shortconv_l_cache(config.conv_L_cache)


def write_temperature(writer: Any, config: Any) -> None:
    """Writes Ministral 3's scale of queries beyond the context of its first training."""
    settings = rope_settings(config)
    writer.add_attn_temperature_scale(float(settings["llama_4_scaling_beta"]))
    writer.add_attn_temperature_length(settings["original_max_position_embeddings"])


def write_state_space(writer: Any, config: Any) -> None:
    """Writes the sizes of Mamba-2 layers."""
    names = (
        ("mamba_d_conv", "conv_kernel"),
        ("mamba_d_state", "ssm_state_size", "state_size"),
        ("mamba_n_groups", "n_groups"),
        ("mamba_n_heads", "mamba_num_heads", "num_heads"),
        ("mamba_d_head", "mamba_head_dim", "head_dim"),
    )
    kernel, state, groups, heads, size = (
        next(getattr(config, name) for name in each if hasattr(config, name)) for each in names
    )
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(heads * size)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_group_count(groups)


def write_shared_experts(writer: Any, config: Any) -> None:
    """Writes Granite 4's experts, where it has any, and that of every token."""
    if config.num_local_experts:
        write_experts(writer, config)
        writer.add_expert_shared_feed_forward_length(config.shared_intermediate_size)


def write_no_rope(writer: Any, config: Any) -> None:
    """Writes that no layer has RoPE: Granite 4 takes its positions from the state space."""
    writer.add_rope_scaling_finetuned(False)
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))


def write_linear_attention(writer: Any, config: Any) -> None:
    """Writes the sizes of Qwen3.5's gated delta layers, and how often full attention comes."""
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_full_attention_interval(config.layer_types.index("full_attention") + 1)
    # sections are interleaved, and all have the same positions in a text
    pairs = rotary_dim(config) // 2
    writer.add_rope_dimension_sections([(pairs + 2 - i) // 3 for i in range(3)] + [0])
