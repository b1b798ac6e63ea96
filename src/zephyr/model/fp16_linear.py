"""Linear layers with weights stored in 16 bits (fp16) whose products are in float32, on CPU.

A CPU without 16-bit arithmetic of its own then reads half the bytes for each token, and nothing is
rounded: FBGEMM's kernel upcasts the weights (float16) as it multiplies. A weight of bfloat16 has
fewer significant bits than float16; only below 2**-14 it loses some, 2**-25 at the most.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.precision import HALF_DTYPES, uniform_stored_dtype
from zephyr.system.devices import has_accelerator

MIN_WEIGHTS = 1 << 18
"""Weights of a layer below which a float32 matmul is faster."""

CHUNK_WEIGHTS = 1 << 22
"""Weights that are prepacked at a time: larger chunks are not read in memory order."""


def fp16_kernel_dtype(folder: Path) -> torch.dtype | None:
    """The 16-bit dtype of all weights of a folder; None if torch has no fp16 kernel for them."""
    if has_accelerator() or "fbgemm" not in torch.backends.quantized.supported_engines:
        return None
    stored_dtype = uniform_stored_dtype(folder)
    return stored_dtype if stored_dtype in HALF_DTYPES else None


class Fp16Linear(nn.Linear):
    """A frozen linear layer with fp16 weights: x [..., I] in float32 gives x W' + bias [..., O].

    With `with_backward` it keeps the transposed weights as well, for the input gradient. PEFT takes
    it for an ordinary `nn.Linear`, but its `weight` is empty.
    """

    def __init__(self, layer: nn.Linear, *, with_backward: bool = False) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = layer.weight.shape
        self.register_buffer("weight", torch.empty(0), persistent=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.float(), False)
        outputs_per_chunk = max(1, CHUNK_WEIGHTS // self.in_features)
        weight_chunks = torch.split(layer.weight, outputs_per_chunk)
        ends = [
            min(start + outputs_per_chunk, self.out_features)
            for start in range(0, self.out_features, outputs_per_chunk)
        ]
        self.chunks = [slice(at * outputs_per_chunk, end) for at, end in enumerate(ends)]
        """The outputs that each chunk gives."""
        self._packed_chunks = [_prepack(chunk) for chunk in weight_chunks]
        self._packed_transposed = (
            [_prepack(chunk.T) for chunk in weight_chunks] if with_backward else None
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        copies = 1 if self._packed_transposed is None else 2
        return copies * 2 * self.out_features * self.in_features

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            assert self._packed_transposed is not None, "no gradient passes through this"
            output: Tensor = _Fp16Product.apply(x, self)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return output
        return self.forward_no_grad(x)

    def forward_no_grad(self, x: Tensor) -> Tensor:
        """The forward pass without gradients."""
        outputs = [self.chunk_outputs(x, number) for number in range(len(self.chunks))]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    def chunk_outputs(self, x: Tensor, number: int) -> Tensor:
        """The outputs of one chunk: x [..., I] gives [..., `chunks[number]`]."""
        out = _fp16_matmul(x, self._packed_chunks[number])
        return out if self.bias is None else out.add_(self.bias[self.chunks[number]])

    def chunk_input_grad(self, grad: Tensor, number: int) -> Tensor:
        """The input gradient of one chunk, grad W: [..., `chunks[number]`] gives [..., I]."""
        assert self._packed_transposed is not None, "no gradient passes through this"
        return _fp16_matmul(grad, self._packed_transposed[number])

    def input_grad(self, grad: Tensor) -> Tensor:
        """The input gradient, grad W: [..., O] gives [..., I]."""
        first, *rest = self.chunks
        out = self.chunk_input_grad(grad[..., first], 0)
        for number, chunk in enumerate(rest, start=1):
            out += self.chunk_input_grad(grad[..., chunk], number)
        return out


class _Fp16Product(torch.autograd.Function):
    """Autograd function of a frozen `Fp16Linear`: gradient for the input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Fp16Linear) -> Tensor:
        ctx.layer = layer
        return layer.forward_no_grad(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.input_grad(grads[0]), None


def _fp16_matmul(x: Tensor, packed_chunk: Any) -> Tensor:
    """x [..., I] times W', W [O, I] a prepacked chunk, by FBGEMM's fp16 kernel: [..., O]."""
    out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed_chunk)
    return out


def _prepack(chunk: Tensor) -> Any:
    """Prepacks a chunk of weights for FBGEMM's fp16 product."""
    return torch.ops.quantized.linear_prepack_fp16(_to_float32_buffer(chunk), None)


_THREAD_BUFFERS = threading.local()


def _to_float32_buffer(chunk: Tensor) -> Tensor:
    """Casts a chunk of weights to float32, in a buffer of this thread that the next overwrites.

    New memory for each takes as long as all else: the system clears it page by page.
    """
    if not hasattr(_THREAD_BUFFERS, "memory") or len(_THREAD_BUFFERS.memory) < chunk.numel():
        _THREAD_BUFFERS.memory = torch.empty(chunk.numel())
    buffer: Tensor = _THREAD_BUFFERS.memory[: chunk.numel()].view(chunk.shape)
    return buffer.copy_(chunk.detach())


class Fp16Embedding(nn.Module):
    """An embedding with 16-bit weights, float32 once looked up: ids [...] give [..., H]."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        own_weight = embedding.weight.detach().clone()  # a view would keep the whole file in memory
        self.register_buffer("weight", own_weight)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.get_buffer("weight")).float()


def has_half_buffers(causal: Any) -> bool:
    """Whether loading in 16 bits also computed buffers (rotary embeddings ...) in 16 bits.

    These would differ from those in float32.
    """
    return any(buffer.dtype in HALF_DTYPES for buffer in causal.buffers())


def to_fp16_weights(causal: Any, *, with_backward: bool = False) -> None:
    """Converts large layers of a 16-bit network to `Fp16Linear`, all other weights to float32.

    With `with_backward` gradients pass through them.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(
            pool.map(
                lambda name: _replace_layer(causal, name, with_backward),
                _convertible_layers(causal),
            )
        )
    to_float32(causal)


def to_float32(causal: Any) -> None:
    """Converts all 16-bit weights of a network to float32."""
    for parameter in causal.parameters():
        if parameter.dtype in HALF_DTYPES:
            parameter.data = parameter.data.float()


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all weights in memory, quantization scales included."""
    bytes_by_pointer: dict[int, int] = {}
    for tensor in network.state_dict().values():
        if hasattr(tensor, "data_ptr"):  # some states hold words as well
            bytes_by_pointer[tensor.data_ptr()] = tensor.nbytes
    fp16_bytes = [module.nbytes for module in network.modules() if isinstance(module, Fp16Linear)]
    return sum(bytes_by_pointer.values()) + sum(fp16_bytes)


def _convertible_layers(causal: Any) -> list[str]:
    """The names of the layers worth converting, largest first, for the threads' load balance."""
    sizes = {
        name: module.weight.numel()
        for name, module in causal.named_modules()
        if type(module) in (nn.Linear, nn.Embedding) and module.weight.dtype in HALF_DTYPES
    }
    return sorted((name for name in sizes if sizes[name] >= MIN_WEIGHTS), key=lambda n: -sizes[n])


def _replace_layer(causal: Any, name: str, with_backward: bool) -> None:
    """Replaces one layer by its fp16 form, unless its weights overflow float16."""
    parent, _, attribute = name.rpartition(".")
    layer = causal.get_submodule(name)
    if type(layer) is nn.Embedding:
        setattr(causal.get_submodule(parent), attribute, Fp16Embedding(layer))
    elif float(layer.weight.detach().abs().max()) <= torch.finfo(torch.float16).max:
        setattr(
            causal.get_submodule(parent), attribute, Fp16Linear(layer, with_backward=with_backward)
        )
