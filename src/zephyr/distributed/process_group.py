"""Process group of a distributed training: world size, rank, broadcast and all-reduce.

Data parallelism: every rank holds the same weights (or a shard of them), knows the whole batch of a
step, and computes its part of it. Since a loss is divided by the loss denominator of the whole
batch, gradients and statistics are plain sums over the ranks, however uneven their parts are.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from zephyr.errors import ZephyrError
from zephyr.system.devices import device_type

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

BUCKET_ELEMENTS = 1 << 24
"""Elements of an all-reduce bucket: 64 MiB of float32 beside the gradients."""


class PeerLostError(RuntimeError):
    """Another rank has exited, or its connection is lost: a collective has failed."""


@dataclass(frozen=True)
class ProcessGroup:
    """Rank and world size of this process in distributed training; by default a single process."""

    rank: int = 0
    world_size: int = 1
    is_sharded: bool = False
    """Whether each rank holds a shard of the weights (FSDP), not all of them."""
    local_world_size: int = 1
    """Local world size: how many of the ranks run on this machine."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes metrics, checkpoints and artifacts."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Broadcasts the value of rank 0 to all ranks; anything that can be pickled."""
        if self.world_size == 1:
            return value
        import torch.distributed

        values = [value if self.is_main else None]
        with _raise_peer_lost():
            torch.distributed.broadcast_object_list(values, device=torch.device(device_type()))
        return values[0]

    def all_reduce_any(self, flag: bool) -> bool:
        """All-reduces a flag: whether it is set in any rank."""
        return self.all_reduce_sum({"": float(flag)})[""] > 0

    def all_reduce_sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """All-reduces each value by sum; all ranks give the same names."""
        if self.world_size == 1:
            return dict(values)
        import torch

        names = sorted(values)
        total = torch.tensor([values[n] for n in names], dtype=torch.float64, device=device_type())
        _all_reduce(total)
        return dict(zip(names, total.tolist(), strict=True))

    def all_reduce_array(self, values: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """All-reduces an array by sum; it has the same shape in all ranks."""
        if self.world_size == 1:
            return values
        import torch

        total = torch.from_numpy(values.copy()).to(device_type())
        _all_reduce(total)
        summed: NDArray[np.float32] = total.cpu().numpy()
        return summed

    def all_reduce_gradients(self, weights: "Iterable[Tensor]") -> None:
        """All-reduces every gradient in place, by sum over the ranks.

        The sums have the same bits everywhere, so that equal weights stay equal.
        """
        if self.world_size == 1:
            return
        import torch

        for bucket in _buckets([w.grad for w in weights if w.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            _all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def check_same_start(self, step: int, weights: "Iterable[Tensor]") -> None:
        """Checks that all ranks start from the same step and weights.

        Raises:
            ZephyrError: another step or other weights than in another rank.
        """
        if self.world_size == 1:
            return
        import torch

        digest = hashlib.sha256(str(step).encode())
        for weight in weights:
            raw = weight.detach().cpu().contiguous().view(torch.uint8)
            digest.update(raw.numpy().tobytes())
        digest_number = float(int.from_bytes(digest.digest()[:6]))
        digest_numbers = self.all_reduce_sum(
            {str(r): digest_number * (r == self.rank) for r in range(self.world_size)}
        )
        if len(set(digest_numbers.values())) > 1:
            raise ZephyrError(
                "the processes of this training do not start from the same weights",
                todo="run the same version on every machine, with the runs on a shared disk",
            )


SINGLE_PROCESS = ProcessGroup()


def balance_by_size(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Load balancing: partitions indices into `count` parts of about equal summed size.

    Greedily, the largest first, each to the smallest part so far (Graham 1969); parts are
    ascending.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    part_loads = [(0, part) for part in range(count)]
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        load, part = heappop(part_loads)
        parts[part].append(i)
        heappush(part_loads, (load + sizes[i], part))
    return [sorted(part) for part in parts]


def _buckets(gradients: "list[Tensor]") -> "Iterator[list[Tensor]]":
    """Buckets of gradients of one dtype, up to `BUCKET_ELEMENTS` elements together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        fits = sum(g.numel() for g in bucket) + gradient.numel() <= BUCKET_ELEMENTS
        if bucket and not (fits and gradient.dtype == bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _all_reduce(tensor: "Tensor") -> None:
    import torch.distributed

    with _raise_peer_lost():
        torch.distributed.all_reduce(tensor)


@contextmanager
def _raise_peer_lost() -> Iterator[None]:
    """Turns a failed collective into `PeerLostError`."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error
