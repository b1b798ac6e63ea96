"""LoRA adapters (PEFT): a trainable one on top of frozen ones; saving, loading, merging.

Adapters are PEFT's, so that every PEFT program can load them. A model that was tuned (SFT) and then
aligned (DPO) carries two: the earlier one frozen, a fresh one on top, which at first changes
nothing because its B matrices are zero. For other programs they are concatenated into one.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from zephyr.errors import ZephyrError
from zephyr.model.fp16_linear import Fp16Linear
from zephyr.model.linear_layers import Reach, is_conv1d, measure_reach
from zephyr.model.lora import fuse_lora
from zephyr.model.lora_targets import choose_targets
from zephyr.recipe.training import Lora
from zephyr.runs.store import read_json

MAX_MERGED_WEIGHTS = 1 << 24
"""Weights of adapted layers (64 MiB in float32) up to which they are merged for generation."""


def attach_adapters(causal: Any, adapters: Sequence[Path]) -> Any:
    """Loads saved adapters, all active and frozen, onto a network; returns the PEFT model."""
    from peft import PeftModel

    if not adapters:
        return None
    peft_model = PeftModel.from_pretrained(causal, adapters[0], adapter_name=_adapter_name(0))
    for number, folder in enumerate(adapters[1:], start=1):
        peft_model.load_adapter(folder, adapter_name=_adapter_name(number))
    peft_model.base_model.set_adapter([_adapter_name(n) for n in range(len(adapters))])
    peft_model.requires_grad_(False)
    return peft_model


def add_trainable_adapter(causal: Any, peft_model: Any, lora: Lora, seed: int) -> Any:
    """Adds a new trainable LoRA adapter on top of those in `peft_model` (None: a bare network).

    Raises:
        ZephyrError: the network has no layer that the recipe's targets name, or it can have none.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        target_modules=choose_targets(causal, lora),
        bias="none",
        fan_in_fan_out=any(is_conv1d(m) for m in causal.modules()),
        task_type="CAUSAL_LM",
    )
    count = 0 if peft_model is None else len(peft_model.peft_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if peft_model is None:
            peft_model = get_peft_model(causal, config, adapter_name=_adapter_name(0))
        else:
            peft_model.add_adapter(_adapter_name(count), config)
    peft_model.base_model.set_adapter([_adapter_name(n) for n in range(count + 1)])
    train_top_adapter(peft_model)
    fuse_lora(peft_model)
    return peft_model


def train_top_adapter(peft_model: Any) -> None:
    """Makes the topmost adapter trainable (`requires_grad`), and freezes all else."""
    for name, parameter in peft_model.named_parameters():
        parameter.requires_grad_(is_top_adapter_parameter(peft_model, name))


def is_top_adapter_parameter(peft_model: Any, name: str) -> bool:
    """Whether the parameter of this name belongs to the topmost adapter."""
    return f".{_top_adapter_name(peft_model)}." in name


def top_adapter_reach(peft_model: Any) -> Reach:
    """How many of the network's weight matrices the topmost adapter reaches."""
    from peft.tuners.lora import LoraLayer

    causal, top = peft_model.get_base_model(), _top_adapter_name(peft_model)
    layers = [(n, m) for n, m in causal.named_modules() if isinstance(m, LoraLayer)]
    return measure_reach(causal, [name for name, layer in layers if top in layer.lora_A])


@contextmanager
def disable_top_adapter(peft_model: Any) -> Iterator[None]:
    """Context manager that disables the topmost adapter: the reference model (DPO)."""
    names = list(peft_model.peft_config)
    trainable = [p for p in peft_model.parameters() if p.requires_grad]
    peft_model.base_model.set_adapter(names[:-1])
    try:
        yield
    finally:
        peft_model.base_model.set_adapter(names)
        peft_model.requires_grad_(False)  # PEFT takes every adapter that it activates for trainable
        for parameter in trainable:
            parameter.requires_grad_(True)


def save_adapter(peft_model: Any, folder: Path, base: str) -> None:
    """Saves the topmost adapter as PEFT files; `base` is their `base_model_name_or_path`."""
    from peft import get_peft_model_state_dict

    top = _top_adapter_name(peft_model)
    state = get_peft_model_state_dict(peft_model, adapter_name=top, save_embedding_layers=False)
    config = peft_model.peft_config[top].to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    _write_adapter(
        state, {k: v for k, v in config.items() if _is_json_serializable(v)}, folder, base
    )


def save_concatenated(adapters: Sequence[Path], folder: Path, base: str) -> None:
    """Saves a stack of LoRA adapters as one, concatenated: its rank is the sum of theirs.

    The sum of s B A over them, with s the scale of each, is one product: the B side by side, and
    the s A one below the other. Where a layer lacks an adapter, zeros stand for it.

    Raises:
        ZephyrError: one of several is a DoRA adapter, which is no such sum.
    """
    from safetensors.torch import load_file
    from torch.nn.functional import pad

    configs = [read_json(path / CONFIG_FILE) for path in adapters]
    states = [load_file(path / WEIGHTS_FILE) for path in adapters]
    if len(adapters) == 1:
        _write_adapter(states[0], configs[0], folder, base)
        return
    if any(config["use_dora"] for config in configs):
        raise ZephyrError(
            "several adapters can't be written as one where one of them is DoRA",
            todo="train them without `lora.dora`, or align with `adapter: continue`",
        )
    matrices_by_key: dict[str, list[torch.Tensor]] = {}
    for config, state in zip(configs, states, strict=True):
        rank = config["r"]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
        for key, matrix in state.items():
            matrices_by_key.setdefault(key, []).append(
                scale * matrix if ".lora_A." in key else matrix
            )
    rank = sum(config["r"] for config in configs)
    combined = {}
    for key, matrices in matrices_by_key.items():
        stacked = torch.cat(matrices, dim=0 if ".lora_A." in key else 1)
        padding = (
            (0, 0, 0, rank - len(stacked)) if ".lora_A." in key else (0, rank - stacked.shape[1])
        )
        combined[key] = pad(stacked, padding)
    targets = sorted({target for config in configs for target in config["target_modules"]})
    settings = {"r": rank, "lora_alpha": rank, "use_rslora": False, "target_modules": targets}
    _write_adapter(combined, configs[0] | settings, folder, base)


CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def _write_adapter(
    state: dict[str, torch.Tensor], config: dict[str, Any], folder: Path, base: str
) -> None:
    """Writes an adapter in PEFT's format: safetensors and `adapter_config.json`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        folder / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
    settings = config | {"base_model_name_or_path": base, "inference_mode": True}
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=1, sort_keys=True))


def is_dora(folder: Path) -> bool:
    """Whether a saved adapter is DoRA, which can't be concatenated: it rescales base weights."""
    uses_dora: bool = read_json(folder / CONFIG_FILE)["use_dora"]
    return uses_dora


def merge_adapters(peft_model: Any) -> Any:
    """Merges all adapters into the base weights; returns the bare network."""
    return peft_model.merge_and_unload(adapter_names=list(peft_model.peft_config))


def _top_adapter_name(peft_model: Any) -> str:
    """The adapter name in PEFT of the topmost adapter."""
    return _adapter_name(len(peft_model.peft_config) - 1)


@contextmanager
def temporarily_merged(peft_model: Any) -> Iterator[None]:
    """Context manager that merges all adapters of a small network, for faster generation.

    Decoding takes half the time; the merge is into copies, and the original tensors are restored.
    Large networks gain little, and 16-bit or quantized weights would round off what an adapter
    adds: both stay unmerged.
    """
    from peft.tuners.lora import LoraLayer

    modules = [] if peft_model is None else peft_model.modules()
    layers = [module for module in modules if isinstance(module, LoraLayer)]
    bases = [layer.get_base_layer() for layer in layers]
    original_weights = [base.weight.data for base in bases]
    is_rounded = any(isinstance(b, Fp16Linear) or b.weight.dtype != torch.float32 for b in bases)
    if (
        not layers
        or is_rounded
        or sum(weight.numel() for weight in original_weights) > MAX_MERGED_WEIGHTS
    ):
        yield
        return
    peft_model.base_model.merge_adapter(safe_merge=True)  # into copies
    try:
        yield
    finally:
        for layer, weight in zip(layers, original_weights, strict=True):
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters.clear()


def _adapter_name(number: int) -> str:
    """The adapter name in PEFT; a bare number would also match the numbers of layers there."""
    return f"stage{number}"


def _is_json_serializable(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
