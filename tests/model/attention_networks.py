"""Tiny networks whose attention is more than full: sliding windows, kinds of layers, longrope."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from tests import tiny

WINDOW = 8
"""Tokens that a sliding window holds."""
SHORT_CONTEXT = 16
"""Tokens up to which longrope uses its short factors."""

_SHAPE: dict[str, Any] = {
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": tiny.CONTEXT_LENGTH,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_MIXED = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "head_dim": 8,
}
MIXED_LAYERS = {
    "Gemma3TextConfig": _MIXED,
    "Olmo3Config": _MIXED,
    "Cohere2Config": {**_MIXED, "logit_scale": 1.0},
    "GptOssConfig": {**_MIXED, "num_local_experts": 2, "num_experts_per_tok": 1},
    "Qwen2Config": {
        "sliding_window": WINDOW,
        "use_sliding_window": True,
        "layer_types": _MIXED["layer_types"],
    },
}
"""Networks with sliding and full attention layers, by the name of their config."""
PLAIN_WINDOWS = {
    name: {"sliding_window": WINDOW} for name in ("MistralConfig", "Starcoder2Config", "Phi3Config")
}
"""Networks of which only `sliding_window` tells that their attention is no full one."""
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 4.0, 8.0, 16.0],
    "original_max_position_embeddings": SHORT_CONTEXT,
}


def make_causal(config_name: str, **settings: Any) -> Any:
    """A random network of a config class, with weights so large that its answers differ."""
    settings = {**MIXED_LAYERS, **PLAIN_WINDOWS}.get(config_name, {}) | settings
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(**_SHAPE | settings)
    causal = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in causal.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return causal.eval()
