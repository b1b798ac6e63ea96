"""Names of transformers 4 in the files of an export: tokenizer class, RoPE settings, dtype.

transformers 5 writes names that version 4 does not know: it refuses the tokenizer, and silently
computes with other rotary frequencies. The older names say the same, and version 5 reads them too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zephyr.runs.store import read_json, write_json

OLDEST_VERSION = "4.53"
"""The oldest version of transformers with which exports are tested."""
TESTED_MODEL_TYPES = (
    "bloom",
    "cohere2",
    "gemma3_text",
    "gpt2",
    "llama",
    "mistral",
    "phi3",
    "qwen2",
    "qwen3",
    "starcoder2",
)
"""Architectures whose exports are tested with it (tests/export/test_transformers_4.py)."""


def add_older_names(folder: Path) -> list[str]:
    """Adds the names of transformers 4 to an export's files; returns a note for the model card."""
    _rewrite(folder / "tokenizer_config.json", _older_tokenizer_config)
    _rewrite(folder / "config.json", _older_config)
    path = folder / "config.json"
    if not path.exists():  # an adapter: its base says which version reads it
        return []
    settings = read_json(path)
    is_quantized = "quantization_config" in settings
    if settings["model_type"] in TESTED_MODEL_TYPES and not is_quantized:
        return [f"It loads in transformers {OLDEST_VERSION}, with which this is tested, and newer."]
    kind = f"{'quantized ' if is_quantized else ''}{settings['model_type']}"
    note = (
        f"It was written by transformers {settings['transformers_version']}; whether version 4 "
        f"reads an export of {kind} has not been tested."
    )
    return [note]


def _rewrite(path: Path, change: Any) -> None:
    if path.exists():
        write_json(path, change(read_json(path)))


def _older_tokenizer_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json without what version 4 does not know."""
    changed = dict(settings)
    if changed.get("tokenizer_class") == "TokenizersBackend":
        changed["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(changed.get("extra_special_tokens"), list):
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    for key in ("backend", "is_local", "local_files_only"):
        changed.pop(key, None)
    return changed


def _older_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json that has RoPE settings and dtype under their older names as well.

    Those of each layer type (Gemma 3) are named by that of full attention, and Gemma's name for
    the other.
    """
    changed = dict(settings)
    if "dtype" in changed:
        changed["torch_dtype"] = changed["dtype"]
    parameters = changed.get("rope_parameters") or {}
    if "full_attention" in parameters:
        sliding = parameters.get("sliding_attention") or {}
        if "rope_theta" in sliding:
            changed["rope_local_base_freq"] = sliding["rope_theta"]
        parameters = parameters["full_attention"]
    if not parameters:
        return changed
    rest = dict(parameters)
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rest:
            changed[key] = rest.pop(key)
    kind = rest.get("rope_type", "default")
    if "original_max_position_embeddings" in rest:
        changed["original_max_position_embeddings"] = rest["original_max_position_embeddings"]
    if kind == "longrope":  # version 4 takes these three alone
        rest = {"type": kind} | {key: rest[key] for key in ("short_factor", "long_factor")}
    changed["rope_scaling"] = None if kind == "default" else rest
    return changed
