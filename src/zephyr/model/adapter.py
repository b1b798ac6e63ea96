"""LoRA adapters: a fresh one to train, frozen ones beneath it, and their files.

Adapters are PEFT's, so that every PEFT program can load them. A model that was tuned and then
aligned carries two: the earlier one frozen, a fresh one on top, which starts at exactly the model
that was there before because its B matrices are zero.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zephyr.errors import ZephyrError
from zephyr.model.lora import fuse
from zephyr.recipe import Lora


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
    fuse(wrapper)
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
        target_modules=_targets(causal, lora),
        bias="none",
        fan_in_fan_out=any(_is_transposed(m) for m in causal.modules()),
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
    for name, parameter in wrapper.named_parameters():
        parameter.requires_grad_(f".{_name(count)}." in name)
    fuse(wrapper)
    return wrapper


def save(wrapper: Any, folder: Path, base: str) -> None:
    """Writes the topmost adapter as PEFT files; `base` is the name under which they cite theirs."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    top = _name(len(wrapper.peft_config) - 1)
    state = get_peft_model_state_dict(wrapper, adapter_name=top, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = wrapper.peft_config[top].to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True}
    config["target_modules"] = sorted(config["target_modules"])
    config = {k: v for k, v in config.items() if _is_json(v)}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))


def merge(wrapper: Any) -> Any:
    """The bare network with all adapters added into its weights."""
    return wrapper.merge_and_unload(adapter_names=list(wrapper.peft_config))


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
        if _is_linear(module) and module is not head and ".lora_" not in name
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


def _is_linear(module: nn.Module) -> bool:
    """Whether PEFT can adapt it: torch's and bitsandbytes' linear layers, and GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's Conv1D, a linear layer that keeps its weight the other way round."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)
