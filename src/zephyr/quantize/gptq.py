"""GPTQ: rounding weights so that what a layer computes on real text changes least.

Frantar et al. 2023. Columns of a weight are rounded one after the other, and what rounding one
changes on the calibration text is made up for in the columns that follow. Columns that matter most
come first; the grid of each group is that of the weights as they were.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.packed import Grid, Packed

DAMPING = 0.01
"""Added to the diagonal of the Hessian, as a share of its mean."""
COLUMNS = 128
"""Columns after which what is left over reaches all that follow."""
TOKENS = 2048
"""Tokens of calibration text in one forward."""


class _Reached(Exception):
    """The input of the first block is known."""


def calibrate(
    causal: Any,
    rows: Tensor,
    layers: Mapping[str, nn.Module],
    group: int,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Packed]:
    """Packs the weights of `layers` in 4 bits on calibration text, tokens [rows, time].

    A block is rounded on what the blocks before it, rounded already, make of the text. The network
    then computes with the rounded weights. Layers outside of its blocks are rounded to the nearest.
    """
    found: dict[str, Packed] = {}
    blocks = _blocks(causal)
    names = {module: name for name, module in layers.items()}
    states = _entering(causal, blocks[0], rows)
    for at, block in enumerate(blocks):
        inside = [module for module in block.modules() if module in names]
        with _hessians(inside) as hessians:
            for state in states:
                state.through(block)
        for module in inside:
            name = names[module]
            found[name] = round_by(matrix(module), hessians.pop(module), group)
            set_matrix(module, found[name].dense(torch.float32))
        for state in states:
            state.hidden = state.through(block)
        progress(at + 1, len(blocks))
    for name, module in layers.items():
        if name not in found:
            found[name] = Packed.rounded(matrix(module), 4, group)
            set_matrix(module, found[name].dense(torch.float32))
    return found


def round_by(weight: Tensor, hessian: Tensor, group: int) -> Packed:
    """Rounds weight [rows, columns] to 4 bits with the Hessian [columns, columns] of its inputs."""
    grid = Grid.around(weight, 4, group)
    left = weight.float().clone()
    dead = hessian.diagonal() == 0  # inputs that are always zero
    left[:, dead] = 0
    hessian = hessian.double()
    hessian += torch.diag(DAMPING * hessian.diagonal().mean() + dead)
    order = hessian.diagonal().argsort(descending=True)
    left, hessian = left[:, order], hessian[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    scale = grid.scale.float().repeat_interleave(group, dim=1)[:, order].T.contiguous()
    zero = grid.zero.float().repeat_interleave(group, dim=1)[:, order].T.contiguous()
    codes = torch.empty(left.shape[1], left.shape[0], dtype=torch.uint8, device=weight.device)
    left = left.T.contiguous()  # a column of the weight is now a row in memory
    for start in range(0, len(left), COLUMNS):
        block = slice(start, min(start + COLUMNS, len(left)))
        errors = _round_block(
            left[block], factor[block, block], scale[block], zero[block], codes[block]
        )
        left[block.stop :] -= factor[block, block.stop :].T @ errors
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return Packed.of_codes(codes[back].T.contiguous(), grid)


def _round_block(
    left: Tensor, factor: Tensor, scale: Tensor, zero: Tensor, codes: Tensor
) -> Tensor:
    """Rounds columns, here [columns, rows], in order; writes `codes`, gives their errors."""
    errors = torch.empty_like(left)
    for at, column in enumerate(left):
        code = (column / scale[at]).round_().add_(zero[at]).clamp_(0, 15)
        codes[at] = code
        rounded = code.sub_(zero[at]).mul_(scale[at])
        errors[at] = (column - rounded).div_(factor[at, at])
        left[at + 1 :].addr_(factor[at, at + 1 :], errors[at], alpha=-1)
    return errors


def matrix(module: nn.Module) -> Tensor:
    """The weight of a linear layer as [outputs, inputs]; GPT-2's Conv1D keeps the transpose."""
    weight: Any = module.weight.data
    whole: Tensor = weight if isinstance(module, nn.Linear) else weight.T
    return whole


def set_matrix(module: nn.Module, value: Tensor) -> None:
    """Overwrites the weight of a linear layer with [outputs, inputs]."""
    weight: Any = module.weight.data
    weight.copy_(value if isinstance(module, nn.Linear) else value.T)


class _State:
    """What enters a block for some rows of text, and what else it is called with."""

    def __init__(self, hidden: Tensor, rest: Sequence[Any], named: Mapping[str, Any]) -> None:
        self.hidden = hidden
        self.rest = rest
        self.named = named

    @torch.inference_mode()
    def through(self, block: nn.Module) -> Tensor:
        out = block(self.hidden, *self.rest, **self.named)
        hidden: Tensor = out[0] if isinstance(out, tuple) else out
        return hidden


def _blocks(causal: Any) -> list[nn.Module]:
    """The blocks of a network: the longest list of modules in it."""
    lists = [list(module) for module in causal.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


@torch.inference_mode()
def _entering(causal: Any, first: nn.Module, rows: Tensor) -> list[_State]:
    """What enters the first block, for a few rows of tokens at a time."""
    states: list[_State] = []

    def catch(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        named = dict(named)
        hidden = given[0] if given else named.pop("hidden_states")
        states.append(_State(hidden, given[1:], named))
        raise _Reached

    hook = first.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for part in torch.split(rows, max(1, TOKENS // rows.shape[1])):
            try:
                causal.base_model(input_ids=part, use_cache=False)
            except _Reached:
                continue
    finally:
        hook.remove()
    return states


@contextmanager
def _hessians(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Sums of x xᵀ over the inputs x of each module, for as long as the block lasts.

    Layers that read the same input share one sum.
    """
    sums: dict[nn.Module, Tensor] = {}
    last: list[tuple[Tensor, Tensor]] = []

    def add(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        (inputs,) = given
        if last and last[0][0] is inputs:
            product = last[0][1]
        else:
            flat = inputs.flatten(0, -2).float()
            product = flat.T @ flat
            last[:] = [(inputs, product)]
        sums[module] = sums[module] + product if module in sums else product

    hooks = [module.register_forward_pre_hook(add) for module in modules]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()
