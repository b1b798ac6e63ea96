"""What a config says of attention: sliding windows, kinds of layers, the limit of longrope."""

from typing import Any

_WINDOW_SETTINGS = (
    "sliding_window",
    "sliding_window_size",
    "attention_window",
    "attention_window_size",
    "window_size",
    "attention_chunk_size",
)
"""Settings that bound how many tokens an attention layer sees."""


def attention_windows(config: Any, context_length: int) -> list[int]:
    """The attention windows (in tokens) of a config that are shorter than the context."""
    settings = config.get_text_config().to_dict()
    values = [settings.get(key) for key in _WINDOW_SETTINGS]
    sizes = [size for value in values for size in (value if isinstance(value, list) else [value])]
    return [size for size in sizes if isinstance(size, int) and 0 < size < context_length]


def has_full_attention(config: Any, context_length: int) -> bool:
    """Whether each token attends to all before it, in every layer, by what the config says.

    Of a window `layer_types` may tell, or `sliding_window` alone (Mistral, Starcoder2, Phi-3).
    """
    layer_types = config.get_text_config().to_dict().get("layer_types") or ()
    return set(layer_types) <= {"full_attention"} and not attention_windows(config, context_length)


def longrope_limit(config: Any) -> int | None:
    """The tokens up to which a network with longrope keeps one set of rotary frequencies.

    Beyond, it takes another set for all rows of a batch, while keys in a KV cache are of the first.
    None without longrope.
    """
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [parameters, *(v for v in parameters.values() if isinstance(v, dict))]  # by layer type
    limits = [
        int(kind["original_max_position_embeddings"])
        for kind in kinds
        if kind.get("rope_type") == "longrope"
    ]
    return min(limits, default=None)
