"""`zephyr doctor`: checks versions, devices, memory and disk of this machine."""

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zephyr.system.devices import (
    DEVICE_KINDS,
    device_name,
    device_type,
    unused_accelerator,
)
from zephyr.system.memory import free_memory

NEEDED_DISK = 2e9
NEEDED_MEMORY = 2e9


@dataclass(frozen=True)
class MachineCheck:
    """The result of one check of the machine, and what to do if it fails."""

    name: str
    found: str
    is_ok: bool = True
    todo: str = ""


def check_machine(root: Path) -> list[MachineCheck]:
    """Checks versions, devices, free memory, and free disk where runs are kept."""
    return [
        MachineCheck("python", platform.python_version()),
        *(
            _check_package(name)
            for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
        ),
        _check_device(),
        MachineCheck("cores", str(os.cpu_count())),
        _check_memory(),
        _check_disk(root),
    ]


def _check_package(name: str) -> MachineCheck:
    try:
        return MachineCheck(name, version(name))
    except PackageNotFoundError:
        return MachineCheck(name, "not installed", False, "pip install zephyr-tutor")


def _check_device() -> MachineCheck:
    if importlib.util.find_spec("torch") is None:
        return MachineCheck("device", "unknown without torch", False)
    import torch

    kind = device_type()
    if kind == "cpu":
        unused = unused_accelerator()
        note = "" if unused is None else f"; {unused} is there and is not used"
        capability = torch.backends.cpu.get_cpu_capability()
        return MachineCheck("device", f"cpu ({capability}){note}")
    if DEVICE_KINDS[kind].is_tested:
        return MachineCheck("device", device_name())
    untested = "chosen, but no release has been run on one: ZEPHYR_DEVICE=cpu takes the processor"
    return MachineCheck("device", f"{kind}, {device_name()} ({untested})")


def _check_memory() -> MachineCheck:
    free = free_memory()
    is_ok = free > NEEDED_MEMORY
    return MachineCheck(
        "free memory", f"{free / 1e9:.1f} GB", is_ok, "" if is_ok else "close programs"
    )


def _check_disk(root: Path) -> MachineCheck:
    existing_folder = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(existing_folder).free
    is_ok = free > NEEDED_DISK and os.access(existing_folder, os.W_OK)
    todo = "" if is_ok else "free some space, or set ZEPHYR_RUNS to another folder"
    return MachineCheck("free disk", f"{free / 1e9:.1f} GB at {root}", is_ok, todo)
