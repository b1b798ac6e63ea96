"""Products of a few rows with a weight, in the order in which this processor is quicker.

x W' and (W x')' are the same sums. Which of the two a library computes quicker for 2 to 16 rows, as
a batch of answers has them at each token, depends on the processor: without AVX-512 the second took
0.5 to 0.7 of the time in float32, and with it the first may be the quicker one. So both are tried.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

MOST = 16
"""Rows up to which the order matters."""

TRIED = 8
"""Weights with which both orders are tried."""

GAIN = 1.2
"""How many times as quick the other order must be to be taken."""


def hasten(causal: Any) -> bool:
    """Has the linear layers of a network compute few rows in the quicker order; says if it did.

    Only those in float32 on a processor are tried: no other product has this choice.
    """
    layers = [
        layer
        for layer in causal.modules()
        if type(layer) is nn.Linear
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
    ]
    if not layers or not _gains(_largest([layer.weight for layer in layers])):
        return False
    for layer in layers:
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
    return True


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., I], weight [O, I], bias [O] or None: x W' + bias [..., O], by way of W x'."""
    rows = x.reshape(-1, x.shape[-1])
    out = (weight @ rows.T).T
    if bias is not None:
        out = out + bias
    return out.reshape(*x.shape[:-1], -1)


def _forward(layer: Any, x: Tensor) -> Tensor:
    few = 1 < x.numel() // x.shape[-1] <= MOST
    return (transposed if few else nn.functional.linear)(x, layer.weight, layer.bias)


def _largest(weights: list[Tensor]) -> list[Tensor]:
    """Some weights of the largest shape that several have: more of them than caches hold."""
    sizes = Counter(weight.shape for weight in weights)
    common = [shape for shape, number in sizes.items() if number > 1] or list(sizes)
    largest = max(common, key=math.prod)
    return [weight for weight in weights if weight.shape == largest][:TRIED]


@torch.inference_mode()
def _gains(weights: list[Tensor]) -> bool:
    """Whether the other order is quicker for eight rows, at the best of some tries."""
    x = torch.ones(8, weights[0].shape[1])
    usual = _seconds(lambda: [nn.functional.linear(x, weight) for weight in weights])
    return usual > GAIN * _seconds(lambda: [transposed(x, weight, None) for weight in weights])


def _seconds(products: Callable[[], list[Tensor]]) -> float:
    best = float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        products()
        best = min(best, time.perf_counter() - begun)
    return best
