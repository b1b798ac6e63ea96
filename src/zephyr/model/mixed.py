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

from zephyr.model.adapter import CONFIG, WEIGHTS
from zephyr.store import read_json


def can_mix(adapters: Sequence[Path]) -> bool:
    """Whether adapters are a sum of products: DoRA also scales the weights of the base."""
    return not any(read_json(folder / CONFIG)["use_dora"] for folder in adapters)


class Mixed:
    """Puts the adapters of several models on one network; `choose` says whose rows come next."""

    def __init__(self, causal: Any, models: Sequence[Sequence[Path]]) -> None:
        """`models` are the folders of each model's adapters; an empty one is the base itself."""
        folders = list(dict.fromkeys(folder for stack in models for folder in stack))
        self._has = torch.tensor(
            [[float(folder in stack) for folder in folders] for stack in models],
            dtype=next(p.dtype for p in causal.parameters() if p.is_floating_point()),
        )
        parts: dict[str, list[tuple[int, Tensor, Tensor]]] = {}
        for number, folder in enumerate(folders):
            for layer, a, b in _read(folder):
                parts.setdefault(layer, []).append((number, a, b))
        self._layers = [_put(causal, name, found) for name, found in parts.items()]

    def choose(self, models: Sequence[int]) -> None:
        """The model of each row of the coming forwards; one alone stands for all rows."""
        same = len(set(models)) == 1
        has = self._has[[models[0]] if same else list(models)]
        for layer in self._layers:
            layer.choose(has)


class MixedLinear(nn.Module):
    """A layer, and adapters of which each row uses its own.

    x [rows, …, I] gives base(x) + (share * x A') B', with A [R, I] and B [O, R] of all adapters,
    and `share` [rows or 1, …, R] of ones and zeros.
    """

    places: Tensor
    a: Tensor
    b: Tensor

    def __init__(self, base: nn.Module, places: Tensor, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("a", a, persistent=False)
        self.register_buffer("b", b, persistent=False)
        self.share: Tensor | None = None

    def choose(self, has: Tensor) -> None:
        """`has` [rows or 1, adapters] says which adapters each row uses."""
        share = has.to(self.a.device)[:, self.places]
        self.share = share if bool(share.any()) else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        if self.share is None:
            return out
        share = self.share.view(len(self.share), *[1] * (x.dim() - 2), -1)
        inner = (x.to(self.a.dtype) @ self.a.T) * share
        return out.add_((inner @ self.b.T).to(out.dtype))


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


def _put(causal: Any, name: str, found: Sequence[tuple[int, Tensor, Tensor]]) -> MixedLinear:
    base = causal.get_submodule(name)
    kept = next(p.dtype for p in causal.parameters() if p.is_floating_point())
    device = next(causal.parameters()).device
    places = torch.cat([torch.full((len(a),), number) for number, a, _ in found])
    layer = MixedLinear(
        base,
        places.to(device),
        torch.cat([a for _, a, _ in found]).to(device, kept),
        torch.cat([b for _, _, b in found], dim=1).to(device, kept),
    )
    parent, _, last = name.rpartition(".")
    setattr(causal.get_submodule(parent), last, layer)
    return layer
