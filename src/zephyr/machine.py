"""What this machine has left."""

import ctypes
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

    Linux tells them. Memory that is free, but kept for later, is given back beforehand.
    """
    found: list[int] = []
    status, marks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        yield found
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    before = _kilobytes(status, "VmRSS")
    with suppress(OSError):
        marks.write_text("5")  # the peak is counted from here on
    yield found
    found.append(1024 * max(0, _kilobytes(status, "VmHWM") - before))


def _kilobytes(status: Path, key: str) -> int:
    line = re.search(rf"^{key}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(line[1]) if line else 0
