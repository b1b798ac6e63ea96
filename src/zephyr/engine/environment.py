"""Run environment (`env.json`): recorded when a run begins, and reused when it resumes."""

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from zephyr.errors import ZephyrError
from zephyr.runs.store import Run, read_json, write_json
from zephyr.system.devices import device_name


def load_or_create_environment(run: Run, current: dict[str, Any]) -> dict[str, Any]:
    """The run's environment: as recorded when the run began, so that resuming is exact.

    Raises:
        ZephyrError: it can't be read, or the run began with more processes than there are now.
    """
    path = run.path / "env.json"
    if not path.exists():
        write_json(path, current)
        return current
    try:
        env = {"processes": 1, "shard": False, **read_json(path)}
    except ValueError as error:
        raise ZephyrError(
            "what an unfinished run was begun with can't be read",
            where=str(path),
            found=error,
            todo=f"remove {run.path}: the run is then made from its start",
        ) from error
    if env["processes"] > current["processes"]:
        raise ZephyrError(
            "this training was begun with more processes than there are now",
            where=str(run.path),
            found=f"{current['processes']} of {env['processes']}",
            todo=f"--processes {env['processes']}, or remove the folder to begin anew",
        )
    return env


def environment_changes(original: dict[str, Any], current: dict[str, Any]) -> Iterator[str]:
    """Warnings about changes of the environment since a run began, a sentence each."""
    if original["threads"] > available_cores():
        yield (
            f"it was begun with {original['threads']} threads and goes on with as many, for "
            "the result "
            f"depends on their number; this machine has {available_cores()} cores, and will be slow"
        )
    before, after = ({**env["versions"], "device": env["device"]} for env in (original, current))
    differing = [f"{k} {before.get(k)} -> {v}" for k, v in after.items() if before.get(k) != v]
    if differing:
        yield (
            f"it goes on with other than it was begun with ({', '.join(differing)}): "
            "the result may differ from an unbroken run's in its last bits"
        )


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def current_environment(threads: int, processes: int, *, shard: bool) -> dict[str, Any]:
    """The environment of a run that starts now: threads, processes, device, versions."""
    return {
        "threads": threads,
        "processes": processes,
        "shard": shard and processes > 1,
        "device": device_name(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": library_versions(),
    }


LIBRARIES = (
    "zephyr",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "tokenizers",
    "numpy",
)


def library_versions() -> dict[str, str]:
    """The versions of the libraries that a result may depend on."""
    from importlib.metadata import version

    from zephyr import __version__

    return {n: __version__ if n == "zephyr" else version(n) for n in LIBRARIES}
