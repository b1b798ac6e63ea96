"""GPTQ: 4-bit quantization with the Hessian of a layer's inputs on calibration text.

Frantar et al. 2023. Columns of a weight are rounded one after the other, and the error of rounding
one on the calibration text is compensated in the columns that follow. Columns with the largest
Hessian diagonal come first (act-order); the grid of each group is fitted to the original weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zephyr.errors import ZephyrError
from zephyr.model.packed_weights import Grid, PackedWeight
from zephyr.system.devices import to_float64

DAMPING = 0.01
"""Damping (`percdamp`): added to the Hessian's diagonal, as a share of its mean."""
BLOCK_COLUMNS = 128
"""Block size: columns after which the error is propagated to all columns that follow."""
TOKENS_PER_FORWARD = 2048
"""Tokens of calibration text in one forward."""


def quantize_layers(
    causal: Any,
    token_ids: Tensor,
    layers: Mapping[str, nn.Module],
    group_size: int,
    *,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, PackedWeight]:
    """Quantizes the weights of `layers` to 4 bits by GPTQ on calibration token ids [B, T].

    The inputs of a transformer block are the outputs of the quantized blocks before it, with the
    attention mask and rotary tables that the network gives to this block. The network then has the
    dequantized weights. Layers outside of the blocks, and those that no calibration token reaches
    (an expert that is never chosen), are quantized by round-to-nearest.

    Raises:
        ZephyrError: the blocks of the network can't be computed one by one.
    """
    quantized: dict[str, PackedWeight] = {}
    blocks = _find_blocks(causal)
    names = {module: name for name, module in layers.items()}
    batches = _capture_calibration_batches(causal, blocks, token_ids)
    for index, block in enumerate(blocks):
        block_layers = [module for module in block.modules() if module in names]
        with _collect_hessians(block_layers) as hessians:
            for batch in batches:
                batch.run_block(block, index)
        for module in hessians:
            name = names[module]
            quantized[name] = round_with_hessian(
                get_weight_matrix(module), hessians[module], group_size
            )
            set_weight_matrix(module, quantized[name].dequantize(torch.float32))
        for batch in batches:
            batch.hidden = batch.run_block(block, index)
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
    hessian = to_float64(hessian)
    is_dead_input = hessian.diagonal() == 0  # inputs that are always zero
    remaining[:, is_dead_input.to(weight.device)] = 0
    hessian += torch.diag(DAMPING * hessian.diagonal().mean() + is_dead_input)
    order = hessian.diagonal().argsort(descending=True)
    hessian, order = hessian[order][:, order], order.to(weight.device)
    remaining = remaining[:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True).float().to(weight.device)
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


class _BlockArguments(NamedTuple):
    """What a network gives to one transformer block beside the hidden states (masks, RoPE)."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class _CalibrationBatch:
    """A calibration batch: hidden states [B, T, H] before a block, and every block's arguments."""

    def __init__(self, hidden: Tensor, arguments: Sequence[_BlockArguments]) -> None:
        self.hidden = hidden
        self.arguments = arguments

    @torch.inference_mode()
    def run_block(self, block: nn.Module, index: int) -> Tensor:
        """The output hidden states [B, T, H] of the block with this index."""
        args, kwargs = self.arguments[index]
        return _hidden_states(block(self.hidden, *args, **kwargs))


def _hidden_states(block_output: Any) -> Tensor:
    hidden: Tensor = block_output[0] if isinstance(block_output, tuple) else block_output
    return hidden


def _find_blocks(causal: Any) -> list[nn.Module]:
    """The transformer blocks of a network: its longest list of modules that lies in no other."""
    lists = {n: list(m) for n, m in causal.named_modules() if isinstance(m, nn.ModuleList)}
    outer = [
        blocks
        for name, blocks in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists)
    ]
    return max(outer, key=len)


def _capture_calibration_batches(
    causal: Any, blocks: Sequence[nn.Module], token_ids: Tensor
) -> list[_CalibrationBatch]:
    """Captures what each block is given in forward passes of the network on calibration tokens.

    Raises:
        ZephyrError: a block does not simply read what the one before it has put out, so that
            blocks computed one by one would be calibrated on other inputs.
    """
    chunks = torch.split(token_ids, max(1, TOKENS_PER_FORWARD // token_ids.shape[1]))
    batches = []
    for number, chunk in enumerate(chunks):
        batch, outputs = _capture_calibration_batch(causal, blocks, chunk)
        if number == 0:
            _check_blocks_recompute(causal, blocks, batch, outputs)
        batches.append(batch)
    return batches


@torch.inference_mode()
def _capture_calibration_batch(
    causal: Any, blocks: Sequence[nn.Module], token_ids: Tensor
) -> tuple[_CalibrationBatch, Tensor]:
    """The calibration batch of token ids [B, T], and the last block's output [B, T, H]."""
    index_of = {block: index for index, block in enumerate(blocks)}
    arguments: list[_BlockArguments] = []
    first_hidden: list[Tensor] = []
    previous_output: list[Tensor] = []

    def capture_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        hidden = args[0] if args else kwargs.pop("hidden_states")
        if index_of[module] != len(arguments):
            raise _not_block_by_block(causal, f"block {index_of[module]} is computed out of turn")
        if previous_output and not torch.equal(hidden, previous_output.pop()):
            raise _not_block_by_block(
                causal, f"block {index_of[module]} reads other than the output of the one before"
            )
        first_hidden[:] = first_hidden or [hidden.clone()]
        arguments.append(_BlockArguments(args[1:], kwargs))

    def capture_output(module: nn.Module, args: Any, output: Any) -> None:
        previous_output[:] = [_hidden_states(output)]

    hooks = [b.register_forward_pre_hook(capture_input, with_kwargs=True) for b in blocks]
    hooks += [b.register_forward_hook(capture_output) for b in blocks]
    try:
        causal.base_model(input_ids=token_ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if len(arguments) != len(blocks):
        raise _not_block_by_block(causal, f"{len(arguments)} of {len(blocks)} blocks are computed")
    return _CalibrationBatch(first_hidden[0], arguments), previous_output[0]


def _check_blocks_recompute(
    causal: Any, blocks: Sequence[nn.Module], batch: _CalibrationBatch, expected: Tensor
) -> None:
    """Checks that the blocks, computed one by one, give the network's own output [B, T, H]."""
    again = _CalibrationBatch(batch.hidden, batch.arguments)
    for index, block in enumerate(blocks):
        again.hidden = again.run_block(block, index)
    if not torch.allclose(
        again.hidden, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    ):
        raise _not_block_by_block(
            causal,
            "blocks computed one by one differ from the network by up to "
            f"{float((again.hidden - expected).abs().max()):.2g}",
        )


def _not_block_by_block(causal: Any, found: str) -> ZephyrError:
    return ZephyrError(
        f"GPTQ can't calibrate {type(causal).__name__} block by block",
        found=found,
        allowed="a stack of blocks, each of which reads the output of the one before",
        todo="take `quantize: int4`, which needs no calibration, or int8 or nf4",
    )


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
