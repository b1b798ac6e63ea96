"""What this machine has left."""

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
