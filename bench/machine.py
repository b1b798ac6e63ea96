"""What the benches keep beside their readings: the machine, the commit, a file of JSON."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.peers import ROOT
from zephyr.model import precision
from zephyr.model.precision import Dtype


def write(path: Path, value: dict[str, Any]) -> None:
    """Writes a file of results, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def products() -> Dtype:
    """The dtype in which this machine multiplies quickest."""
    return "bfloat16" if precision.has_native_bfloat16() else "float32"


def kind(device: str) -> str:
    """What is measured apart: a card, or a processor by its products."""
    return device if device == "cuda" else f"{device}-{products()}"


def machine(device: str) -> dict[str, Any]:
    """The card, or processor, cores and memory; its products, and the version of Python."""
    if device == "cuda":
        import torch

        return {
            "card": torch.cuda.get_device_name(),
            "products": products(),
            "python": platform.python_version(),
        }
    names = (
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": next(names, platform.processor()),
        "cores": os.cpu_count(),
        "memory_gib": round(gib, 1),
        "products": products(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of the code that was measured; `+` where the files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607  # wherever the user's git is
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "bench/contenders")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
