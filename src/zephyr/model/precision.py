"""The dtype in which a network computes: bfloat16 where that is native and loses nothing stored."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose(wanted: Dtype | Literal["auto"], folder: Path) -> Dtype:
    """`auto` is bfloat16 for weights stored in 16 bits, on a machine that multiplies in it."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if _stored_in_16_bits(folder) and _is_native() else "float32"


def cast(network: nn.Module, dtype: Dtype) -> None:
    """Puts the weights of a network, but not of its adapters, in `dtype`.

    Buffers stay as they are: the frequencies of rotary positions are needed in float32.
    """
    for name, parameter in network.named_parameters():
        if parameter.dtype == torch.float32 and ".lora_" not in name:
            parameter.data = parameter.data.to(DTYPES[dtype])


def _stored_in_16_bits(folder: Path) -> bool:
    """Whether the largest tensor of a model folder is stored in 16 bits."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dictionary
                part: Any = file.get_slice(name)
                count = 1
                for length in part.get_shape():
                    count *= length
                sizes[part.get_dtype()] = max(sizes.get(part.get_dtype(), 0), count)
    return bool(sizes) and max(sizes, key=lambda dtype: sizes[dtype]) in ("BF16", "F16")


def _is_native() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
