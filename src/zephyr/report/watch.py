"""Watching: when the runs of a recipe are no longer as they were."""

import time
from collections.abc import Iterator
from pathlib import Path

from zephyr.runs.store import DONE, FAILED, Store

_TELLING = (DONE, FAILED, "metrics.jsonl")
"""The files of a run that appear or grow while it is made."""


def changes(store: Store, recipe: str, every: float) -> Iterator[None]:
    """Yields at once, and then after each look, every so many seconds, that found a change."""
    seen = None
    while True:
        now = _look(store, recipe)
        if now != seen:
            yield
        seen = now
        time.sleep(every)


def _look(store: Store, recipe: str) -> list[tuple[str, str, tuple[int, int] | None]]:
    """The runs of a recipe, and of each telling file the size and the time of its last change."""
    nodes = (store.nodes(recipe) or {"nodes": []})["nodes"]
    runs = [store.find(node["fingerprint"]).path for node in nodes]
    return [(run.name, name, _mark(run / name)) for run in runs for name in _TELLING]


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns
