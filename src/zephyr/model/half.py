"""Weights that lie in memory in 16 bits, as in their files, and are computed with in float32.

A processor without 16-bit products of its own reads half the bytes for each token so, and nothing
is rounded: FBGEMM's product widens the weights (float16) as it multiplies. A weight of bfloat16 has
fewer significant bits than float16; only below 2**-14 it loses some, 2**-25 at the most.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.precision import HALVES, all_stored_in

SMALLEST = 1 << 18
"""Weights of a layer below which products in float32 are the quicker ones."""

PIECE = 1 << 22
"""Weights that are laid out at a time: larger pieces are read out of the order of memory."""


def held_in(folder: Path) -> torch.dtype | None:
    """The 16-bit dtype of all weights of a folder; None if torch has no product for them."""
    if torch.cuda.is_available() or "fbgemm" not in torch.backends.quantized.supported_engines:
        return None
    found = all_stored_in(folder)
    return found if found in HALVES else None


class HalfLinear(nn.Linear):
    """A frozen linear layer: x [..., I] in float32 gives x W' + bias [..., O].

    With `learns` it keeps the transposed weights as well, for gradients to pass through it. For
    PEFT it is the linear layer that it was, but its `weight` is empty.
    """

    def __init__(self, layer: nn.Linear, *, learns: bool = False) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = layer.weight.shape
        self.register_buffer("weight", torch.empty(0), persistent=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.float(), False)
        size = max(1, PIECE // self.in_features)
        pieces = torch.split(layer.weight, size)
        ends = [min(at + size, self.out_features) for at in range(0, self.out_features, size)]
        self.parts = [slice(at * size, end) for at, end in enumerate(ends)]
        """The outputs that each piece gives."""
        self._pieces = [_packed(piece) for piece in pieces]
        self._back = [_packed(piece.T) for piece in pieces] if learns else None

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        copies = 1 if self._back is None else 2
        return copies * 2 * self.out_features * self.in_features

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            assert self._back is not None, "no gradient passes through this"
            found: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return found
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """What the layer gives, as far as gradients go a constant."""
        found = [self.outputs(x, number) for number in range(len(self.parts))]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    def outputs(self, x: Tensor, number: int) -> Tensor:
        """The outputs of one piece: x [..., I] gives [..., `parts[number]`]."""
        out = _times(x, self._pieces[number])
        return out if self.bias is None else out.add_(self.bias[self.parts[number]])

    def back(self, grad: Tensor, number: int) -> Tensor:
        """grad W of one piece: [..., `parts[number]`] gives [..., I]."""
        assert self._back is not None, "no gradient passes through this"
        return _times(grad, self._back[number])

    def whole_back(self, grad: Tensor) -> Tensor:
        """grad W: [..., O] gives [..., I]."""
        first, *rest = self.parts
        out = self.back(grad[..., first], 0)
        for number, part in enumerate(rest, start=1):
            out += self.back(grad[..., part], number)
        return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: HalfLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.whole_back(grads[0]), None


def _times(x: Tensor, piece: Any) -> Tensor:
    out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, piece)
    return out


def _packed(piece: Tensor) -> Any:
    return torch.ops.quantized.linear_prepack_fp16(_widened(piece), None)


_SCRATCH = threading.local()


def _widened(piece: Tensor) -> Tensor:
    """A piece in float32, where the next one of this thread is written over it.

    New memory for each takes as long as all else: the system clears it page by page.
    """
    if not hasattr(_SCRATCH, "memory") or len(_SCRATCH.memory) < piece.numel():
        _SCRATCH.memory = torch.empty(piece.numel())
    whole: Tensor = _SCRATCH.memory[: piece.numel()].view(piece.shape)
    return whole.copy_(piece.detach())


class HalfEmbedding(nn.Module):
    """An embedding whose rows are widened as they are read: ids [...] give [..., width]."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        own = embedding.weight.detach().clone()  # a view would keep the whole file in memory
        self.register_buffer("weight", own)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.get_buffer("weight")).float()


def is_rounded(causal: Any) -> bool:
    """Whether a network that was read in 16 bits computed buffers in them, too.

    These are not what they are in float32.
    """
    return any(buffer.dtype in HALVES for buffer in causal.buffers())


def halve(causal: Any, *, learns: bool = False) -> None:
    """Puts the large layers of a network that is in 16 bits into this form, all else in float32.

    With `learns` gradients pass through them.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda name: _replace(causal, name, learns), _large(causal)))
    widen(causal)


def widen(causal: Any) -> None:
    """Puts all weights of a network that are in 16 bits in float32."""
    for parameter in causal.parameters():
        if parameter.dtype in HALVES:
            parameter.data = parameter.data.float()


def bytes_of(network: nn.Module) -> int:
    """Bytes of all weights in memory, what they need to be unpacked by included."""
    seen: dict[int, int] = {}
    for tensor in network.state_dict().values():
        if hasattr(tensor, "data_ptr"):  # some states hold words as well
            seen[tensor.data_ptr()] = tensor.nbytes
    halves = [module.nbytes for module in network.modules() if isinstance(module, HalfLinear)]
    return sum(seen.values()) + sum(halves)


def _large(causal: Any) -> list[str]:
    """The names of the layers that gain from it, largest first: they take the longest."""
    sizes = {
        name: module.weight.numel()
        for name, module in causal.named_modules()
        if type(module) in (nn.Linear, nn.Embedding) and module.weight.dtype in HALVES
    }
    return sorted((name for name in sizes if sizes[name] >= SMALLEST), key=lambda n: -sizes[n])


def _replace(causal: Any, name: str, learns: bool) -> None:
    parent, _, own = name.rpartition(".")
    layer = causal.get_submodule(name)
    if type(layer) is nn.Embedding:
        setattr(causal.get_submodule(parent), own, HalfEmbedding(layer))
    elif float(layer.weight.detach().abs().max()) <= torch.finfo(torch.float16).max:
        setattr(causal.get_submodule(parent), own, HalfLinear(layer, learns=learns))
