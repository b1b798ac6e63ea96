"""What is remembered between runs of all recipes: hashes of large files, and files of the hub."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json, write_json

LARGE = 1 << 24
"""Bytes from which on the hash of a file is remembered."""

GRAIN = 5.0
"""Seconds for which a file must have been left alone: a clock is no finer than that."""


def cache_root() -> Path:
    """The folder of all that is remembered: ZEPHYR_CACHE, or `zephyr` in the user's cache."""
    if own := os.environ.get("ZEPHYR_CACHE"):
        return Path(own).expanduser().resolve()
    return cache_home() / "zephyr"


def cache_home() -> Path:
    """The user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve()


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex digits.

    That of a large file is remembered for as long as its size, its inode and the times of its last
    changes stay.
    """
    stat = path.stat()
    if stat.st_size < LARGE:
        return _sha256(path)
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    memory = cache_root() / "sha256" / f"{name}.json"
    mark = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):  # what is broken is not there
        if (known := read_json(memory))["mark"] == mark:
            return str(known["sha256"])
    found = _sha256(path)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > GRAIN * 1e9:
        with suppress(OSError, ZephyrError):  # a cache that can't be written costs time alone
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory, {"mark": mark, "sha256": found})
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
