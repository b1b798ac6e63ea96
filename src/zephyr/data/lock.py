"""Lock files compared: whether two draws of a mixture hold the same records of the same rows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.data.mixture import LOCK
from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json_lines

Place = tuple[str, str]
"""Source and row."""


class Difference(NamedTuple):
    """Places of records: only in one of two draws, of other content, or on another side."""

    same: int
    only_first: list[Place]
    only_second: list[Place]
    changed: list[Place]
    moved: list[Place]
    reordered: bool
    """All records are the same, and come in another order."""

    @property
    def nothing(self) -> bool:
        return not (
            self.only_first or self.only_second or self.changed or self.moved or self.reordered
        )


def read_lock(path: Path) -> list[dict[str, Any]]:
    """The rows of a lock file, or of the one in a folder.

    Raises:
        ZephyrError: there is none, or it is something else.
    """
    file = path / LOCK if path.is_dir() else path
    if not file.is_file():
        raise ZephyrError(
            "there is no lock file",
            where=str(path),
            todo=f"give a {LOCK}, a folder that holds one, or a mixture of the recipe",
        )
    try:
        rows = read_json_lines(file)
    except ValueError as error:
        raise ZephyrError("this is no lock file", where=str(file), found=error) from error
    fields = {"source", "row", "id", "side"}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(f), str) for f in fields):
            raise ZephyrError(
                "this is no lock file", where=f"{file}:{number}", allowed=sorted(fields)
            )
    return rows


def compare(first: Iterable[Mapping[str, str]], second: Iterable[Mapping[str, str]]) -> Difference:
    """The difference of two lock files."""
    one, other = ({(r["source"], r["row"]): r for r in rows} for rows in (first, second))
    both = [place for place in one if place in other]
    changed = [place for place in both if one[place]["id"] != other[place]["id"]]
    same = [place for place in both if one[place]["id"] == other[place]["id"]]
    moved = [place for place in same if one[place]["side"] != other[place]["side"]]
    only_first = [place for place in one if place not in other]
    only_second = [place for place in other if place not in one]
    whole = not (changed or moved or only_first or only_second)
    return Difference(
        same=len(same) - len(moved),
        only_first=only_first,
        only_second=only_second,
        changed=changed,
        moved=moved,
        reordered=whole and list(one) != list(other),
    )


def by_source(places: Iterable[Place]) -> dict[str, int]:
    """How many places are of each source."""
    return dict(Counter(source for source, _ in places))
