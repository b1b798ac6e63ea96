"""What this machine offers, and what is missing."""

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zephyr.system.memory import free_memory

NEEDED_DISK = 2e9
NEEDED_MEMORY = 2e9


@dataclass(frozen=True)
class Finding:
    """One fact about the machine, whether it is good enough, and what to do if it is not."""

    what: str
    found: str
    good: bool = True
    todo: str = ""


def examine(root: Path) -> list[Finding]:
    """Versions, devices, free memory, and free disk where runs are kept."""
    return [
        Finding("python", platform.python_version()),
        *(
            _package(name)
            for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
        ),
        _device(),
        Finding("cores", str(os.cpu_count())),
        _memory(),
        _disk(root),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", False, "pip install zephyr-tutor")


def _device() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("device", "unknown without torch", False)
    import torch

    if torch.cuda.is_available():
        return Finding("device", torch.cuda.get_device_name())
    return Finding("device", f"cpu ({torch.backends.cpu.get_cpu_capability()})")


def _memory() -> Finding:
    free = free_memory()
    good = free > NEEDED_MEMORY
    return Finding("free memory", f"{free / 1e9:.1f} GB", good, "" if good else "close programs")


def _disk(root: Path) -> Finding:
    place = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(place).free
    good = free > NEEDED_DISK and os.access(place, os.W_OK)
    todo = "" if good else "free some space, or set ZEPHYR_RUNS to another folder"
    return Finding("free disk", f"{free / 1e9:.1f} GB at {root}", good, todo)
