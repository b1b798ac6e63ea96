"""Multi-LoRA serving: one base model, and each row of a batch with its own adapters.

The adapters of all models are concatenated into one A and one B for each layer. A row's products
with those that are not its model's are multiplied by zero (`adapter_mask`), so that a batch of
mixed rows takes as few matmuls as one of equal rows, and the base weights are read once for all.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.adapter import CONFIG_FILE, WEIGHTS_FILE, is_dora
from zephyr.runs.store import read_json


def can_batch_adapters(adapters: Sequence[Path]) -> bool:
    """Whether adapters can be batched.

    DoRA can't, for it also scales the weights of the base; nor can adapters of experts, which get
    the tokens that were routed to them, whatever rows these are of.
    """
    return not any(is_dora(folder) or _adapts_experts(folder) for folder in adapters)


def _adapts_experts(folder: Path) -> bool:
    return any(".experts." in layer for layer, _, _ in _read_adapter(folder))


class _RowSelection:
    """Which model each row uses: one for all, or `adapter_mask` [B, adapters] of 0 and 1."""

    def __init__(self) -> None:
        self.model = 0
        self.adapter_mask: Tensor | None = None


class MultiLora:
    """Multi-LoRA on one network: `select_models` sets whose adapters each row of a batch uses."""

    def __init__(self, causal: Any, models: Sequence[Sequence[Path]]) -> None:
        """`models` are the folders of each model's adapters; an empty list is the base model.

        The first model is selected.
        """
        folders = list(dict.fromkeys(folder for stack in models for folder in stack))
        dtype = causal.dtype
        device = next(causal.parameters()).device
        self._adapter_mask = torch.tensor(
            [[float(folder in stack) for folder in folders] for stack in models],
            dtype=dtype,
            device=device,
        )
        self._selection = _RowSelection()
        adapters_by_layer: dict[str, list[tuple[int, Tensor, Tensor]]] = {}
        for number, folder in enumerate(folders):
            for layer, a, b in _read_adapter(folder):
                entry = (number, a.to(device, dtype), b.to(device, dtype))
                adapters_by_layer.setdefault(layer, []).append(entry)
        for name, adapters in adapters_by_layer.items():
            parent, _, attribute = name.rpartition(".")
            base = causal.get_submodule(name)
            layer_with_adapters = MultiLoraLinear(
                base, adapters, self._adapter_mask, self._selection
            )
            setattr(causal.get_submodule(parent), attribute, layer_with_adapters)

    def select_models(self, models: Sequence[int]) -> None:
        """Selects the model (adapters) of each row of the next batches; a single one is for all."""
        self._selection.model = models[0]
        is_one_model = len(set(models)) == 1
        self._selection.adapter_mask = None if is_one_model else self._adapter_mask[list(models)]


class MultiLoraLinear(nn.Module):
    """A linear layer with several LoRA adapters, of which each row of a batch uses its own.

    x [B, …, I] gives base(x) + (mask * x A') B', with A [R, I] and B [O, R] of all adapters, and
    `mask` [B, …, R] of ones and zeros. Rows that are all of one model take its own alone. Some
    networks (OPT, shared experts) flatten the tokens of rows: x is [B * T, I] there.
    """

    def __init__(
        self,
        base: nn.Module,
        adapters: Sequence[tuple[int, Tensor, Tensor]],
        adapter_mask: Tensor,
        selection: _RowSelection,
    ) -> None:
        """`adapters` with their numbers, A and B; `adapter_mask` [models, adapters] says whose."""
        super().__init__()
        self.base = base
        self._selection = selection
        ranks = [torch.full((len(a),), number) for number, a, _ in adapters]
        self._adapter_of_rank = torch.cat(ranks).to(adapter_mask.device)
        self._all_adapters = _concatenate_adapters(adapters)
        self._adapters_by_model = [
            _concatenate_adapters([entry for entry in adapters if row[entry[0]]])
            for row in adapter_mask.tolist()
        ]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        adapter_mask = self._selection.adapter_mask
        matrices = (
            self._adapters_by_model[self._selection.model]
            if adapter_mask is None
            else self._all_adapters
        )
        if matrices is None:
            return out
        a, b = matrices
        inner = nn.functional.linear(x, a)
        if adapter_mask is not None:
            row_mask = adapter_mask[:, self._adapter_of_rank]
            row_mask = row_mask.repeat_interleave(len(x) // len(row_mask), dim=0)
            inner = inner * row_mask.view(len(x), *[1] * (x.dim() - 2), -1)
        return out.add_(nn.functional.linear(inner, b))


def _concatenate_adapters(
    adapters: Sequence[tuple[int, Tensor, Tensor]],
) -> tuple[Tensor, Tensor] | None:
    """Several adapters concatenated into one A [R, I] and one B [O, R]; None of none."""
    if not adapters:
        return None
    return torch.cat([a for _, a, _ in adapters]), torch.cat([b for _, _, b in adapters], dim=1)


def _read_adapter(folder: Path) -> list[tuple[str, Tensor, Tensor]]:
    """The layers of a saved adapter, each with its A [R, I], scaled, and its B [O, R]."""
    from safetensors.torch import load_file

    config = read_json(folder / CONFIG_FILE)
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
    state = load_file(folder / WEIGHTS_FILE)
    layers = []
    for key, a in state.items():
        layer, is_a, _ = key.partition(".lora_A.")
        if is_a:
            name = layer.removeprefix("base_model.model.")
            layers.append((name, scale * a, state[f"{layer}.lora_B.weight"]))
    return layers
