"""Weights sharded over the ranks of a process group (FSDP2), for networks too large for one.

Each rank keeps its shard of every weight, gradient and moment; a layer is unsharded for its
forward and its backward, and resharded after them. The log-probability function reads the
head's weight inside the root module's forward, which has unsharded it by then.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zephyr.errors import ZephyrError


def shard(network: nn.Module) -> None:
    """Shards all weights of a `ForkNetwork` with FSDP2, layer by layer, over the ranks.

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
    layer_classes = set(causal._no_split_modules)
    for module in [*network.modules()]:
        if type(module).__name__ in layer_classes:
            fully_shard(module)
    fully_shard(network)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def unshard(network: nn.Module) -> None:
    """Gathers every trained weight in full again, in all ranks."""
    from torch.distributed.fsdp import FSDPModule

    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    full_weights: dict[nn.Parameter, nn.Parameter] = {}
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.requires_grad:
                if weight not in full_weights:
                    full_weights[weight] = nn.Parameter(gather_full(weight.detach()))
                setattr(module, name, full_weights[weight])


def gather_full(tensor: Tensor) -> Tensor:
    """Gathers the full tensor of a sharded one (a collective: called in all ranks at once)."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_to_cpu(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Full tensors in CPU memory, one after another; a collective, kept where `keep` says so."""
    gathered_tensors = {}
    for name, tensor in tensors.items():
        full = gather_full(tensor.detach())
        if keep:
            gathered_tensors[name] = full.cpu().contiguous()
    return gathered_tensors


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """A full tensor, or this rank's shard of it, sharded as `like` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
