"""One base that answers for several models at once: each row of a batch has its own adapters.

The adapters of all models lie side by side in one A and one B for each layer. A row's products with
those that are not its model's are multiplied by zero, so that a batch of mixed rows takes the same
few products as one of equal rows, and the base is read once for all.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.adapter import CONFIG, WEIGHTS, is_dora
from zephyr.runs.store import read_json


def can_mix(adapters: Sequence[Path]) -> bool:
    """Whether adapters are a sum of products: DoRA also scales the weights of the base."""
    return not any(is_dora(folder) for folder in adapters)


class _Chosen:
    """Whose rows come next: those of one model, or `has` [rows, adapters] of ones and zeros."""

    def __init__(self) -> None:
        self.model = 0
        self.has: Tensor | None = None


class Mixed:
    """Puts the adapters of several models on one network; `choose` says whose rows come next."""

    def __init__(self, causal: Any, models: Sequence[Sequence[Path]]) -> None:
        """`models` are the folders of each model's adapters; an empty one is the base itself.

        The first model is chosen.
        """
        folders = list(dict.fromkeys(folder for stack in models for folder in stack))
        kept = causal.dtype
        device = next(causal.parameters()).device
        self._has = torch.tensor(
            [[float(folder in stack) for folder in folders] for stack in models],
            dtype=kept,
            device=device,
        )
        self._chosen = _Chosen()
        parts: dict[str, list[tuple[int, Tensor, Tensor]]] = {}
        for number, folder in enumerate(folders):
            for layer, a, b in _read(folder):
                found = (number, a.to(device, kept), b.to(device, kept))
                parts.setdefault(layer, []).append(found)
        for name, adapters in parts.items():
            parent, _, last = name.rpartition(".")
            base = causal.get_submodule(name)
            mixed = MixedLinear(base, adapters, self._has, self._chosen)
            setattr(causal.get_submodule(parent), last, mixed)

    def choose(self, models: Sequence[int]) -> None:
        """The model of each row of the coming forwards; one alone stands for all rows."""
        self._chosen.model = models[0]
        same = len(set(models)) == 1
        self._chosen.has = None if same else self._has[list(models)]


class MixedLinear(nn.Module):
    """A layer, and adapters of which each row uses its own.

    x [rows, …, I] gives base(x) + (share * x A') B', with A [R, I] and B [O, R] of all adapters,
    and `share` [rows, …, R] of ones and zeros. Rows that are all of one model take its own alone.
    """

    def __init__(
        self,
        base: nn.Module,
        adapters: Sequence[tuple[int, Tensor, Tensor]],
        has: Tensor,
        chosen: _Chosen,
    ) -> None:
        """`adapters` with their numbers, A and B; `has` [models, adapters] says whose each is."""
        super().__init__()
        self.base = base
        self._chosen = chosen
        ranks = [torch.full((len(a),), number) for number, a, _ in adapters]
        self._places = torch.cat(ranks).to(has.device)
        self._all = _side_by_side(adapters)
        self._own = [
            _side_by_side([found for found in adapters if row[found[0]]]) for row in has.tolist()
        ]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        has = self._chosen.has
        found = self._own[self._chosen.model] if has is None else self._all
        if found is None:
            return out
        a, b = found
        inner = nn.functional.linear(x, a)
        if has is not None:
            inner = inner * has[:, self._places].view(len(has), *[1] * (x.dim() - 2), -1)
        return out.add_(nn.functional.linear(inner, b))


def _side_by_side(
    adapters: Sequence[tuple[int, Tensor, Tensor]],
) -> tuple[Tensor, Tensor] | None:
    """One A [R, I] and one B [O, R] of several; None of none."""
    if not adapters:
        return None
    return torch.cat([a for _, a, _ in adapters]), torch.cat([b for _, _, b in adapters], dim=1)


def _read(folder: Path) -> list[tuple[str, Tensor, Tensor]]:
    """The layers that an adapter changes, each with its A [R, I], scaled, and its B [O, R]."""
    from safetensors.torch import load_file

    config = read_json(folder / CONFIG)
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
    state = load_file(folder / WEIGHTS)
    found = []
    for key, a in state.items():
        layer, is_a, _ = key.partition(".lora_A.")
        if is_a:
            name = layer.removeprefix("base_model.model.")
            found.append((name, scale * a, state[f"{layer}.lora_B.weight"]))
    return found
