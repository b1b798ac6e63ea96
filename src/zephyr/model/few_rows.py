"""Products of a few rows with a weight, in the order in which this processor is quicker.

x W' and (W x')' are the same sums. Which of the two a library computes quicker for 2 to 16 rows, as
a batch of answers has them at each token, depends on the processor: without AVX-512 the second took
0.5 to 0.7 of the time in float32, and with it the first may be the quicker one. So both are tried.
"""

import time
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

MOST = 16
"""Rows up to which the order matters."""

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
    if not layers or not _gains(layers[0].weight):
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


@torch.inference_mode()
def _gains(weight: Tensor) -> bool:
    """Whether the other order is quicker for eight rows, at the best of some tries."""
    x = torch.ones(8, weight.shape[1])
    usual = _seconds(lambda: nn.functional.linear(x, weight))
    return usual > GAIN * _seconds(lambda: transposed(x, weight, None))


def _seconds(product: Callable[[], Tensor]) -> float:
    best = float("inf")
    for _ in range(8):
        begun = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - begun)
    return best
