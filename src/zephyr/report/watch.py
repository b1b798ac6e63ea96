"""Watches the runs of a recipe for changes (`zephyr report --watch`)."""

import time
from collections.abc import Iterator
from pathlib import Path

from zephyr.runs.store import DONE, FAILED, Store

_WATCHED_FILES = (DONE, FAILED, "metrics.jsonl")
"""The files of a run that appear or grow while it runs."""


def watch_runs(store: Store, recipe: str, interval_seconds: float) -> Iterator[None]:
    """Yields at once, then after each change; polls every `interval_seconds`."""
    previous = None
    while True:
        current = _poll_runs(store, recipe)
        if current != previous:
            yield
        previous = current
        time.sleep(interval_seconds)


def _poll_runs(store: Store, recipe: str) -> list[tuple[str, str, tuple[int, int] | None]]:
    """Polls a recipe's runs: size and modification time of each watched file."""
    nodes = (store.read_nodes(recipe) or {"nodes": []})["nodes"]
    runs = [store.find(node["fingerprint"]).path for node in nodes]
    return [
        (run.name, name, _size_and_mtime(run / name)) for run in runs for name in _WATCHED_FILES
    ]


def _size_and_mtime(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns
