"""What this machine has left."""

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""A container's limit and what it uses, in the second and the first version of control groups."""


def free_memory() -> int:
    """Bytes of main memory that a process can still have, within the limit of its container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in _LIMITS:
        if Path(limit).exists() and (most := Path(limit).read_text().strip()) != "max":
            free = min(free, int(most) - int(Path(used).read_text()))
    return max(0, free)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Afterwards holds the bytes by which this process grew at most; nothing where none are told.

    Linux tells them. Memory that nothing holds is given back beforehand.
    """
    found: list[int] = []
    status, marks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        yield found
        return
    give_memory_back()
    before = _kilobytes(status, "VmRSS")
    with suppress(OSError):
        marks.write_text("5")  # the peak is counted from here on
    yield found
    found.append(1024 * max(0, _kilobytes(status, "VmHWM") - before))


def give_memory_back() -> None:
    """Lets go of what nothing holds any more, and of what the C library keeps for later.

    It keeps as much as a whole network, in heaps of threads that have ended.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _kilobytes(status: Path, key: str) -> int:
    line = re.search(rf"^{key}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(line[1]) if line else 0
