"""Worker process of a benchmark: reads a job file, measures, writes a result file.

Free of Zephyr, for the virtual environments of the baselines run it too.
"""

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Row = dict[str, Any]
Job = SimpleNamespace
"""The work that is wanted: `device`, a `folder` for files, the `memory` that is free, and more."""


def main(run: Callable[[Job], dict[str, Any]], packages: Iterable[str] = ()) -> None:
    """Runs the job in the file that the command line names first; the result goes to the second."""
    source, target = map(Path, sys.argv[1:])
    job = Job(**json.loads(source.read_text()))
    result = run(job)
    if torch := sys.modules.get("torch"):
        result = {"threads": torch.get_num_threads()} | result
    versions = {name: importlib.metadata.version(name) for name in packages}
    result = {"peak_bytes": peak_bytes(job.device), "versions": versions} | result
    target.write_text(json.dumps(result))


def limit_memory(job: Job) -> None:
    """On a CPU a process that allocates more fails, and does not starve others."""
    if job.device == "cpu":
        resource.setrlimit(resource.RLIMIT_AS, (job.memory, job.memory))


def read_rows(path: str) -> list[Row]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").split("\n") if line]


def synchronized_time(device: str) -> float:
    """Seconds of a monotonic clock, after CUDA has finished what is queued."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def peak_bytes(device: str) -> int:
    """Peak memory of this process: resident on the CPU, allocated by torch on a GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
