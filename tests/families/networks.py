"""Tiny networks of many families of causal LMs, each with what sets its family apart.

Sizes are small; every type of layer that a family has is there, and texts of the tests are longer
than its windows.
"""

from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from tests import tiny

WINDOW = 16
"""Tokens that a sliding window holds: texts are longer."""
_SHAPE: dict[str, Any] = {
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0, 3.0],
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 256,
}
_WINDOWED = {"num_hidden_layers": 4, "sliding_window": WINDOW}
_GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
    "attention_multiplier": 0.2,
}
_EXPERTS = {"num_experts_per_tok": 2, "norm_topk_prob": True}
_HYBRID = {
    **_GRANITE,
    "layer_types": ["mamba", "attention", "mamba"],
    "num_hidden_layers": 3,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_chunk_size": 16,
    "shared_intermediate_size": 64,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama 3.2": ("llama", {"rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "llama linear": ("llama", {"rope_parameters": _LINEAR}),
    "llama yarn": ("llama", {"rope_parameters": _YARN, "attention_bias": True}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "ministral3": (
        "ministral3",
        {
            "head_dim": 16,
            "rope_parameters": {
                **_YARN,
                "llama_4_scaling_beta": 0.1,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
        },
    ),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 yarn": ("qwen2", {"rope_parameters": _YARN}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3_moe": (
        "qwen3_moe",
        {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 32, "head_dim": 32},
    ),
    "gemma": ("gemma", {"head_dim": 32}),
    "gemma2": ("gemma2", {**_WINDOWED, "head_dim": 32, "query_pre_attn_scalar": 32}),
    "gemma3": (
        "gemma3_text",
        {
            "num_hidden_layers": 6,
            "sliding_window": WINDOW,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
        },
    ),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}),
    "phi3": ("phi3", {"sliding_window": None}),
    "phi3 longrope": (
        "phi3",
        {
            "sliding_window": None,
            "rope_parameters": _LONGROPE,
            "max_position_embeddings": 1024,
            "original_max_position_embeddings": 256,
        },
    ),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", _WINDOWED),
    "granite": ("granite", _GRANITE),
    "granitemoe": ("granitemoe", {**_GRANITE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "lfm2": (
        "lfm2",
        {
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
        },
    ),
    "gpt2": ("gpt2", _GPT2),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "gpt_neox": ("gpt_neox", {"intermediate_size": 96}),
    "gpt_neox in series": (
        "gpt_neox",
        {"intermediate_size": 96, "use_parallel_residual": False},
    ),
    "stablelm": ("stablelm", {"use_qkv_bias": True}),
    "starcoder2": ("starcoder2", {"sliding_window": None}),
    "exaone4": (
        "exaone4",
        {"num_hidden_layers": 64, "sliding_window": WINDOW, "sliding_window_pattern": 4},
    ),
    "exaone4 dense": (
        "exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 2},
    ),
    "ernie4_5": ("ernie4_5", {"head_dim": 16}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"head_dim": 16}),
    "glm4": ("glm4", {"head_dim": 16}),
    "cohere2": ("cohere2", {**_WINDOWED, "logit_scale": 0.25}),
    "helium": ("helium", {"head_dim": 16}),
    "internlm3": ("internlm3", {"head_dim": 16}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "seed_oss": ("seed_oss", {"head_dim": 16}),
    "falcon_h1": (
        "falcon_h1",
        {
            "mamba_d_ssm": 128,
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_d_state": 16,
            "mamba_chunk_size": 16,
            "embedding_multiplier": 2.0,
            "lm_head_multiplier": 0.5,
            "mlp_multipliers": [0.5, 2.0],
            "key_multiplier": 0.7,
            "attention_in_multiplier": 0.9,
            "attention_out_multiplier": 1.3,
            "ssm_in_multiplier": 1.2,
            "ssm_out_multiplier": 0.8,
            "ssm_multipliers": [0.5, 0.6, 1.5, 0.7, 2.0],
        },
    ),
    "granitemoehybrid": ("granitemoehybrid", {**_HYBRID, "num_local_experts": 0}),
    "granitemoehybrid experts": (
        "granitemoehybrid",
        {**_HYBRID, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen3_5": (
        "qwen3_5_text",
        {
            "num_hidden_layers": 4,
            "head_dim": 64,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 6,
        },
    ),
    "nemotron_h": (
        "nemotron_h",
        {
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 16,
            "chunk_size": 16,
            "time_step_min": 1e-9,
            "n_groups": 2,
            "head_dim": 16,
            "layers_block_type": ["mamba", "attention", "mlp", "mamba"],
            "num_hidden_layers": 4,
        },
    ),
    "mamba2": (
        "mamba2",
        {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1, "chunk_size": 16},
    ),
}
"""Families that GGUF export writes: the model type in transformers, settings beside the shape."""
_EXPERT_LAYERS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT_ATTENTION = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
}
OTHER_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "exaone4 window": (
        "exaone4",
        {"num_hidden_layers": 4, "sliding_window": WINDOW, "sliding_window_pattern": 4},
    ),
    "mistral window": ("mistral", {"sliding_window": WINDOW}),
    "starcoder2 window": ("starcoder2", {"sliding_window": WINDOW}),
    "gemma4": (
        "gemma4_text",
        {
            "num_hidden_layers": 6,
            "sliding_window": WINDOW,
            "head_dim": 16,
            "global_head_dim": 32,
            "vocab_size_per_layer_input": tiny.VOCAB_SIZE,
            "hidden_size_per_layer_input": 32,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_kv_shared_layers": 2,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3n": (
        "gemma3n_text",
        {
            "num_hidden_layers": 6,
            "sliding_window": WINDOW,
            "head_dim": 32,
            "intermediate_size": [96] * 6,
            "vocab_size_per_layer_input": tiny.VOCAB_SIZE,
            "hidden_size_per_layer_input": 32,
            "num_kv_shared_layers": 1,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "activation_sparsity_pattern": [0.5] + [0.0] * 5,
        },
    ),
    "lfm3": (
        "lfm3",
        {
            "num_hidden_layers": 5,
            "head_dim": 16,
            "sliding_window": WINDOW,
        },
    ),
    "olmo_hybrid": (
        "olmo_hybrid",
        {
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention", "linear_attention", "full_attention"],
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        {"head_dim": 16, "sliding_window": WINDOW, **_EXPERT_LAYERS, "num_local_experts": 4},
    ),
    "apertus": ("apertus", {}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "nanochat": ("nanochat", {"final_logit_softcapping": 2.0}),
    "minicpm3": ("minicpm3", {**_LATENT_ATTENTION, "dim_model_base": 32}),
    "deepseek_v2": (
        "deepseek_v2",
        {
            **_LATENT_ATTENTION,
            "moe_intermediate_size": 32,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
    "youtu": ("youtu", _LATENT_ATTENTION),
    "bitnet": ("bitnet", {}),
    "vaultgemma": ("vaultgemma", {**_WINDOWED, "head_dim": 32, "query_pre_attn_scalar": 32}),
    "qwen3_next": (
        "qwen3_next",
        {
            "num_hidden_layers": 4,
            "head_dim": 64,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    ),
}
"""Families that are trained, asked and served, but not written as GGUF."""
ALL_FAMILIES = {**FAMILIES, **OTHER_FAMILIES}
LINE_FAMILIES: dict[str, str] = {
    "llama": "SmolLM 1 and 2, Llama 2 and 3, TinyLlama",
    "llama 3.2": "Llama 3.1 and 3.2",
    "mistral": "Mistral 7B v0.3, Nemo",
    "mistral window": "Mistral 7B v0.1",
    "ministral3": "Ministral 3",
    "qwen2": "Qwen1.5, Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3 30B A3B",
    "qwen3_next": "Qwen3-Next",
    "qwen3_5": "Qwen3.5 (text)",
    "gemma": "Gemma 1",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3 (text)",
    "gemma3n": "Gemma 3n (text)",
    "gemma4": "Gemma 4 (text)",
    "vaultgemma": "VaultGemma",
    "smollm3": "SmolLM3",
    "phi3": "Phi-3 and Phi-4-mini with one rope",
    "phi3 longrope": "Phi-3.5-mini, Phi-4-mini",
    "lfm2": "LFM2, LFM2.5",
    "lfm3": "LFM3",
    "granite": "Granite 3",
    "granitemoe": "Granite 3 MoE",
    "granitemoehybrid": "Granite 4 H",
    "granitemoehybrid experts": "Granite 4 H with experts",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "olmo_hybrid": "OLMo Hybrid",
    "falcon_h1": "Falcon-H1",
    "exaone4 dense": "EXAONE 4.0 1.2B",
    "exaone4 window": "EXAONE 4.0 32B",
    "ernie4_5": "ERNIE 4.5 0.3B",
    "hunyuan_v1_dense": "Hunyuan 0.5B to 7B",
    "glm4": "GLM-4 9B",
    "seed_oss": "Seed-OSS",
    "gpt_oss": "gpt-oss 20B",
    "apertus": "Apertus 8B",
    "stablelm": "StableLM 2",
    "starcoder2": "StarCoder2 without a window",
    "starcoder2 window": "StarCoder2",
    "cohere": "Command R",
    "cohere2": "Command R7B",
    "nemotron_h": "Nemotron-H, Nemotron Nano 2",
    "mamba2": "Mamba-2",
    "deepseek_v2": "DeepSeek-V2-Lite",
    "youtu": "Youtu-LLM",
    "minicpm3": "MiniCPM3",
    "internlm3": "InternLM3",
    "helium": "Helium 1",
    "bitnet": "BitNet b1.58 (unquantized)",
    "nanochat": "nanochat",
    "gpt2": "GPT-2",
    "gpt_neox": "Pythia",
    "opt": "OPT",
    "bloom": "BLOOM",
}
"""Families that go through the whole line, and models that people know them by."""
_OWN_SHAPE = ("gpt2", "bloom", "mamba2", "gpt_neox", "opt")
"""Networks whose sizes are settings of their own."""


def make_causal(family: str) -> Any:
    """A random network of a family, whose norms and biases are random too."""
    model_type, settings = ALL_FAMILIES[family]
    shape = dict(_SHAPE)
    if model_type in _OWN_SHAPE:
        del shape["num_key_value_heads"], shape["intermediate_size"]
    config = AutoConfig.for_model(model_type, **{**shape, **settings})
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    causal = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in causal.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.2))
    return causal
