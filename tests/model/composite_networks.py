"""Tiny multimodal (composite) networks: a language model with towers for images."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText

from tests import tiny
from tests.model.attention_networks import WINDOW

_TEXT: dict[str, Any] = {
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": tiny.CONTEXT_LENGTH,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_WINDOWS = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_EXPERTS = {"num_experts": 4, "moe_intermediate_size": 16}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_SQUARE = {**_VISION, "image_size": 28, "patch_size": 14}
_GEMMA4_VISION = {**_VISION, "num_key_value_heads": 2, "head_dim": 8}
_QWEN_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
}

NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "gemma3": ("Gemma3Config", _WINDOWS, {"model_type": "siglip_vision_model", **_SQUARE}),
    "gemma4": (
        "Gemma4Config",
        {
            **_WINDOWS,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": tiny.VOCAB_SIZE,
            "global_head_dim": 8,
            "num_kv_shared_layers": 2,
        },
        _GEMMA4_VISION,
    ),
    "gemma4 with experts": (
        "Gemma4Config",
        {
            **_WINDOWS,
            **_EXPERTS,
            "hidden_size_per_layer_input": 0,
            "global_head_dim": 8,
            "enable_moe_block": True,
            "top_k_experts": 2,
        },
        _GEMMA4_VISION,
    ),
    "gemma4_unified": ("Gemma4UnifiedConfig", {**_WINDOWS, "global_head_dim": 8}, None),
    "mistral3 of ministral3": (
        "Mistral3Config",
        {"model_type": "ministral3"},
        {"model_type": "pixtral", **_SQUARE},
    ),
    "mistral3 of mistral": (
        "Mistral3Config",
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "pixtral", **_SQUARE},
    ),
    "qwen3_5": ("Qwen3_5Config", _LINEAR, _QWEN_VISION),
    "qwen3_5_moe": (
        "Qwen3_5MoeConfig",
        {**_LINEAR, **_EXPERTS, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 16},
        _QWEN_VISION,
    ),
    "lfm2_vl": (
        "Lfm2VlConfig",
        {"model_type": "lfm2", "layer_types": ["conv", "full_attention"] * 2, "head_dim": None},
        {"model_type": "siglip2_vision_model", **_VISION, "num_patches": 16, "patch_size": 14},
    ),
    "smolvlm": ("SmolVLMConfig", {"model_type": "llama"}, _SQUARE),
    "internvl": (
        "InternVLConfig",
        {"model_type": "qwen3"},
        {**_VISION, "image_size": [28, 28], "patch_size": [14, 14]},
    ),
    "llava": (
        "LlavaConfig",
        {"model_type": "qwen2"},
        {"model_type": "clip_vision_model", **_SQUARE},
    ),
}
"""Config class, settings of its text part, and of its vision tower, by a name for tests."""


def make_composite(name: str) -> Any:
    """A random composite network, with text weights so large that its answers differ."""
    config_name, text, vision = NETWORKS[name]
    towers = {} if vision is None else {"vision_config": vision}
    if name.startswith("gemma4 ") or name == "gemma4":
        towers["audio_config"] = None  # type: ignore[assignment]  # no tower for sound
    torch.manual_seed(0)
    merged_text = {key: value for key, value in (_TEXT | text).items() if value is not None}
    config = getattr(transformers, config_name)(text_config=merged_text, **towers)
    network: Any = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return network.eval()
