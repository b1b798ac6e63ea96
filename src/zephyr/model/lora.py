"""A fused LoRA forward and backward: one autograd function, few saved activations, no casts.

PEFT computes an adapter in the dtype of its own weights: with a base in bfloat16 it copies every
input to float32 and multiplies there. Here the products of an adapter are made in the dtype of the
layer, into the result of the layer itself; the adapters' own weights, and their optimizer state,
stay in float32.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.fp16_linear import Fp16Linear


class _FusedLoraLinear(torch.autograd.Function):
    """Fused LoRA of x [..., I], a layer with weight [O, I], adapters' a [R, I] and b [O, R].

    Gives x W' + bias + sum of x a' b'. Each adapter is added by itself: one whose b is zero changes
    no bit of the output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear, *matrices: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.fp16_layer = layer if isinstance(layer, Fp16Linear) else None
        out: Tensor = layer(x) if ctx.fp16_layer is None else ctx.fp16_layer.forward_no_grad(x)
        out_rows = out.view(-1, out.shape[-1])  # `out` is no view: networks may change it in place
        inner = []
        for a, b in zip(matrices[::2], matrices[1::2], strict=True):
            inner.append(rows @ a.T)
            out_rows.addmm_(inner[-1], b.T)
        ctx.save_for_backward(rows, layer.weight, *matrices, *inner)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needs_grad_x, _, *needs_grad = ctx.needs_input_grad
        rows, weight, *rest = ctx.saved_tensors
        matrices, inner = rest[: len(needs_grad)], rest[len(needs_grad) :]
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        grad_x = None
        if needs_grad_x:
            grad_x = grad @ weight if ctx.fp16_layer is None else ctx.fp16_layer.input_grad(grad)
        grad_matrices: list[Tensor | None] = []
        for index, (a, b) in enumerate(zip(matrices[::2], matrices[1::2], strict=True)):
            needs_grad_a, needs_grad_b = needs_grad[2 * index], needs_grad[2 * index + 1]
            grad_inner = grad @ b if needs_grad_x or needs_grad_a else None
            if grad_x is not None:
                grad_x.addmm_(grad_inner, a)
            grad_matrices.append(
                grad_inner.T @ rows if needs_grad_a and grad_inner is not None else None
            )
            grad_matrices.append(grad.T @ inner[index] if needs_grad_b else None)
        grad_input = None if grad_x is None else grad_x.view(*grads[0].shape[:-1], -1)
        return grad_input, None, *grad_matrices


def fuse_lora(network: nn.Module) -> None:
    """Replaces PEFT's forward of every LoRA layer by the fused one, where it computes the same.

    A layer keeps PEFT's where the weights under its adapters are quantized, transposed (GPT-2) or
    trainable, and where an adapter has dropout, a bias or is a DoRA.
    """
    from peft.tuners.lora import Linear

    for module in network.modules():
        if isinstance(module, Linear):
            module.__dict__.pop("forward", None)
            if _is_fusable(module):
                module.forward = MethodType(_fused_forward, module)


def _is_fusable(layer: Any) -> bool:
    """Whether the fused forward supports a LoRA layer: no dropout, bias, DoRA or quantization."""
    base = layer.base_layer
    return (
        (
            isinstance(base, Fp16Linear)
            or (type(base) is nn.Linear and not base.weight.requires_grad)
        )
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
    )


def _fused_forward(layer: Any, x: Tensor) -> Tensor:
    """The fused forward that replaces that of PEFT's `lora.Linear`."""
    base = layer.base_layer
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or not active:
        out: Tensor = base(x)
        return out
    matrices = []
    for name in active:
        matrices.append(layer.lora_A[name].weight.to(x.dtype))
        matrices.append((layer.lora_B[name].weight * layer.scaling[name]).to(x.dtype))
    adapted: Tensor = _FusedLoraLinear.apply(x, base, *matrices)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return adapted
