"""GGUF keys and tensors of rotary position embeddings (RoPE): base, size and scaling.

transformers computes the frequencies of `llama3`, `longrope` and `proportional`; llama.cpp reads
them as factors by which the unscaled frequencies are divided. Frequencies of `linear` and `yarn`
follow from keys (Peng et al. 2023, arXiv 2309.00071).
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zephyr.errors import ZephyrError

FACTOR_TYPES = ("llama3", "proportional")
"""Types of scaling that are written as a tensor of factors."""
ROPE_TYPES = ("default", "linear", "yarn", "longrope", "dynamic", *FACTOR_TYPES)


def rope_settings(config: Any, layer_type: str = "full_attention") -> dict[str, Any]:
    """The RoPE settings of one type of layers; those of the whole network where it has one set."""
    parameters = getattr(config, "rope_parameters", None) or {}
    chosen: dict[str, Any] = parameters.get(layer_type, parameters)
    return chosen


def rope_type(config: Any, layer_type: str = "full_attention") -> str:
    """The type of RoPE scaling, `default` where there is none."""
    return str(rope_settings(config, layer_type).get("rope_type") or "default")


def head_dim(config: Any) -> int:
    """Size of an attention head."""
    given = getattr(config, "head_dim", None)
    return int(given or config.hidden_size // config.num_attention_heads)


def rotary_dim(config: Any) -> int:
    """Size of the part of a head that is rotated."""
    return int(head_dim(config) * rope_settings(config).get("partial_rotary_factor", 1.0))


def write_rope(writer: Any, config: Any) -> None:
    """Writes base, rotated size and scaling of a network's RoPE."""
    import gguf

    settings, kind = rope_settings(config), rope_type(config)
    writer.add_rope_dimension_count(rotary_dim(config))
    writer.add_rope_freq_base(_base(config, settings))
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(settings["factor"]))
    elif kind == "yarn":
        factor = float(settings["factor"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(settings["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(float(settings.get("beta_fast") or 32))
        writer.add_rope_scaling_yarn_beta_slow(float(settings.get("beta_slow") or 1))
        # llama.cpp multiplies by the default attention factor of YaRN, 1 + 0.1 ln(factor)
        own = _frequencies(config)[1] / (1 + 0.1 * math.log(factor))
        writer.add_rope_scaling_attn_factors(own)
    elif kind == "longrope":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(settings["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(_frequencies(config)[1])


def rope_factor_tensors(config: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The tensors of RoPE factors [rotary size / 2], which llama.cpp divides frequencies by."""
    kind = rope_type(config)
    if kind == "longrope":
        for length in ("short", "long"):
            factors = rope_settings(config)[f"{length}_factor"]
            yield f"rope_factors_{length}.weight", np.array(factors, np.float32)
    elif kind in FACTOR_TYPES:
        frequencies = np.asarray(_frequencies(config)[0], np.float64)
        size = 2 * len(frequencies)
        plain = _base(config, rope_settings(config)) ** -(np.arange(0, size, 2) / size)
        with np.errstate(divide="ignore"):
            factors = np.where(frequencies > 0, plain / frequencies, 1e30)
        yield "rope_freqs.weight", factors.astype(np.float32)


def check_rope(config: Any) -> None:
    """Checks that llama.cpp can compute a network's RoPE.

    Raises:
        ZephyrError: its scaling is of a type, or has a setting, that GGUF has no key for.
    """
    kind, settings = rope_type(config), rope_settings(config)
    if kind not in ROPE_TYPES:
        raise unsupported(f"rope_type: {kind}", ", ".join(ROPE_TYPES))
    if kind == "yarn" and settings.get("truncate") is False:
        raise unsupported("yarn with truncate: false", "truncate: true")


def unsupported(found: str, allowed: str) -> ZephyrError:
    """The error for a setting that llama.cpp has no equivalent of."""
    return ZephyrError(
        "llama.cpp does not compute this network as transformers does",
        found=found,
        allowed=allowed,
        todo="export it with --to merged",
    )


def _base(config: Any, settings: dict[str, Any]) -> float:
    return float(settings.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0)


def _frequencies(config: Any) -> tuple[Any, float]:
    """transformers' own frequencies [rotary size / 2] and attention factor of a network."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = rope_type(config)
    per_layer = "full_attention" in (getattr(config, "rope_parameters", None) or {})
    options = {"layer_type": "full_attention"} if per_layer else {}
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", **options)
    return frequencies, float(factor)
