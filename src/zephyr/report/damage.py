"""Damage: what is wrong with the files of a run that was finished once."""

from pathlib import Path

from zephyr.runs.store import DONE, Run

_READ = (
    "env.json",
    *(f"artifact/{n}.json" for n in ("scores", "manifest", "examples", "canary", "divergence")),
)
"""The files that the report reads as a whole."""


def damage(run: Run) -> str | None:
    """What is not as it was when the run was finished, and what to do; None if all is.

    A run that is being made, or never was, has none.
    """
    place = Path(run.path.parent.name, run.path.with_suffix("").name)
    if not run.finished:
        lost = run.path.with_suffix("").exists()
        return f"damaged: {DONE} is missing from {place}; run it again" if lost else None
    if run.flaw is not None:
        return f"damaged: {run.flaw}; run it again"
    for name in _READ:
        if (run.path / name).exists():
            try:
                run.read(name)
            except ValueError:
                return f"damaged: {name} can't be read; remove {place}, then run it again"
    return None
