"""The processes of one training, and the sums between them.

Every process holds the same weights, knows the whole batch of a step, and computes its share of it.
Since a loss is divided by the weight of the whole batch, gradients and statistics are plain sums
over the processes, however uneven their shares are.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from zephyr.errors import ZephyrError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

BUCKET = 1 << 24
"""Numbers that are summed at once: 64 MiB of float32 beside the gradients."""


class Lost(RuntimeError):
    """Another process of the training has ended, or can no longer be reached."""


@dataclass(frozen=True)
class Group:
    """One of `size` processes that train together. The only one, unless said otherwise."""

    rank: int = 0
    size: int = 1
    divides: bool = False
    """Whether each holds a part of the weights, not all of them."""
    here: int = 1
    """How many of them run on this machine."""

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes: metrics, checkpoints, what the training makes."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """The value that the main process gives; it may be anything that can be pickled."""
        if self.size == 1:
            return value
        import torch.distributed

        values = [value if self.is_main else None]
        with _loss_told():
            torch.distributed.broadcast_object_list(values, device=torch.device(_device()))
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return self.sum({"": float(flag)})[""] > 0

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum of each value; all processes give the same names."""
        if self.size == 1:
            return dict(values)
        import torch

        names = sorted(values)
        total = torch.tensor([values[n] for n in names], dtype=torch.float64, device=_device())
        _sum(total)
        return dict(zip(names, total.tolist(), strict=True))

    def sum_array(self, values: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """The sum of an array that has one shape in all processes."""
        if self.size == 1:
            return values
        import torch

        total = torch.from_numpy(values.copy()).to(_device())
        _sum(total)
        summed: NDArray[np.float32] = total.cpu().numpy()
        return summed

    def sum_gradients(self, weights: "Iterable[Tensor]") -> None:
        """Puts the sum over all processes in the place of every gradient.

        The sums have the same bits everywhere, so that equal weights stay equal.
        """
        if self.size == 1:
            return
        import torch

        for bucket in _buckets([w.grad for w in weights if w.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            _sum(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def refuse_different(self, step: int, weights: "Iterable[Tensor]") -> None:
        """Compares where the processes start from.

        Raises:
            ZephyrError: another step or other weights than in another process.
        """
        if self.size == 1:
            return
        import torch

        digest = hashlib.sha256(str(step).encode())
        for weight in weights:
            raw = weight.detach().cpu().contiguous().view(torch.uint8)
            digest.update(raw.numpy().tobytes())
        number = float(int.from_bytes(digest.digest()[:6]))
        numbers = self.sum({str(r): number * (r == self.rank) for r in range(self.size)})
        if len(set(numbers.values())) > 1:
            raise ZephyrError(
                "the processes of this training do not start from the same weights",
                todo="run the same version on every machine, with the runs on a shared disk",
            )


ALONE = Group()


def shares(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The indices of `sizes` in `count` parts of about equal sums, each in ascending order.

    The largest first, each to the part that has least so far (Graham 1969).
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, part) for part in range(count)]
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        load, part = heappop(loads)
        parts[part].append(i)
        heappush(loads, (load + sizes[i], part))
    return [sorted(part) for part in parts]


def _buckets(gradients: "list[Tensor]") -> "Iterator[list[Tensor]]":
    """Gradients of one dtype each, up to `BUCKET` numbers together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        together = sum(g.numel() for g in bucket) + gradient.numel() <= BUCKET
        if bucket and not (together and gradient.dtype == bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _sum(tensor: "Tensor") -> None:
    import torch.distributed

    with _loss_told():
        torch.distributed.all_reduce(tensor)


@contextmanager
def _loss_told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Lost(str(error)) from error


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
