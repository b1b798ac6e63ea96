"""How each model of a recipe was derived (base, SFT, DPO, quantization, …), in a few words."""

from pathlib import Path

from zephyr.recipe.models import ModelSpec
from zephyr.recipe.quantization import Quantize
from zephyr.recipe.training import Lora


def describe_derivation(model: ModelSpec) -> str:
    """Describes how a model was derived (base, SFT, DPO, quantization, …) in a few words."""
    if model.base is not None:
        return f"base {Path(model.base).name if Path(model.base).is_absolute() else model.base}"
    if model.pretrain is not None:
        return f"pretrained on {model.pretrain.data}"
    if model.tune is not None:
        how = "all weights"
        if isinstance(model.tune.lora, Lora):
            kind = f"QLoRA {model.tune.load}" if model.tune.load else "LoRA"
            how = f"{kind} r{model.tune.lora.rank}"
        return f"SFT ({how}) on {model.tune.data}"
    if model.align is not None:
        fresh = model.align.adapter == "fresh"
        how = f"LoRA r{model.align.lora.rank}" if fresh else "its adapter"
        loss = {"simpo": "SimPO"}.get(model.align.loss, model.align.loss.upper())
        return f"{loss} β {model.align.beta:g} ({how}) on {model.align.data}"
    assert model.quantize is not None, "a recipe's model has an origin or an act"
    return _describe_quantization(model.quantize)


def _describe_quantization(spec: Quantize) -> str:
    """Describes how weights were quantized, in a few words."""
    if spec.method == "whole":
        return "its adapters on whole weights"
    if spec.method == "merged":
        return "merged"
    description = (
        spec.method if spec.method not in ("int4", "gptq") else f"{spec.method} g{spec.group}"
    )
    if spec.method in ("nf4", "fp4") and not spec.double:
        description += ", scales not quantized"
    if spec.compute != "float32":
        description += f", computed in {spec.compute}"
    if spec.embeddings:
        description += f", embeddings {spec.embeddings}"
    return description
