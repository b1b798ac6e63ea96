"""Measurement: one worker process on a machine that is otherwise idle.

Interference, what other processes compute meanwhile, is measured too; above a limit the
measurement is discarded and repeated.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from bench.shared.environments import CACHE, ROOT, interpreter

LOCK = FileLock(Path(tempfile.gettempdir()) / "zephyr-bench.lock")
"""Held by a benchmark: one at a time on a machine."""
MAX_INTERFERENCE, MAX_TRIAL_INTERFERENCE = 0.05, 0.15
"""Largest share of the machine's processor time that others may take during a measurement."""
MAX_LOAD_BEFORE = 0.3
"""Share that others may take in the second before one; above, it waits."""
IDLE_TIMEOUT = 900
ATTEMPTS = 4
RESERVED_BYTES = 1 << 30
OUT_OF_MEMORY = ("not enough memory", "Cannot allocate memory", "OutOfMemoryError", "MemoryError")

Measurement = dict[str, Any]


def measure(module: str, job: dict[str, Any], max_interference: float) -> list[Measurement]:
    """A measurement, last, and those before it that were discarded, each with its interference.

    A worker module that has the name of a baseline runs in that baseline's environment.
    A worker that runs out of memory gives `{"failed": …}`. With `max_interference` 1 the machine
    need not be idle.
    """
    attempts: list[Measurement] = []
    for _ in range(ATTEMPTS):
        before = _wait_for_idle() if max_interference < 1 else 1.0
        busy, own, start = _busy_seconds(), sum(os.times()[:4]), time.monotonic()
        result = _run_worker(module, job)
        wall = time.monotonic() - start
        others = (_busy_seconds() - busy) - (sum(os.times()[:4]) - own)
        share = max(0.0, others / wall / _cores())
        load = {"before": before, "others": round(share, 3), "load_average": os.getloadavg()[0]}
        kept = share <= max_interference
        attempts.append({"kept": kept, **result, "wall": round(wall, 1), "load": load})
        if kept:
            return attempts
        print(f"    discarded: other processes took {share:.0%} of the machine", flush=True)
    raise SystemExit("this machine is not idle: other processes disturbed every measurement")


def _run_worker(module: str, job: dict[str, Any]) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="zephyr-bench-") as name:
        job_path, result_path = Path(name, "job.json"), Path(name, "result.json")
        memory = psutil.virtual_memory().available - RESERVED_BYTES
        job_path.write_text(json.dumps({**job, "folder": name, "memory": memory}))
        python = interpreter(module.rpartition(".")[2])
        done = subprocess.run(
            # -P: a worker's module has the name of the package that it measures
            [str(python), "-P", "-m", module, str(job_path), str(result_path)],
            cwd=ROOT,
            env=_environment(job["device"]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            result: Measurement = json.loads(result_path.read_text())
            return result
    if done.returncode == -9 or any(sign in done.stdout for sign in OUT_OF_MEMORY):
        return {"failed": f"out of memory ({memory / 2**30:.0f} GiB)"}
    raise SystemExit(f"{module} failed:\n{done.stdout[-6000:]}")


def _environment(device: str) -> dict[str, str]:
    """Offline, on all cores, with the repository on the module path."""
    path = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    variables = {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": str(_cores()),
        "HF_HOME": str(CACHE / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, **variables, **hidden}


def _wait_for_idle() -> float:
    """The share of the machine that was in use in the last second, once it is low."""
    end = time.monotonic() + IDLE_TIMEOUT
    while (share := psutil.cpu_percent(interval=1) / 100) > MAX_LOAD_BEFORE:
        print(f"    waiting: other processes take {share:.0%} of the machine", flush=True)
        if time.monotonic() > end:
            raise SystemExit(f"this machine is not idle after {IDLE_TIMEOUT} s")
        time.sleep(10)
    return share


def _busy_seconds() -> float:
    """Processor seconds of the whole machine."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
