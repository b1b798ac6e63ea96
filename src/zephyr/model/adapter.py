"""LoRA adapters: one to train, frozen ones beneath it, and their files.

Adapters are PEFT's, so that every PEFT program can load them. A model that was tuned and then
aligned carries two: the earlier one frozen, a fresh one on top, which starts at exactly the model
that was there before because its B matrices are zero. For other programs they are written as one.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zephyr.errors import ZephyrError
from zephyr.model.half import HalfLinear
from zephyr.model.lora import fuse
from zephyr.recipe.training import Lora
from zephyr.runs.store import read_json

SMALL = 1 << 24
"""Adapted weights, 64 MiB in float32, up to which a copy of them costs next to nothing."""


def attach(causal: Any, adapters: Sequence[Path]) -> Any:
    """Puts saved adapters, all active and frozen, on a network; returns PEFT's wrapper of it."""
    from peft import PeftModel

    if not adapters:
        return None
    wrapper = PeftModel.from_pretrained(causal, adapters[0], adapter_name=_name(0))
    for number, folder in enumerate(adapters[1:], start=1):
        wrapper.load_adapter(folder, adapter_name=_name(number))
    wrapper.base_model.set_adapter([_name(n) for n in range(len(adapters))])
    wrapper.requires_grad_(False)
    return wrapper


def add_fresh(causal: Any, wrapper: Any, lora: Lora, seed: int) -> Any:
    """Puts a fresh trainable adapter on top of those in `wrapper` (None: on the bare network).

    Raises:
        ZephyrError: the network has no layer that the recipe's targets name.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        target_modules=_targets(causal, lora),
        bias="none",
        fan_in_fan_out=any(is_transposed(m) for m in causal.modules()),
        task_type="CAUSAL_LM",
    )
    count = 0 if wrapper is None else len(wrapper.peft_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if wrapper is None:
            wrapper = get_peft_model(causal, config, adapter_name=_name(0))
        else:
            wrapper.add_adapter(_name(count), config)
    wrapper.base_model.set_adapter([_name(n) for n in range(count + 1)])
    train_top(wrapper)
    fuse(wrapper)
    return wrapper


def train_top(wrapper: Any) -> None:
    """Lets the topmost adapter learn, and nothing else."""
    for name, parameter in wrapper.named_parameters():
        parameter.requires_grad_(is_top(wrapper, name))


def is_top(wrapper: Any, name: str) -> bool:
    """Whether the parameter of this name belongs to the topmost adapter."""
    return f".{_top(wrapper)}." in name


@contextmanager
def without_top(wrapper: Any) -> Iterator[None]:
    """The model that the topmost adapter was put on, for as long as the block lasts."""
    names = list(wrapper.peft_config)
    learning = [p for p in wrapper.parameters() if p.requires_grad]
    wrapper.base_model.set_adapter(names[:-1])
    try:
        yield
    finally:
        wrapper.base_model.set_adapter(names)
        wrapper.requires_grad_(False)  # PEFT takes every adapter that it activates for trainable
        for parameter in learning:
            parameter.requires_grad_(True)


def save(wrapper: Any, folder: Path, base: str) -> None:
    """Writes the topmost adapter as PEFT files; `base` is the name under which they cite theirs."""
    from peft import get_peft_model_state_dict

    top = _top(wrapper)
    state = get_peft_model_state_dict(wrapper, adapter_name=top, save_embedding_layers=False)
    config = wrapper.peft_config[top].to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    _write(state, {k: v for k, v in config.items() if _is_json(v)}, folder, base)


def save_as_one(adapters: Sequence[Path], folder: Path, base: str) -> None:
    """Writes saved adapters that stand on each other as one, whose rank is the sum of theirs.

    The sum of s B A over them, with s the scale of each, is one product: the B side by side, and
    the s A one below the other. Where a layer lacks an adapter, zeros stand for it.

    Raises:
        ZephyrError: one of several is a DoRA adapter, which is no such sum.
    """
    from safetensors.torch import load_file
    from torch.nn.functional import pad

    configs = [read_json(path / CONFIG) for path in adapters]
    states = [load_file(path / WEIGHTS) for path in adapters]
    if len(adapters) == 1:
        _write(states[0], configs[0], folder, base)
        return
    if any(config["use_dora"] for config in configs):
        raise ZephyrError(
            "several adapters can't be written as one where one of them is DoRA",
            todo="train them without `lora.dora`, or align with `adapter: continue`",
        )
    parts: dict[str, list[torch.Tensor]] = {}
    for config, state in zip(configs, states, strict=True):
        rank = config["r"]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
        for key, matrix in state.items():
            parts.setdefault(key, []).append(scale * matrix if ".lora_A." in key else matrix)
    rank = sum(config["r"] for config in configs)
    one = {}
    for key, matrices in parts.items():
        whole = torch.cat(matrices, dim=0 if ".lora_A." in key else 1)
        missing = (0, 0, 0, rank - len(whole)) if ".lora_A." in key else (0, rank - whole.shape[1])
        one[key] = pad(whole, missing)
    targets = sorted({target for config in configs for target in config["target_modules"]})
    facts = {"r": rank, "lora_alpha": rank, "use_rslora": False, "target_modules": targets}
    _write(one, configs[0] | facts, folder, base)


CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def _write(state: dict[str, torch.Tensor], config: dict[str, Any], folder: Path, base: str) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    facts = config | {"base_model_name_or_path": base, "inference_mode": True}
    (folder / CONFIG).write_text(json.dumps(facts, indent=1, sort_keys=True))


def is_dora(folder: Path) -> bool:
    """Whether a saved adapter is a DoRA, which is no sum: it scales the weights of the base."""
    found: bool = read_json(folder / CONFIG)["use_dora"]
    return found


def merge(wrapper: Any) -> Any:
    """The bare network with all adapters added into its weights."""
    return wrapper.merge_and_unload(adapter_names=list(wrapper.peft_config))


def _top(wrapper: Any) -> str:
    """What PEFT calls the topmost adapter."""
    return _name(len(wrapper.peft_config) - 1)


@contextmanager
def merged(wrapper: Any) -> Iterator[None]:
    """A small network with all adapters added into copies of its weights, for as long as it lasts.

    It decodes in half the time, and its weights are then the very tensors that they were. Large
    networks gain little, and rounded weights would lose what an adapter adds: both stay as they
    are.
    """
    from peft.tuners.lora import LoraLayer

    modules = [] if wrapper is None else wrapper.modules()
    layers = [module for module in modules if isinstance(module, LoraLayer)]
    bases = [layer.get_base_layer() for layer in layers]
    kept = [base.weight.data for base in bases]
    rounded = any(isinstance(b, HalfLinear) or b.weight.dtype != torch.float32 for b in bases)
    if not layers or rounded or sum(weight.numel() for weight in kept) > SMALL:
        yield
        return
    wrapper.base_model.merge_adapter(safe_merge=True)  # into copies
    try:
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters.clear()


def _name(number: int) -> str:
    """What PEFT calls the adapter; a bare number would also match the numbers of layers there."""
    return f"stage{number}"


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _targets(causal: Any, lora: Lora) -> list[str]:
    """The last parts of the names of the layers that get an adapter; never the head."""
    head = causal.get_output_embeddings()
    linear = [
        name.removesuffix(".base_layer")
        for name, module in causal.named_modules()
        if is_linear(module) and module is not head and ".lora_" not in name
    ]
    endings = {name.rsplit(".", 1)[-1] for name in linear}
    wanted = lora.targets
    if wanted == "all-linear":
        return sorted(endings)
    found = endings & set(ATTENTION_INPUTS if wanted == "attention-inputs" else wanted)
    missing = set() if wanted == "attention-inputs" else set(wanted) - found
    if missing or not found:
        raise ZephyrError(
            "no layer has the name of a LoRA target",
            where="lora.targets",
            found=", ".join(sorted(missing)) or wanted,
            allowed=["all-linear", "attention-inputs", *sorted(endings)],
        )
    return sorted(found)


ATTENTION_INPUTS = ("q_proj", "v_proj", "query_key_value", "c_attn")
"""What the seed's tool adapted unless told otherwise: q and v, or the fused projection."""


def is_linear(module: nn.Module) -> bool:
    """Whether PEFT can adapt it: torch's and bitsandbytes' linear layers, and GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's Conv1D, a linear layer that keeps its weight the other way round."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)
