"""Group-wise quantized weights: packed 4- or 8-bit integers with scales and zero points.

A weight is (code - zero) * scale. Codes are laid out as in the form `pack-quantized` of
compressed-tensors (vLLM's), so that other programs read the files: `weight_packed` holds eight
codes of 4 bits in an int32, `weight_scale` and `weight_zero_point` those of each group, and
`weight_shape` the shape of the whole. Embeddings are stored in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json, write_json

Bits = Literal[4, 8]
WEIGHTS_PER_CHUNK = 1 << 22
"""Weights that are dequantized at a time, so that large matrices need no second copy."""

SCALE_SUFFIX = "weight_scale"
"""The suffix of the names of the tensors of scales."""
_TENSOR_SUFFIXES = ("weight_packed", SCALE_SUFFIX, "weight_zero_point", "weight_shape")


@dataclass(frozen=True)
class Grid:
    """Quantization grid: scales and zero points [O, groups] of the `bits`-bit codes of W [O, I].

    A zero point is itself a code, so that the weight zero is exact.
    """

    bits: Bits
    scale: Tensor
    zero: Tensor

    @classmethod
    def from_weight(cls, weight: Tensor, bits: Bits, group_size: int) -> "Grid":
        """Fits scale and zero point to the minimum and maximum of each group, zero included.

        Scales are rounded to float16, as they are stored, before anything is rounded by them.
        """
        groups = weight.float().reshape(len(weight), -1, group_size)
        low, high = groups.amin(dim=2).clamp_(max=0), groups.amax(dim=2).clamp_(min=0)
        scale = ((high - low) / (2**bits - 1)).half()
        scale[scale == 0] = 1.0  # all weights of the group are zero, or too small for the scale
        zero = (-low / scale.float()).round_().clamp_(0, 2**bits - 1).to(torch.uint8)
        return cls(bits, scale, zero)

    def quantize(self, weight: Tensor) -> Tensor:
        """Quantizes weights [O, I] to the nearest codes (round-to-nearest), uint8 [O, I]."""
        groups = weight.float().reshape(*self.scale.shape, -1)
        scaled = groups / self.scale.float()[:, :, None]
        codes = scaled.round_().add_(self.zero[:, :, None]).clamp_(0, 2**self.bits - 1)
        return codes.flatten(1).to(torch.uint8)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Dequantizes codes [O, I] to weights [O, I] in float32: (code - zero point) * scale."""
        groups = codes.reshape(*self.scale.shape, -1).float()
        groups -= self.zero[:, :, None]
        groups *= self.scale.float()[:, :, None]
        return groups.flatten(1)

    def select_rows(self, index: Any) -> "Grid":
        """The grid of some of the rows (output channels)."""
        return Grid(self.bits, self.scale[index], self.zero[index])


@dataclass(frozen=True)
class PackedWeight:
    """A packed quantized weight [O, I]: codes, two of 4 bits a byte (the first the low half)."""

    codes: Tensor
    grid: Grid

    @classmethod
    def quantize(cls, weight: Tensor, bits: Bits, group_size: int) -> "PackedWeight":
        """Quantizes a weight [O, I] by round-to-nearest, in groups of `group_size` along a row."""
        rows_per_chunk = max(1, WEIGHTS_PER_CHUNK // weight.shape[1])
        chunks = [
            cls._from_weight(chunk, Grid.from_weight(chunk, bits, group_size))
            for chunk in torch.split(weight, rows_per_chunk)
        ]
        grids = [part.grid for part in chunks]
        scale, zero = (torch.cat([getattr(g, key) for g in grids]) for key in ("scale", "zero"))
        return cls(torch.cat([part.codes for part in chunks]), Grid(bits, scale, zero))

    @classmethod
    def from_codes(cls, codes: Tensor, grid: Grid) -> "PackedWeight":
        """Packs codes [O, I], one a byte, to bytes: [O, I / 2] for 4 bits."""
        if grid.bits == 4:
            codes = codes[:, ::2] | codes[:, 1::2] << 4
        return cls(_row_major(codes), grid)

    @classmethod
    def _from_weight(cls, weight: Tensor, grid: Grid) -> "PackedWeight":
        return cls.from_codes(grid.quantize(weight), grid)

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1] * (8 // self.grid.bits)

    def dequantize_rows(self, index: Any = slice(None)) -> Tensor:
        """Dequantizes some rows of the weight in float32: all, a slice, or those of a tensor."""
        codes = self.codes[index]
        if self.grid.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2)
        return self.grid.select_rows(index).dequantize(codes)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Dequantizes the whole weight to `dtype`, in chunks."""
        rows, columns = self.shape
        weight = torch.empty(rows, columns, dtype=dtype, device=self.codes.device)
        step = max(1, WEIGHTS_PER_CHUNK // columns)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            weight[part] = self.dequantize_rows(part)
        return weight

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """The checkpoint tensors that hold the weight of the layer `name`."""
        zero = _pack_zero_points(self.grid)
        return {
            f"{name}.weight_packed": self.codes.view(torch.int32),
            f"{name}.{SCALE_SUFFIX}": self.grid.scale.contiguous(),
            f"{name}.weight_zero_point": zero,
            f"{name}.weight_shape": torch.tensor(self.shape, dtype=torch.int64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], name: str) -> "PackedWeight":
        """Makes the packed weight of the checkpoint tensors that `to_tensors` gave."""
        packed_codes, scale, zero, shape = (
            tensors[f"{name}.{suffix}"] for suffix in _TENSOR_SUFFIXES
        )
        rows, columns = shape.tolist()
        codes = packed_codes.view(torch.uint8)
        bits: Bits = 4 if codes.shape[1] * 2 == columns else 8
        flat = _row_major(zero.T).view(torch.uint8)
        if bits == 4:
            flat = torch.stack([flat & 15, flat >> 4], dim=-1).flatten(-2)
        return cls(codes, Grid(bits, scale, flat[:, :rows].T.contiguous()))


def _pack_zero_points(grid: Grid) -> Tensor:
    """Packs zero points [O, groups] along the rows into int32, as compressed-tensors does."""
    codes_per_word = 32 // grid.bits
    flat = nn.functional.pad(grid.zero.T, (0, -grid.zero.shape[0] % codes_per_word))
    if grid.bits == 4:
        flat = flat[:, ::2] | flat[:, 1::2] << 4
    return _row_major(_row_major(flat).view(torch.int32).T)


def _row_major(tensor: Tensor) -> Tensor:
    """A copy in row-major strides, as `view` of another dtype needs and files have.

    `contiguous` leaves the strides of a dimension of size 1 as they are.
    """
    return tensor.clone(memory_format=torch.contiguous_format)


class PackedLinear(nn.Module):
    """A linear layer, or LM head, whose packed weight is dequantized at each forward pass."""

    def __init__(self, packed: PackedWeight, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("codes", packed.codes)
        self.register_buffer("scale", packed.grid.scale)
        self.register_buffer("zero", packed.grid.zero)
        self.bits: Bits = packed.grid.bits
        self.bias = bias
        self.dtype = dtype

    @property
    def packed(self) -> PackedWeight:
        codes, scale, zero = (self.get_buffer(key) for key in ("codes", "scale", "zero"))
        return PackedWeight(codes, Grid(self.bits, scale, zero))

    @property
    def weight(self) -> Tensor:
        """The whole weight [O, I], dequantized to `dtype`."""
        return self.packed.dequantize(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] gives x W' + bias [..., O], in the dtype of x."""
        packed = self.packed
        rows, columns = packed.shape
        if rows * columns <= WEIGHTS_PER_CHUNK:
            return nn.functional.linear(x, packed.dequantize_rows().to(x.dtype), self.bias)
        out = torch.empty(*x.shape[:-1], rows, dtype=x.dtype, device=x.device)
        step = max(1, WEIGHTS_PER_CHUNK // columns)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            bias = None if self.bias is None else self.bias[part]
            out[..., part] = nn.functional.linear(x, packed.dequantize_rows(part).to(x.dtype), bias)
        return out


class PackedEmbedding(PackedLinear):
    """An embedding with quantized weights: only the rows looked up are dequantized."""

    def __init__(self, packed: PackedWeight, dtype: torch.dtype) -> None:
        super().__init__(packed, None, dtype)
        self.num_embeddings, self.embedding_dim = packed.shape

    def forward(self, x: Tensor) -> Tensor:
        """Looks up token ids x [...]: embeddings [..., H]."""
        return self.packed.dequantize_rows(x.flatten()).to(self.dtype).view(*x.shape, -1)


# -- files ----------------------------------------------------------------------------------------


def is_packed(config: Mapping[str, Any] | None) -> bool:
    """Whether a `quantization_config` is compressed-tensors' `pack-quantized`."""
    return config is not None and config.get("format") == "pack-quantized"


def quantization_config(
    layers: Mapping[str, PackedWeight],
    embeddings: Mapping[str, PackedWeight],
    whole: Sequence[str] = (),
) -> dict[str, Any]:
    """The `quantization_config` of compressed-tensors for packed layers and embeddings.

    `whole` are the linear layers, beside the LM head, that are not packed.
    """
    kinds = {"Linear": layers, "Embedding": embeddings}
    groups = {
        f"group_{at}": {
            "targets": [kind],
            "weights": quantization_scheme(next(iter(weights.values()))),
            "format": "pack-quantized",
        }
        for at, (kind, weights) in enumerate(kinds.items())
        if weights
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ["lm_head", *whole],
    }


def quantization_scheme(packed: PackedWeight) -> dict[str, Any]:
    """The compressed-tensors scheme (bits, group size, asymmetric) of a packed weight."""
    group_size = packed.shape[1] // packed.grid.scale.shape[1]
    return {
        "num_bits": packed.grid.bits,
        "type": "int",
        "symmetric": False,
        "strategy": "group",
        "group_size": group_size,
    }


def read_packed(folder: Path) -> tuple[dict[str, PackedWeight], dict[str, Tensor]]:
    """The packed weights of a model folder by the name of their layer, and all other tensors."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    names = [key.removesuffix(".weight_packed") for key in tensors if key.endswith("_packed")]
    try:
        packed = {name: PackedWeight.from_tensors(tensors, name) for name in names}
    except (KeyError, RuntimeError, ValueError) as error:
        raise ZephyrError(
            "packed weights can't be read",
            where=str(folder),
            found=f"{type(error).__name__}: {error}",
            todo="make this model again",
        ) from error
    packed_keys = {f"{name}.{suffix}" for name in names for suffix in _TENSOR_SUFFIXES}
    return packed, {key: tensor for key, tensor in tensors.items() if key not in packed_keys}


def write_packed(
    folder: Path,
    layers: Mapping[str, PackedWeight],
    embeddings: Mapping[str, PackedWeight],
    others: Mapping[str, Tensor],
    *,
    whole: Sequence[str] = (),
) -> None:
    """Writes packed weights as safetensors, and their `quantization_config` to `config.json`.

    `whole` are the linear layers, beside the LM head, that are among the `others`.
    """
    from safetensors.torch import save_file

    tensors = {key: tensor.contiguous() for key, tensor in others.items()}
    for name, packed in {**layers, **embeddings}.items():
        tensors |= packed.to_tensors(name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = read_json(folder / "config.json")
    write_json(
        folder / "config.json",
        settings | {"quantization_config": quantization_config(layers, embeddings, whole)},
    )


def replace_layers(causal: Any, layers: Mapping[str, PackedWeight], dtype: torch.dtype) -> None:
    """Replaces the named layers of a network by `PackedLinear` and `PackedEmbedding`."""
    for name, packed in layers.items():
        parent, _, attribute = name.rpartition(".")
        old = causal.get_submodule(name)
        if old is causal.get_input_embeddings():
            head = causal.get_output_embeddings()
            if head.weight is old.weight:
                causal.set_output_embeddings(PackedLinear(packed, head.bias, dtype))
            causal.set_input_embeddings(PackedEmbedding(packed, dtype))
        else:
            setattr(causal.get_submodule(parent), attribute, PackedLinear(packed, old.bias, dtype))
