"""FSDP2 (fully sharded data parallelism): weights sharded over the ranks of a process group.

For networks too large for one device. Each rank keeps its shard of every weight, gradient and
moment; a layer is all-gathered for its forward and its backward, and resharded after them. The
log-probability function reads the head's weight inside the root module's forward, which has
all-gathered it by then.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zephyr.errors import ZephyrError


def shard(network: nn.Module) -> None:
    """Shards all weights of a `LogprobNetwork` with FSDP2, layer by layer, over the ranks.

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
    """Unshards (all-gathers) every trained weight, on all ranks."""
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
    """All-gathers the full tensor of a sharded one (a collective: all ranks call it)."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_to_cpu(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All-gathers full tensors to CPU memory, one by one; returned only where `keep` is true."""
    gathered_tensors = {}
    for name, tensor in tensors.items():
        full = gather_full(tensor.detach())
        if keep:
            gathered_tensors[name] = full.cpu().contiguous()
    return gathered_tensors


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """This rank's shard of a full tensor, sharded as `like` is; or the tensor, if it isn't."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
