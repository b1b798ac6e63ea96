"""LoRA targets: the linear layers that an adapter reaches, as PEFT's `target_modules` name them.

Not every linear layer can have an adapter. Kernels of Mamba layers read some weights without
calling the layer, so that an adapter would change nothing there; the output of some layers only
chooses (an index of what is attended to), and gets no gradient; and PEFT takes some names for the
experts of a mixture. Such layers are left out, and one that a recipe names is refused.
"""

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.errors import ZephyrError
from zephyr.model.linear_layers import linear_layers
from zephyr.recipe.training import Lora
from zephyr.system.devices import fork_rng

ATTENTION_INPUTS = ("q_proj", "v_proj", "query_key_value", "c_attn")
"""The default targets of the original tool: q and v, or the fused projection."""

_READ_DIRECTLY = "a kernel reads its weight without calling the layer"
_TAKEN_FOR_EXPERTS = "PEFT takes this name for the experts of a mixture"
_NO_GRADIENT = "no gradient reaches its weights"

_PROBE_TOKENS = 24


def choose_targets(causal: Any, lora: Lora) -> list[str]:
    """PEFT's `target_modules` for a recipe's `lora.targets`: never the LM head.

    Each is the shortest end of a name that no other module has: `q_proj`, or `mixer.out_proj` where
    another `out_proj` can't have an adapter. In a layer of a list a number is not enough.

    Raises:
        ZephyrError: no layer has one of the recipe's names, or none of them can have an adapter.
    """
    layers = linear_layers(causal)
    problems = _find_problems(causal, layers)
    endings = {name.rsplit(".", 1)[-1] for name in layers}
    usable_endings = {name.rsplit(".", 1)[-1] for name in layers.keys() - problems.keys()}
    if lora.targets == "all-linear":
        requested = usable_endings
    elif lora.targets == "attention-inputs":
        requested = usable_endings & set(ATTENTION_INPUTS)
    else:
        requested = set(lora.targets)
    missing = requested - endings
    allowed = ["all-linear", "attention-inputs", *sorted(usable_endings)]
    if missing or not requested:
        raise ZephyrError(
            "no layer has the name of a LoRA target",
            where="lora.targets",
            found=", ".join(sorted(missing)) or str(lora.targets),
            allowed=allowed,
        )
    if unusable := sorted(requested - usable_endings):
        reasons = {n.rsplit(".", 1)[-1]: reason for n, reason in problems.items()}
        raise ZephyrError(
            "a LoRA target can't have an adapter in this network",
            where="lora.targets",
            found=", ".join(f"{ending} ({reasons[ending]})" for ending in unusable),
            allowed=allowed,
        )
    chosen = [
        name for name in layers if name not in problems and name.rsplit(".", 1)[-1] in requested
    ]
    taken = {ending for name in _module_names(causal) - set(chosen) for ending in _endings(name)}
    return sorted({next(e for e in _endings(name) if e not in taken) for name in chosen})


def matches_target(name: str, targets: Collection[str]) -> bool:
    """Whether PEFT gives the module of this name an adapter, by a list of `target_modules`."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _module_names(causal: Any) -> set[str]:
    """The names of all modules that PEFT compares with targets."""
    return {
        name.removesuffix(".base_layer")
        for name, _ in causal.named_modules()
        if ".lora_" not in name
    }


def _endings(name: str) -> list[str]:
    """The ends of a module's name in whole parts, shortest first; no bare number is one."""
    parts = name.split(".")
    endings = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
    return endings[1:] if parts[-1].isdigit() else endings


def _find_problems(causal: Any, layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """Why layers can't have an adapter, by name."""
    problems = dict.fromkeys(_without_gradient(causal, layers.keys()), _NO_GRADIENT)
    taken = _names_of_experts(causal, {name.rsplit(".", 1)[-1] for name in layers})
    for name in layers:
        parent, _, attribute = name.rpartition(".")
        if attribute in taken:
            problems[name] = _TAKEN_FOR_EXPERTS
        elif attribute in _read_directly(causal.get_submodule(parent).__class__):
            problems[name] = _READ_DIRECTLY
    return problems


@cache
def _read_directly(module_class: type[nn.Module]) -> frozenset[str]:
    """The layers of a module whose whole weight its own code passes on, or multiplies with.

    What code runs differs by device: the kernels of Mamba run on GPUs alone.
    """
    try:
        source = inspect.getsource(module_class)
    except (OSError, TypeError):
        return frozenset()
    return frozenset(re.findall(r"self\.(\w+)\.weight(?=\s*[,)@])", source))


def _names_of_experts(causal: Any, endings: Collection[str]) -> set[str]:
    """The names that PEFT, in this network, takes for tensors of experts in place of layers."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    taken = set()
    for ending in endings:
        config = LoraConfig(target_modules=[ending])
        try:
            convert_peft_config_for_transformers(config, causal, None)
        except ValueError:  # it asks for others to be named as well
            taken.add(ending)
        else:
            if config.target_modules != {ending}:
                taken.add(ending)
    return taken


def _without_gradient(causal: Any, names: Collection[str]) -> list[str]:
    """The names of layers that a forward pass does not call, or whose weights get no gradient.

    One forward and one backward pass of a few tokens; a network without weights (meta) has none.
    """
    device = next(causal.parameters()).device
    if device.type == "meta":
        return []
    vocabulary = causal.config.get_text_config().vocab_size
    ids = (torch.arange(_PROBE_TOKENS) * 7 + 3) % vocabulary
    with _collect_outputs(causal, names) as outputs:
        logits = causal(input_ids=ids[None].to(device), use_cache=False).logits
        loss = logits.float().logsumexp(dim=-1).sum()
        named = [(name, output) for name, found in outputs.items() for output in found]
        tensors: Sequence[Tensor] = [output for _, output in named]
        gradients = torch.autograd.grad(loss, tensors, allow_unused=True) if tensors else ()
    reached = {
        name
        for (name, _), gradient in zip(named, gradients, strict=True)
        if gradient is not None and bool(gradient.any())
    }
    return [name for name in names if name not in reached]


@contextmanager
def _collect_outputs(causal: Any, names: Collection[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collects what layers make of inputs that are not zero, by name, as in training."""
    outputs: dict[str, list[Tensor]] = {}

    def collect(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            if not output.requires_grad:  # its input and its weights are frozen
                output = output.detach().requires_grad_()
            if bool(arguments[0].any()):  # of an input of zeros nothing can be learned
                outputs.setdefault(name, []).append(output)
            return output.clone()  # what follows may change it in place

        return hook

    was_training = causal.training
    handles = [causal.get_submodule(name).register_forward_hook(collect(name)) for name in names]
    with fork_rng(causal.device), torch.enable_grad():
        causal.train()
        try:
            yield outputs
        finally:
            causal.train(was_training)
            for handle in handles:
                handle.remove()
