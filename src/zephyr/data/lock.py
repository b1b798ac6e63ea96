"""Lock files of mixtures: compares (diffs) the records of two builds, row by row."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.data.mixture import LOCK_FILE
from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json_lines

RecordKey = tuple[str, str]
"""(source, row): the key of a record in a lock file."""


class LockDiff(NamedTuple):
    """The diff of two lock files: records only in one, with other content, or in another split."""

    unchanged: int
    only_first: list[RecordKey]
    only_second: list[RecordKey]
    changed_content: list[RecordKey]
    changed_side: list[RecordKey]
    is_reordered: bool
    """The records are the same, in another order."""

    @property
    def is_empty(self) -> bool:
        return not (
            self.only_first
            or self.only_second
            or self.changed_content
            or self.changed_side
            or self.is_reordered
        )


def read_lock(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a lock file, or of the one in a folder.

    Raises:
        ZephyrError: there is none, or it is something else.
    """
    file = path / LOCK_FILE if path.is_dir() else path
    if not file.is_file():
        raise ZephyrError(
            "there is no lock file",
            where=str(path),
            todo=f"give a {LOCK_FILE}, a folder that holds one, or a mixture of the recipe",
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


def compare_locks(
    first: Iterable[Mapping[str, str]], second: Iterable[Mapping[str, str]]
) -> LockDiff:
    """Computes the diff of two lock files."""
    first_rows, second_rows = (
        {(r["source"], r["row"]): r for r in rows} for rows in (first, second)
    )
    common = [place for place in first_rows if place in second_rows]
    changed = [place for place in common if first_rows[place]["id"] != second_rows[place]["id"]]
    same = [place for place in common if first_rows[place]["id"] == second_rows[place]["id"]]
    moved = [place for place in same if first_rows[place]["side"] != second_rows[place]["side"]]
    only_first = [place for place in first_rows if place not in second_rows]
    only_second = [place for place in second_rows if place not in first_rows]
    is_same_content = not (changed or moved or only_first or only_second)
    return LockDiff(
        unchanged=len(same) - len(moved),
        only_first=only_first,
        only_second=only_second,
        changed_content=changed,
        changed_side=moved,
        is_reordered=is_same_content and list(first_rows) != list(second_rows),
    )


def count_by_source(keys: Iterable[RecordKey]) -> dict[str, int]:
    """Counts the keys of each source."""
    return dict(Counter(source for source, _ in keys))
