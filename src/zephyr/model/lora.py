"""The forward of a layer with LoRA adapters, in one function that keeps little and casts nothing.

PEFT computes an adapter in the dtype of its own weights: with a base in bfloat16 it copies every
input to float32 and multiplies there. Here the products of an adapter are made in the dtype of the
layer, into the result of the layer itself; the adapters' own weights, and the sums that the
optimizer keeps of them, stay in float32.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.half import HalfLinear


class _AdaptedLinear(torch.autograd.Function):
    """x [..., I], the layer with weight [O, I], then for each adapter a [R, I] and b [O, R].

    Gives x W' + bias + sum of x a' b'. Each adapter is added by itself: one whose b is zero changes
    no bit.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear, *matrices: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.half = layer if isinstance(layer, HalfLinear) else None
        out: Tensor = layer(rows) if ctx.half is None else ctx.half.product(rows)
        inner = []
        for a, b in zip(matrices[::2], matrices[1::2], strict=True):
            inner.append(rows @ a.T)
            out.addmm_(inner[-1], b.T)
        ctx.save_for_backward(rows, layer.weight, *matrices, *inner)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wants_x, _, *wants = ctx.needs_input_grad
        rows, weight, *rest = ctx.saved_tensors
        matrices, inner = rest[: len(wants)], rest[len(wants) :]
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        to_x = None
        if wants_x:
            to_x = grad @ weight if ctx.half is None else ctx.half.whole_back(grad)
        to_matrices: list[Tensor | None] = []
        for at, (a, b) in enumerate(zip(matrices[::2], matrices[1::2], strict=True)):
            wants_a, wants_b = wants[2 * at], wants[2 * at + 1]
            to_inner = grad @ b if wants_x or wants_a else None
            if to_x is not None:
                to_x.addmm_(to_inner, a)
            to_matrices.append(to_inner.T @ rows if wants_a and to_inner is not None else None)
            to_matrices.append(grad.T @ inner[at] if wants_b else None)
        back = None if to_x is None else to_x.view(*grads[0].shape[:-1], -1)
        return back, None, *to_matrices


def fuse(network: nn.Module) -> None:
    """Gives every adapted layer of `network` the fused forward, where it computes the same.

    A layer keeps PEFT's where the weights under its adapters are quantized, transposed (GPT-2) or
    learn themselves, and where an adapter has dropout, a bias or is a DoRA.
    """
    from peft.tuners.lora import Linear

    for module in network.modules():
        if isinstance(module, Linear):
            module.__dict__.pop("forward", None)
            if _is_plain(module):
                module.forward = MethodType(_forward, module)


def _is_plain(layer: Any) -> bool:
    base = layer.base_layer
    return (
        (
            isinstance(base, HalfLinear)
            or (type(base) is nn.Linear and not base.weight.requires_grad)
        )
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
    )


def _forward(layer: Any, x: Tensor) -> Tensor:
    base = layer.base_layer
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or not active:
        out: Tensor = base(x)
        return out
    matrices = []
    for name in active:
        matrices.append(layer.lora_A[name].weight.to(x.dtype))
        matrices.append((layer.lora_B[name].weight * layer.scaling[name]).to(x.dtype))
    adapted: Tensor = _AdaptedLinear.apply(x, base, *matrices)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return adapted
