"""Cache shared by all recipes: SHA-256 hashes of large files, and files from the hub."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json, write_json

LARGE_FILE_BYTES = 1 << 24
"""Size in bytes from which on the hash of a file is cached."""

CLOCK_GRANULARITY = 5.0
"""Seconds since the last change of a file before its hash is cached (mtime granularity)."""


def cache_root() -> Path:
    """The root of Zephyr's cache: ZEPHYR_CACHE, or `zephyr` in the user's cache folder."""
    if configured := os.environ.get("ZEPHYR_CACHE"):
        return Path(configured).expanduser().resolve()
    return cache_home() / "zephyr"


def cache_home() -> Path:
    """The user's cache folder (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve()


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex digits.

    That of a large file is cached for as long as its size, its inode and the times of its last
    changes stay.
    """
    stat = path.stat()
    if stat.st_size < LARGE_FILE_BYTES:
        return _sha256(path)
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    cache_file = cache_root() / "sha256" / f"{name}.json"
    stat_key = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):  # a broken entry is a cache miss
        if (cached := read_json(cache_file))["mark"] == stat_key:
            return str(cached["sha256"])
    digest = _sha256(path)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > CLOCK_GRANULARITY * 1e9:
        with suppress(OSError, ZephyrError):  # without a writable cache it only takes longer
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache_file, {"mark": stat_key, "sha256": digest})
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
