"""Integrity check: whether the files of a finished run are still complete and readable."""

from pathlib import Path

from zephyr.runs.store import DONE, Run

_JSON_FILES = (
    "env.json",
    *(f"artifact/{n}.json" for n in ("scores", "manifest", "examples", "canary", "divergence")),
)
"""The JSON files that the report reads."""


def integrity_error(run: Run) -> str | None:
    """The integrity error of a run: what changed since it finished, and what to do; or None.

    A run that is unfinished, or was never started, has none.
    """
    location = Path(run.path.parent.name, run.path.with_suffix("").name)
    if not run.is_finished:
        was_finished = run.path.with_suffix("").exists()
        return f"damaged: {DONE} is missing from {location}; run it again" if was_finished else None
    if run.integrity_error is not None:
        return f"damaged: {run.integrity_error}; run it again"
    for name in _JSON_FILES:
        if (run.path / name).exists():
            try:
                run.read(name)
            except ValueError:
                return f"damaged: {name} can't be read; remove {location}, then run it again"
    return None
