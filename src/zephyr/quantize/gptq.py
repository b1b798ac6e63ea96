"""GPTQ: 4-bit quantization with the Hessian of a layer's inputs on calibration text.

Frantar et al. 2023. Columns of a weight are rounded one after the other, and the error of rounding
one on the calibration text is compensated in the columns that follow. Columns with the largest
Hessian diagonal come first (act-order); the grid of each group is fitted to the original weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.packed_weights import Grid, PackedWeight

DAMPING = 0.01
"""Damping (`percdamp`): added to the Hessian's diagonal, as a share of its mean."""
BLOCK_COLUMNS = 128
"""Block size: columns after which the error is propagated to all columns that follow."""
TOKENS_PER_FORWARD = 2048
"""Tokens of calibration text in one forward."""


class _FirstBlockReached(Exception):
    """Raised by a hook once the inputs of the first transformer block are captured."""


def quantize_layers(
    causal: Any,
    token_ids: Tensor,
    layers: Mapping[str, nn.Module],
    group_size: int,
    *,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, PackedWeight]:
    """Quantizes the weights of `layers` to 4 bits by GPTQ on calibration token ids [B, T].

    The inputs of a transformer block are the outputs of the quantized blocks before it. The network
    then has the dequantized weights. Layers outside of the blocks are quantized by
    round-to-nearest.
    """
    quantized: dict[str, PackedWeight] = {}
    blocks = _find_blocks(causal)
    names = {module: name for name, module in layers.items()}
    block_inputs = _capture_block_inputs(causal, blocks[0], token_ids)
    for index, block in enumerate(blocks):
        block_layers = [module for module in block.modules() if module in names]
        with _collect_hessians(block_layers) as hessians:
            for block_input in block_inputs:
                block_input.run_block(block)
        for module in block_layers:
            name = names[module]
            quantized[name] = round_with_hessian(
                get_weight_matrix(module), hessians.pop(module), group_size
            )
            set_weight_matrix(module, quantized[name].dequantize(torch.float32))
        for block_input in block_inputs:
            block_input.hidden = block_input.run_block(block)
        on_progress(index + 1, len(blocks))
    for name, module in layers.items():
        if name not in quantized:
            quantized[name] = PackedWeight.quantize(get_weight_matrix(module), 4, group_size)
            set_weight_matrix(module, quantized[name].dequantize(torch.float32))
    return quantized


def round_with_hessian(weight: Tensor, hessian: Tensor, group_size: int) -> PackedWeight:
    """GPTQ of one layer: quantizes weight [O, I] to 4 bits by the inputs' Hessian [I, I]."""
    grid = Grid.from_weight(weight, 4, group_size)
    remaining = weight.float().clone()
    is_dead_input = hessian.diagonal() == 0  # inputs that are always zero
    remaining[:, is_dead_input] = 0
    hessian = hessian.double()
    hessian += torch.diag(DAMPING * hessian.diagonal().mean() + is_dead_input)
    order = hessian.diagonal().argsort(descending=True)
    remaining, hessian = remaining[:, order], hessian[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    scale = grid.scale.float().repeat_interleave(group_size, dim=1)[:, order].T.contiguous()
    zero = grid.zero.float().repeat_interleave(group_size, dim=1)[:, order].T.contiguous()
    codes = torch.empty(
        remaining.shape[1], remaining.shape[0], dtype=torch.uint8, device=weight.device
    )
    remaining = remaining.T.contiguous()  # a column of the weight is now a row in memory
    for start in range(0, len(remaining), BLOCK_COLUMNS):
        block = slice(start, min(start + BLOCK_COLUMNS, len(remaining)))
        errors = _round_block(
            remaining[block], factor[block, block], scale[block], zero[block], codes[block]
        )
        remaining[block.stop :] -= factor[block, block.stop :].T @ errors
    inverse_order = torch.empty_like(order)
    inverse_order[order] = torch.arange(len(order), device=order.device)
    return PackedWeight.from_codes(codes[inverse_order].T.contiguous(), grid)


def _round_block(
    remaining: Tensor, factor: Tensor, scale: Tensor, zero: Tensor, codes: Tensor
) -> Tensor:
    """Rounds a block of columns, transposed to [I, O], in order; writes `codes`, returns errors."""
    errors = torch.empty_like(remaining)
    for index, column in enumerate(remaining):
        code = (column / scale[index]).round_().add_(zero[index]).clamp_(0, 15)
        codes[index] = code
        rounded = code.sub_(zero[index]).mul_(scale[index])
        errors[index] = (column - rounded).div_(factor[index, index])
        remaining[index + 1 :].addr_(factor[index, index + 1 :], errors[index], alpha=-1)
    return errors


def get_weight_matrix(module: nn.Module) -> Tensor:
    """The weight of a linear layer as [O, I]; GPT-2's Conv1D stores the transpose."""
    weight: Any = module.weight.data
    oriented: Tensor = weight if isinstance(module, nn.Linear) else weight.T
    return oriented


def set_weight_matrix(module: nn.Module, value: Tensor) -> None:
    """Overwrites the weight of a linear layer with [O, I]."""
    weight: Any = module.weight.data
    weight.copy_(value if isinstance(module, nn.Linear) else value.T)


class _BlockInput:
    """Input of a transformer block for a calibration batch: hidden states [B, T, H], arguments."""

    def __init__(self, hidden: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.hidden = hidden
        self.args = args
        self.kwargs = kwargs

    @torch.inference_mode()
    def run_block(self, block: nn.Module) -> Tensor:
        """The block's output hidden states [B, T, H]."""
        out = block(self.hidden, *self.args, **self.kwargs)
        hidden: Tensor = out[0] if isinstance(out, tuple) else out
        return hidden


def _find_blocks(causal: Any) -> list[nn.Module]:
    """The transformer blocks of a network: the longest list of modules in it."""
    lists = [list(module) for module in causal.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


@torch.inference_mode()
def _capture_block_inputs(causal: Any, first: nn.Module, token_ids: Tensor) -> list[_BlockInput]:
    """Captures the inputs of the first transformer block on calibration batches, by a hook."""
    block_inputs: list[_BlockInput] = []

    def capture_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        hidden = args[0] if args else kwargs.pop("hidden_states")
        block_inputs.append(_BlockInput(hidden, args[1:], kwargs))
        raise _FirstBlockReached

    hook = first.register_forward_pre_hook(capture_input, with_kwargs=True)
    try:
        for chunk in torch.split(token_ids, max(1, TOKENS_PER_FORWARD // token_ids.shape[1])):
            try:
                causal.base_model(input_ids=chunk, use_cache=False)
            except _FirstBlockReached:
                continue
    finally:
        hook.remove()
    return block_inputs


@contextmanager
def _collect_hessians(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Accumulates Hessians [I, I] (sums of x xᵀ over inputs x) of modules inside the context.

    Layers that read the same input share one sum.
    """
    sums: dict[nn.Module, Tensor] = {}
    last: list[tuple[Tensor, Tensor]] = []

    def accumulate(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        (inputs,) = args
        if last and last[0][0] is inputs:
            product = last[0][1]
        else:
            flat = inputs.flatten(0, -2).float()
            product = flat.T @ flat
            last[:] = [(inputs, product)]
        sums[module] = sums[module] + product if module in sums else product

    hooks = [module.register_forward_pre_hook(accumulate) for module in modules]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()
