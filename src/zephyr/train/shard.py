"""Weights divided among the processes of a group (FSDP2), for networks too large for one of them.

Each process keeps its part of every weight, gradient and moment; a layer is put together for its
forward and its backward, and taken apart after them. The log-probability function looks at the
head's weight inside the forward of the whole, which has put it together by then.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zephyr.errors import ZephyrError


def divide(network: nn.Module) -> None:
    """Divides all weights of a `ForkNetwork`, layer by layer, among the processes of the group.

    Raises:
        ZephyrError: the network is quantized.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if any(not p.is_floating_point() for p in network.parameters()):
        raise ZephyrError(
            "quantized weights can't be divided among processes",
            where="run.shard",
            todo="set `run.shard: false`; every process then holds the whole network",
        )
    causal: Any = network.causal
    kinds = set(causal._no_split_modules)
    for module in [*network.modules()]:
        if type(module).__name__ in kinds:
            fully_shard(module)
    fully_shard(network)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def put_together(network: nn.Module) -> None:
    """Makes every trained weight whole again, in all processes."""
    from torch.distributed.fsdp import FSDPModule

    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.requires_grad:
                if weight not in made:
                    made[weight] = nn.Parameter(whole(weight.detach()))
                setattr(module, name, made[weight])


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together; asked for in all processes at once."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors in main memory, one after another; asked for in all processes, kept in some."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            found[name] = full.cpu().contiguous()
    return found


def placed(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, or this process's part of it, as `like` lies."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
