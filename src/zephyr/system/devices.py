"""Devices: which one computes (cuda, xpu, mps or cpu), and what differs by type of device.

The choice is torch's (`torch.accelerator`), and the rest of the program asks here alone. CPUs and
CUDA have been measured; for the others sizes are those of a device that is alike, and
`zephyr doctor` says that no release has been run on them: `ZEPHYR_DEVICE=cpu` leads back.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.system.memory import free_memory

if TYPE_CHECKING:
    import torch


class DeviceKind(NamedTuple):
    """What differs by type of device.

    `logits_per_chunk` are the logits (N x V) of a chunk: on a CPU, what its caches hold.
    `useful_tokens`, and `useful_bytes` of their activations, are those beyond which micro-batches
    get no faster: on a CPU, what does not fit its caches takes as long in parts. `collectives` is
    the backend of torch.distributed; None where several processes can't share a training.
    """

    label: str
    logits_per_chunk: int
    useful_tokens: int
    useful_bytes: int
    collectives: str | None
    is_tested: bool


DEVICE_KINDS = {
    "cpu": DeviceKind("threads of a processor", 1 << 21, 4096, 1 << 29, "gloo", True),
    "cuda": DeviceKind("one GPU", 1 << 26, 32768, 1 << 62, "nccl", True),
    "xpu": DeviceKind("one Intel GPU", 1 << 26, 32768, 1 << 62, "xccl", False),
    "mps": DeviceKind("one Apple GPU", 1 << 24, 8192, 1 << 62, None, False),
}
"""The types of devices that are used, by their name in torch."""


def device_type() -> str:
    """The type of the device that computes: torch's accelerator, where it is known here, or cpu.

    Raises:
        ZephyrError: `ZEPHYR_DEVICE` names another than these two.
    """
    accelerator = _accelerator_type()
    found = accelerator if accelerator is not None and accelerator in DEVICE_KINDS else "cpu"
    wanted = os.environ.get("ZEPHYR_DEVICE", found)
    if wanted not in (found, "cpu"):
        raise ZephyrError(
            "this device is not there, or can't be used",
            where="ZEPHYR_DEVICE",
            found=wanted,
            allowed=dict.fromkeys((found, "cpu")),
        )
    return wanted


def has_accelerator() -> bool:
    """Whether another device than the CPU computes."""
    return device_type() != "cpu"


def device_name() -> str:
    """The name of the device that computes, as its maker calls it; `cpu` for a CPU."""
    import torch

    kind = device_type()
    if kind == "cuda":
        return torch.cuda.get_device_name()
    if kind == "xpu":
        return torch.xpu.get_device_name()
    return f"Apple GPU of {platform.machine()}" if kind == "mps" else "cpu"


def unused_accelerator() -> str | None:
    """The type of an accelerator that torch has found and this program does not use."""
    return None if has_accelerator() else _accelerator_type()


def _accelerator_type() -> str | None:
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return None if accelerator is None else accelerator.type


def set_local_device(local_rank: int) -> None:
    """Gives this process one of the accelerators of its machine."""
    import torch

    if has_accelerator() and torch.accelerator.device_count() > 1:
        torch.accelerator.set_device_index(local_rank)


def synchronize() -> None:
    """Waits until the device has finished what is queued."""
    import torch

    if has_accelerator():
        torch.accelerator.synchronize()


def free_device_memory(device: "torch.device") -> int:
    """Bytes of free memory of a device: an Apple GPU takes a part of the main memory."""
    import torch

    if device.type == "cpu":
        return free_memory()
    if device.type == "mps":
        own = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(own, free_memory()))
    return torch.accelerator.get_memory_info(device)[0]


def has_native_bfloat16() -> bool:
    """Whether the device that computes multiplies in bfloat16 natively."""
    import torch

    kind = device_type()
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "xpu":
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    if kind == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    capabilities = torch.cpu.get_capabilities()
    return bool(
        capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    )


@contextmanager
def fork_rng(device: "torch.device") -> Iterator[None]:
    """Context manager after which the random numbers of the CPU and a device go on as before."""
    import torch

    if device.type in ("cpu", "meta"):
        with torch.random.fork_rng(devices=[]):
            yield
        return
    with torch.random.fork_rng(devices=[device], device_type=device.type):
        yield


def to_float64(tensor: "torch.Tensor") -> "torch.Tensor":
    """A tensor in float64; on the CPU where the device has none (mps)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
