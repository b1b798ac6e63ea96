"""Compute dtype (precision): bfloat16 where it is native and the weights have 16 bits.

Weights stored in float16 then keep eight of their eleven significant bits, as many as the
activations that they are multiplied with.
"""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zephyr.errors import ZephyrError
from zephyr.model.packed_weights import SCALE_SUFFIX
from zephyr.system.devices import has_accelerator, has_native_bfloat16

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HALF_DTYPES = (torch.bfloat16, torch.float16)
"""The 16-bit (half-precision) dtypes."""


def choose_dtype(requested: Dtype | Literal["auto"], folder: Path) -> Dtype:
    """Chooses the compute dtype; `auto` is bfloat16 for 16-bit weights where it is native."""
    if requested != "auto":
        return requested
    return (
        "bfloat16" if stored_dtype(folder) in HALF_DTYPES and has_native_bfloat16() else "float32"
    )


def choose_evaluation_dtype(requested: Dtype | Literal["auto"], folder: Path) -> Dtype:
    """Chooses the compute dtype of an evaluation; `auto` is float32 on a CPU: no batch effects."""
    if requested == "auto" and not has_accelerator():
        return "float32"
    return choose_dtype(requested, folder)


def rounding_tolerance(network: nn.Module) -> float:
    """Tolerance, in nats per token, for two computations of the same log-probabilities.

    In float32 two ways differ by some 1e-6, and a mask that is not honoured gives 0.06 and more. In
    bfloat16 a logit between 16 and 32 is rounded by up to 1/16, and a log-probability is the
    difference of two such numbers: a random network of 24 layers of width 1,024, whose logits are
    large, gave means of 0.03 to 0.05 over an example, and up to 0.25 in a single token.
    """
    is_bfloat16 = any(p.dtype == torch.bfloat16 for p in network.parameters())
    return 0.12 if is_bfloat16 else 1e-3


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype in which a folder holds the largest of the tensors that are not quantized."""
    largest = _largest_tensor_sizes(folder)
    return max(largest, key=lambda dtype: largest[dtype], default=torch.float32)


def uniform_stored_dtype(folder: Path) -> torch.dtype | None:
    """The one dtype of all tensors in a folder that are not quantized; None where there are more.

    What was stored in several can't be read in the smaller one without a loss.
    """
    dtypes = list(_largest_tensor_sizes(folder))
    return dtypes[0] if len(dtypes) == 1 else None


def _largest_tensor_sizes(folder: Path) -> dict[torch.dtype, int]:
    """The dtypes of what is not quantized, and the numbers in the largest tensor of each.

    Scales of quantized weights don't count.
    """
    from safetensors import SafetensorError, safe_open

    largest: dict[torch.dtype, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no dictionary
                    part: Any = file.get_slice(name)
                    dtype = _SAFETENSORS_DTYPES.get(part.get_dtype())
                    if dtype is not None and not name.endswith(SCALE_SUFFIX):
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


_SAFETENSORS_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
