"""The text part of a multimodal (composite) checkpoint: its config, class and weights.

Gemma 3 and 4, Ministral 3 or Qwen3.5 are published as one network of a language model and towers
for images and sound. A tutor reads text: the language model alone is loaded, by its own class in
transformers, and the towers' weights are not read. A saved copy is a text network, too.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTED_TYPES = (
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4_unified",
    "internvl",
    "lfm2_vl",
    "llava",
    "mistral3",
    "qwen3_5",
    "qwen3_5_moe",
    "smolvlm",
)
"""Composite model types whose text part gives the logits of the whole (tests/model/test_text_part).

Another may do more with text than its language model alone: PaliGemma reads a prompt in both
directions.
"""

_TEXT_PREFIX = re.compile(r"(?:model\.)?(?:language_model|text_model)\.(?:model\.)?(?=.)")
"""The prefix of a text weight's name in a file: it differs by family and by version."""


def text_part_note(folder: Path) -> str | None:
    """A sentence for runs and model cards, where a base is the text part of a composite network."""
    settings = read_json(folder / "config.json")
    if "text_config" not in settings:
        return None
    return f"Of {settings['model_type']} the text part alone is used: it sees no images or sound."


def whole_prefix(folder: Path) -> str | None:
    """The prefix of the text part's modules in the network that transformers makes of a folder.

    None where that is a text network: of a folder without towers, or of a type such as Qwen3.5, of
    which `AutoModelForCausalLM` takes the text part itself.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = read_json(folder / "config.json")
    if "text_config" not in settings:
        return None
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    classes: Any = AutoModelForCausalLM._model_mapping
    if type(config) in classes and classes[type(config)].config_class is not type(config):
        return None
    return "model.text_model." if settings["model_type"] == "smolvlm" else "model.language_model."


class TextPart(NamedTuple):
    """The text part of a composite network: its config, and its class in transformers."""

    config: Any
    network_class: Any

    def load_arguments(self, folder: Path) -> dict[str, Any]:
        """`from_pretrained` arguments in place of the folder: config, and weights by their names.

        The head is tied as that of the whole is, or where the folder has no weight for it: the two
        configs may differ in `tie_word_embeddings`. Weights that differ are never tied.
        """
        weights = read_text_weights(folder)
        self.config.tie_word_embeddings |= "lm_head.weight" not in weights
        return {"config": self.config, "state_dict": weights}


def find_text_part(folder: Path) -> TextPart | None:
    """The text part of a composite network; None where a folder holds a text network.

    Raises:
        ZephyrError: the text part of this network is not supported.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = read_json(folder / "config.json")
    check_support(settings, folder)
    if "text_config" not in settings:
        return None
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text_config = config.get_text_config()
    classes: Any = AutoModelForCausalLM._model_mapping  # names a class without making a network
    if type(text_config) not in classes:
        raise ZephyrError(
            "the text part of this multimodal network is no causal language model",
            where=str(folder),
            found=f"{config.model_type} with a text part of type {text_config.model_type}",
            todo=_TODO,
        )
    text_config.tie_word_embeddings = config.tie_word_embeddings
    if stored := settings.get("quantization_config"):
        text_config.quantization_config = _text_quantization(stored)
    return TextPart(text_config, classes[type(text_config)])


_TODO = "take a text model of the same family, or another base model"


def check_support(settings: Mapping[str, Any], folder: Path) -> None:
    """Checks by its `config.json` that the text part of a composite network is supported.

    Raises:
        ZephyrError: it is not, or its weights are quantized, and not by bitsandbytes.
    """
    if "text_config" not in settings:
        return
    if settings.get("model_type") not in SUPPORTED_TYPES:
        raise ZephyrError(
            "of a multimodal network the text part is used, and that of this one is not supported",
            where=str(folder),
            found=settings.get("model_type"),
            allowed=SUPPORTED_TYPES,
            todo=_TODO,
        )
    stored = settings.get("quantization_config") or {}
    if stored and stored.get("quant_method") != "bitsandbytes":
        raise ZephyrError(
            "the text part can't be taken out of a multimodal network that is quantized like this",
            where=str(folder),
            found=stored.get("quant_method"),
            allowed="bitsandbytes, or weights that are not quantized",
            todo="take the weights that it was quantized from; `load: nf4` quantizes them here",
        )


def _text_quantization(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of bitsandbytes with the text part's own names of what is not quantized."""
    skipped = stored.get("llm_int8_skip_modules")
    if skipped is None:
        return dict(stored)
    return {
        **stored,
        "llm_int8_skip_modules": [text_weight_name(name) or name for name in skipped],
    }


def read_text_weights(folder: Path) -> "dict[str, Tensor]":
    """The weights of the text part, by their names in its own class; no others are read."""
    from safetensors import safe_open

    weights = {}
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dictionary
                if (text_name := text_weight_name(name)) is not None:
                    weights[text_name] = file.get_tensor(name)
    return weights


def text_weight_name(name: str) -> str | None:
    """The name in the text part's own class of a weight in a file; None if it is of a tower."""
    if name.startswith("lm_head."):
        return name
    match = _TEXT_PREFIX.match(name)
    if match is None:
        return None
    rest = name[match.end() :]
    return rest if rest.startswith("lm_head.") else f"model.{rest}"


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that a folder's index names, or else `model.safetensors`, or else all.

    Some folders hold the same weights a second time, for another program.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    single = folder / "model.safetensors"
    return [single] if single.exists() else sorted(folder.glob("*.safetensors"))
