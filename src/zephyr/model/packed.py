"""Weights as integers of 4 or 8 bits, with a scale and a zero point for each group of a row.

A weight is (code - zero) * scale. Codes are laid out as in the form `pack-quantized` of
compressed-tensors (vLLM's), so that other programs read the files: `weight_packed` holds eight
codes of 4 bits in an int32, `weight_scale` and `weight_zero_point` those of each group, and
`weight_shape` the shape of the whole. Embeddings are stored in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json, write_json

Bits = Literal[4, 8]
BLOCK = 1 << 22
"""Weights that are computed at a time, so that large matrices need no second copy."""

SCALE = "weight_scale"
"""What the names of the tensors of scales end in."""
_PARTS = ("weight_packed", SCALE, "weight_zero_point", "weight_shape")


@dataclass(frozen=True)
class Grid:
    """What weights [rows, columns] may be: `scale` and `zero` [rows, groups] of codes of `bits`.

    `zero` is itself a code, so that the weight zero is exact.
    """

    bits: Bits
    scale: Tensor
    zero: Tensor

    @classmethod
    def around(cls, weight: Tensor, bits: Bits, group: int) -> "Grid":
        """From the least to the greatest weight of each group, zero included.

        Scales are rounded to float16, as they are stored, before anything is rounded by them.
        """
        parts = weight.float().reshape(len(weight), -1, group)
        low, high = parts.amin(dim=2).clamp_(max=0), parts.amax(dim=2).clamp_(min=0)
        step = ((high - low) / (2**bits - 1)).half()
        step[step == 0] = 1.0  # all weights of the group are zero, or too small for the scale
        zero = (-low / step.float()).round_().clamp_(0, 2**bits - 1).to(torch.uint8)
        return cls(bits, step, zero)

    def codes(self, weight: Tensor) -> Tensor:
        """The nearest code to each weight, uint8 [rows, columns]."""
        parts = weight.float().reshape(*self.scale.shape, -1)
        scaled = parts / self.scale.float()[:, :, None]
        codes = scaled.round_().add_(self.zero[:, :, None]).clamp_(0, 2**self.bits - 1)
        return codes.flatten(1).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        """The weights that codes [rows, columns] stand for, in float32."""
        parts = codes.reshape(*self.scale.shape, -1).float()
        parts -= self.zero[:, :, None]
        parts *= self.scale.float()[:, :, None]
        return parts.flatten(1)

    def rows(self, at: Any) -> "Grid":
        """The grid of some of the rows."""
        return Grid(self.bits, self.scale[at], self.zero[at])


@dataclass(frozen=True)
class Packed:
    """A weight [rows, columns]: codes, two of 4 bits to a byte (the first in its low half)."""

    codes: Tensor
    grid: Grid

    @classmethod
    def rounded(cls, weight: Tensor, bits: Bits, group: int) -> "Packed":
        """Each weight rounded to the nearest of its group's grid."""
        rows = max(1, BLOCK // weight.shape[1])
        parts = [
            cls._of(part, Grid.around(part, bits, group)) for part in torch.split(weight, rows)
        ]
        grids = [part.grid for part in parts]
        scale, zero = (torch.cat([getattr(g, key) for g in grids]) for key in ("scale", "zero"))
        return cls(torch.cat([part.codes for part in parts]), Grid(bits, scale, zero))

    @classmethod
    def of_codes(cls, codes: Tensor, grid: Grid) -> "Packed":
        """Of codes [rows, columns], one to a byte."""
        if grid.bits == 8:
            return cls(codes, grid)
        return cls(codes[:, ::2] | codes[:, 1::2] << 4, grid)

    @classmethod
    def _of(cls, weight: Tensor, grid: Grid) -> "Packed":
        return cls.of_codes(grid.codes(weight), grid)

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1] * (8 // self.grid.bits)

    def values(self, at: Any = slice(None)) -> Tensor:
        """Some rows of the weight in float32: all of them, a slice, or those of a tensor."""
        codes = self.codes[at]
        if self.grid.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2)
        return self.grid.rows(at).values(codes)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The whole weight in `dtype`, made in pieces."""
        rows, columns = self.shape
        whole = torch.empty(rows, columns, dtype=dtype, device=self.codes.device)
        step = max(1, BLOCK // columns)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            whole[part] = self.values(part)
        return whole

    def stored(self, name: str) -> dict[str, Tensor]:
        """The tensors by which a file holds the weight of the layer `name`."""
        zero = _zero_codes(self.grid)
        return {
            f"{name}.weight_packed": self.codes.view(torch.int32),
            f"{name}.{SCALE}": self.grid.scale.contiguous(),
            f"{name}.weight_zero_point": zero,
            f"{name}.weight_shape": torch.tensor(self.shape, dtype=torch.int64),
        }

    @classmethod
    def from_stored(cls, tensors: Mapping[str, Tensor], name: str) -> "Packed":
        """What `stored` gave."""
        words, scale, zero, shape = (tensors[f"{name}.{part}"] for part in _PARTS)
        rows, columns = shape.tolist()
        codes = words.view(torch.uint8)
        bits: Bits = 4 if codes.shape[1] * 2 == columns else 8
        flat = zero.T.contiguous().view(torch.uint8)
        if bits == 4:
            flat = torch.stack([flat & 15, flat >> 4], dim=-1).flatten(-2)
        return cls(codes, Grid(bits, scale, flat[:, :rows].T.contiguous()))


def _zero_codes(grid: Grid) -> Tensor:
    """Zero points packed along the rows, which compressed-tensors does, too."""
    each = 32 // grid.bits
    flat = nn.functional.pad(grid.zero.T, (0, -grid.zero.shape[0] % each))
    if grid.bits == 4:
        flat = flat[:, ::2] | flat[:, 1::2] << 4
    return flat.clone(memory_format=torch.contiguous_format).view(torch.int32).T.contiguous()


class PackedLinear(nn.Module):
    """A linear layer, or a head, whose weight is unpacked for each product."""

    def __init__(self, packed: Packed, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("codes", packed.codes)
        self.register_buffer("scale", packed.grid.scale)
        self.register_buffer("zero", packed.grid.zero)
        self.bits: Bits = packed.grid.bits
        self.bias = bias
        self.dtype = dtype

    @property
    def packed(self) -> Packed:
        codes, scale, zero = (self.get_buffer(key) for key in ("codes", "scale", "zero"))
        return Packed(codes, Grid(self.bits, scale, zero))

    @property
    def weight(self) -> Tensor:
        """The whole weight in `dtype`."""
        return self.packed.dense(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Products [..., rows] of x [..., columns], in the dtype of x."""
        packed = self.packed
        rows, columns = packed.shape
        if rows * columns <= BLOCK:
            return nn.functional.linear(x, packed.values().to(x.dtype), self.bias)
        out = torch.empty(*x.shape[:-1], rows, dtype=x.dtype, device=x.device)
        step = max(1, BLOCK // columns)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            bias = None if self.bias is None else self.bias[part]
            out[..., part] = nn.functional.linear(x, packed.values(part).to(x.dtype), bias)
        return out


class PackedEmbedding(PackedLinear):
    """An embedding of which only the rows that are asked for are unpacked."""

    def __init__(self, packed: Packed, dtype: torch.dtype) -> None:
        super().__init__(packed, None, dtype)
        self.num_embeddings, self.embedding_dim = packed.shape

    def forward(self, x: Tensor) -> Tensor:
        """Rows [..., columns] of the numbers x [...]."""
        return self.packed.values(x.flatten()).to(self.dtype).view(*x.shape, -1)


# -- files ----------------------------------------------------------------------------------------


def is_packed(config: Mapping[str, Any] | None) -> bool:
    """Whether a `quantization_config` tells of weights in this form."""
    return config is not None and config.get("format") == "pack-quantized"


def config(layers: Mapping[str, Packed], embeddings: Mapping[str, Packed]) -> dict[str, Any]:
    """The `quantization_config` of compressed-tensors for packed layers and embeddings."""
    kinds = {"Linear": layers, "Embedding": embeddings}
    groups = {
        f"group_{at}": {
            "targets": [kind],
            "weights": scheme(next(iter(found.values()))),
            "format": "pack-quantized",
        }
        for at, (kind, found) in enumerate(kinds.items())
        if found
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


def scheme(packed: Packed) -> dict[str, Any]:
    """How compressed-tensors describes a packed weight."""
    group = packed.shape[1] // packed.grid.scale.shape[1]
    return {
        "num_bits": packed.grid.bits,
        "type": "int",
        "symmetric": False,
        "strategy": "group",
        "group_size": group,
    }


def read(folder: Path) -> tuple[dict[str, Packed], dict[str, Tensor]]:
    """The packed weights of a model folder by the name of their layer, and all other tensors."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    names = [key.removesuffix(".weight_packed") for key in tensors if key.endswith("_packed")]
    try:
        packed = {name: Packed.from_stored(tensors, name) for name in names}
    except (KeyError, RuntimeError, ValueError) as error:
        raise ZephyrError(
            "packed weights can't be read",
            where=str(folder),
            found=f"{type(error).__name__}: {error}",
            todo="make this model again",
        ) from error
    held = {f"{name}.{part}" for name in names for part in _PARTS}
    return packed, {key: tensor for key, tensor in tensors.items() if key not in held}


def write(
    folder: Path,
    layers: Mapping[str, Packed],
    embeddings: Mapping[str, Packed],
    others: Mapping[str, Tensor],
) -> None:
    """Writes the weights of a network, and into its `config.json` how they are packed."""
    from safetensors.torch import save_file

    tensors = {key: tensor.contiguous() for key, tensor in others.items()}
    for name, packed in {**layers, **embeddings}.items():
        tensors |= packed.stored(name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = read_json(folder / "config.json")
    write_json(
        folder / "config.json", settings | {"quantization_config": config(layers, embeddings)}
    )


def put(causal: Any, layers: Mapping[str, Packed], dtype: torch.dtype) -> None:
    """Puts packed layers in place of those of a network that have their names."""
    for name, packed in layers.items():
        parent, _, own = name.rpartition(".")
        old = causal.get_submodule(name)
        if old is causal.get_input_embeddings():
            head = causal.get_output_embeddings()
            if head.weight is old.weight:
                causal.set_output_embeddings(PackedLinear(packed, head.bias, dtype))
            causal.set_input_embeddings(PackedEmbedding(packed, dtype))
        else:
            setattr(causal.get_submodule(parent), own, PackedLinear(packed, old.bias, dtype))
