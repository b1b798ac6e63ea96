"""Damage: what is wrong with the files of a run that was finished once."""

from pathlib import Path

from zephyr.store import DONE, Run, read_json

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
    flaw = _flaw(run)
    return None if flaw is None else f"damaged: {flaw}; remove {place}, then run it again"


def _flaw(run: Run) -> str | None:
    try:
        sizes: dict[str, int] = read_json(run.path / DONE)["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{DONE} can't be read"
    for name, size in sizes.items():
        path = run.path / name
        if not path.is_file():
            return f"{name} is missing"
        if (found := path.stat().st_size) != size:
            return f"{name} has {found:,} of {size:,} bytes"
    for name in _READ:
        if name in sizes:
            try:
                read_json(run.path / name)
            except ValueError:
                return f"{name} can't be read"
    return None
