"""One reading: a contender's process on a machine that does nothing else.

What other processes compute while it runs is measured, and a disturbed reading is thrown away.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from bench.peers import FOLDER, ROOT, python_of

LOCK = Path(tempfile.gettempdir()) / "zephyr-bench.lock"
BUSY = 0.3
"""Share that others may take in the second before one; above, it waits."""
PATIENCE = 900
OWN = ("zephyr", "zephyr_asks", "matrix", "quantize", "serve")
"""Contenders that run in the project's own environment."""
ATTEMPTS = 4
SPARE = 1 << 30
OUT_OF_MEMORY = ("not enough memory", "Cannot allocate memory", "OutOfMemoryError", "MemoryError")


@contextmanager
def alone() -> Iterator[None]:
    """Holds the machine-wide lock of benches."""
    with FileLock(LOCK):
        yield


def take(
    contender: str, job: dict[str, Any], quiet: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A reading, and those before it that were thrown away, each with the load it met.

    `quiet` is the largest share of the machine's processor time that others may take meanwhile. A
    contender that runs out of memory gives `{"failed": …}`. Where others may take all of it, the
    machine need not be idle.
    """
    thrown: list[dict[str, Any]] = []
    for _ in range(ATTEMPTS):
        before = _wait_for_idle() if quiet < 1 else 1.0
        busy, own, start = _busy(), _children(), time.monotonic()
        result = _process(contender, job)
        wall = time.monotonic() - start
        others = (_busy() - busy) - (_children() - own)
        share = max(0.0, others / wall / _cores())
        load = {"before": before, "others": round(share, 3), "load_average": os.getloadavg()[0]}
        reading = {**result, "wall": round(wall, 1), "load": load}
        if share <= quiet:
            return reading, thrown
        print(f"    thrown away: other processes took {share:.0%} of the machine", flush=True)
        thrown.append(reading)
    raise SystemExit("this machine is not idle: other processes disturbed every reading")


def _process(contender: str, job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="zephyr-bench-") as name:
        folder = Path(name)
        memory = psutil.virtual_memory().available - SPARE
        job = {**job, "folder": name, "memory": memory}
        (folder / "job.json").write_text(json.dumps(job))
        own = contender in OWN
        done = subprocess.run(
            [
                sys.executable if own else str(python_of(contender)),
                "-P",  # a contender's file bears the name of its package
                "-m",
                f"bench.contenders.{contender}",
                str(folder / "job.json"),
                str(folder / "result.json"),
            ],
            cwd=ROOT,
            env=_environment(job["device"]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            result: dict[str, Any] = json.loads((folder / "result.json").read_text())
            return result
    if done.returncode == -9 or any(sign in done.stdout for sign in OUT_OF_MEMORY):
        return {"failed": f"out of memory ({memory / 2**30:.0f} GiB)"}
    raise SystemExit(f"{contender} failed:\n{done.stdout[-6000:]}")


def _environment(device: str) -> dict[str, str]:
    """Offline, on all cores; a contender sees the bench and what the caller's path holds."""
    path = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    set_here = {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": str(_cores()),
        "HF_HOME": str(FOLDER / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device == "cpu":
        set_here["CUDA_VISIBLE_DEVICES"] = ""
    return {**os.environ, **set_here}


def _wait_for_idle() -> float:
    """The share of the machine that was in use in the last second, once it is low."""
    end = time.monotonic() + PATIENCE
    while (share := psutil.cpu_percent(interval=1) / 100) > BUSY:
        print(f"    waiting: other processes take {share:.0%} of the machine", flush=True)
        if time.monotonic() > end:
            raise SystemExit(f"this machine is not idle after {PATIENCE} s")
        time.sleep(10)
    return share


def _busy() -> float:
    """Processor seconds that the whole machine has computed."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def _children() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
