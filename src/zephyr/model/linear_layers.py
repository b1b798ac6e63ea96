"""Linear layers and weight matrices of a network, and how many of them LoRA or a method reaches.

Experts of a mixture are often one tensor, not layers: neither PEFT's LoRA nor the quantization of
layers reaches them, and a run should say so.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from zephyr.model.fp16_linear import Fp16Embedding


def is_linear(module: nn.Module) -> bool:
    """Whether it is a layer that LoRA can adapt: nn.Linear, bitsandbytes' or GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is GPT-2's Conv1D, a linear layer whose weight is stored transposed."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def linear_layers(causal: Any) -> dict[str, nn.Module]:
    """The linear layers of a network by name, but the LM head; adapters are not among them."""
    head = causal.get_output_embeddings()
    return {
        name.removesuffix(".base_layer"): module
        for name, module in causal.named_modules()
        if is_linear(module) and module is not head and ".lora_" not in name
    }


class Matrices(NamedTuple):
    """Weight matrices: how many they are, and the weights in all of them."""

    number: int
    weights: int

    @classmethod
    def total(cls, parts: Iterable["Matrices"]) -> "Matrices":
        """The sum of several."""
        parts = list(parts)
        return cls(sum(part.number for part in parts), sum(part.weights for part in parts))


class Reach(NamedTuple):
    """How many of a network's weight matrices a method reaches, and the largest of the others."""

    reached: Matrices
    of: Matrices
    unreached: str | None

    @property
    def text(self) -> str:
        """A sentence's part, such as `8 of 20 matrices (31 % of their weights)`."""
        share = 100 * self.reached.weights / max(1, self.of.weights)
        text = (
            f"{self.reached.number} of {self.of.number} matrices ({share:.3g} % of their weights)"
        )
        if self.unreached is None:
            return text
        return f"{text}; the largest of the others is {self.unreached}"

    @property
    def row(self) -> dict[str, Any]:
        """The numbers, for a run's record."""
        return {
            "matrices": self.reached.number,
            "of_matrices": self.of.number,
            "weights": self.reached.weights,
            "of_weights": self.of.weights,
            "unreached": self.unreached,
        }


def measure_reach(causal: Any, names: Iterable[str]) -> Reach:
    """The reach of a method that changes the linear layers of these names."""
    sizes = matrix_sizes(causal)
    reached = {name: sizes[name] for name in names}
    missing = [name for name in sizes if name not in reached]
    largest = max(missing, key=lambda name: sizes[name].weights, default=None)
    return Reach(Matrices.total(reached.values()), Matrices.total(sizes.values()), largest)


def matrix_sizes(causal: Any) -> dict[str, Matrices]:
    """The weight matrices of all blocks by the name of their layer, or of a tensor of experts.

    Embeddings, the LM head and convolutions are not among them; a tensor [E, O, I] is E matrices,
    and a `weight` [O, I] of no linear layer, such as a router's, is one.
    """
    head = causal.get_output_embeddings()
    sizes: dict[str, Matrices] = {}
    for name, module in causal.named_modules():
        if ".lora_" in name or module is head:
            continue
        if is_linear(module):
            sizes[name.removesuffix(".base_layer")] = Matrices(1, layer_weights(module))
        elif not isinstance(module, _OTHER_LAYERS):
            for key, parameter in module.named_parameters(prefix=name, recurse=False):
                if parameter.dim() == 3:  # [experts, O, I]
                    sizes[key] = Matrices(parameter.shape[0], parameter.numel())
                elif parameter.dim() == 2 and key.endswith(".weight"):  # [O, I]
                    sizes[key] = Matrices(1, parameter.numel())
    return sizes


_OTHER_LAYERS = (nn.Embedding, Fp16Embedding, nn.Conv1d, nn.Conv2d, nn.LayerNorm)
"""Layers whose weights are no matrices of a block."""


def layer_weights(module: Any) -> int:
    """The number of weights of a linear layer, whatever form they are stored in."""
    if is_conv1d(module):
        return math.prod(module.weight.shape)
    return int(module.in_features * module.out_features)
