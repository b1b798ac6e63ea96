"""The dtype in which a network computes: bfloat16 where that is native and weights have 16 bits.

Weights stored in float16 keep eight of their eleven significant bits, as many as the activations
that they are multiplied with.
"""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zephyr.errors import ZephyrError
from zephyr.model.packed import SCALE

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HALVES = (torch.bfloat16, torch.float16)


def choose(wanted: Dtype | Literal["auto"], folder: Path) -> Dtype:
    """`auto` is bfloat16 for weights stored in 16 bits, on a machine that multiplies in it."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if stored_in(folder) in HALVES and is_native() else "float32"


def choose_for_evaluation(wanted: Dtype | Literal["auto"], folder: Path) -> Dtype:
    """`auto` is float32 on a processor, where no score then depends on its batch; else `choose`."""
    if wanted == "auto" and not torch.cuda.is_available():
        return "float32"
    return choose(wanted, folder)


def rounding(network: nn.Module) -> float:
    """The mean difference between two ways of one forward, in nats per token, that is rounding.

    In float32 two ways differ by some 1e-6, and a mask that is not honoured gives 0.06 and more. In
    bfloat16 a logit between 16 and 32 is rounded by up to 1/16, and a log-probability is the
    difference of two such numbers: a random network of 24 layers of width 1,024, whose logits are
    large, gave means of 0.03 to 0.05 over an example, and up to 0.25 in a single token.
    """
    half = any(p.dtype == torch.bfloat16 for p in network.parameters())
    return 0.12 if half else 1e-3


def stored_in(folder: Path) -> torch.dtype:
    """The dtype in which a folder holds the largest of the tensors that are not quantized."""
    largest = _largest(folder)
    return max(largest, key=lambda dtype: largest[dtype], default=torch.float32)


def all_stored_in(folder: Path) -> torch.dtype | None:
    """The one dtype of all tensors in a folder that are not quantized; None where there are more.

    What was stored in several can't be read in the smaller one without a loss.
    """
    found = list(_largest(folder))
    return found[0] if len(found) == 1 else None


def _largest(folder: Path) -> dict[torch.dtype, int]:
    """The dtypes of what is not quantized, and the numbers in the largest tensor of each.

    Scales of quantized ones are none of them.
    """
    from safetensors import SafetensorError, safe_open

    largest: dict[torch.dtype, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no dictionary
                    part: Any = file.get_slice(name)
                    dtype = _STORED.get(part.get_dtype())
                    if dtype is not None and not name.endswith(SCALE):
                        count = math.prod(part.get_shape())
                        largest[dtype] = max(largest.get(dtype, 0), count)
        except (OSError, SafetensorError) as error:
            raise ZephyrError(
                "this network can't be read",
                where=str(path),
                found=str(error),
                todo="download or make it again",
            ) from error
    return largest


_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def is_native() -> bool:
    """Whether this machine multiplies in bfloat16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
