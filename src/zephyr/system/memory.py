"""Memory of this machine: free memory (within cgroup limits), peak use, and releasing it."""

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""A container's limit and what it uses, in the second and the first version of control groups."""


def free_memory() -> int:
    """Bytes of free main memory, within the limit of the container (cgroup)."""
    import psutil

    available = int(psutil.virtual_memory().available)
    for limit, used in _CGROUP_FILES:
        if Path(limit).exists() and (limit_bytes := Path(limit).read_text().strip()) != "max":
            available = min(available, int(limit_bytes) - int(Path(used).read_text()))
    return max(0, available)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Context manager that measures the growth of this process's peak memory, in bytes.

    The list that it yields stays empty where unknown: Linux alone reports it. Unused memory is
    released beforehand.
    """
    peak_bytes: list[int] = []
    status, clear_refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        yield peak_bytes
        return
    release_memory()
    before = _kilobytes(status, "VmRSS")
    with suppress(OSError):
        clear_refs.write_text("5")  # the peak is counted from here on
    yield peak_bytes
    peak_bytes.append(1024 * max(0, _kilobytes(status, "VmHWM") - before))


def release_memory() -> None:
    """Releases unused memory to the system: garbage collection and malloc_trim.

    glibc keeps as much as a whole network in heaps of threads that have ended.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _kilobytes(status: Path, key: str) -> int:
    line = re.search(rf"^{key}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(line[1]) if line else 0
