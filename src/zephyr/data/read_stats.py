"""Counts of the rows read from a source: unreadable or skipped, each reason with its place."""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zephyr.errors import ZephyrError
from zephyr.records import Record


class RowItem(NamedTuple):
    """An item of a row (its number is `part`): a record, or the reason why there is none.

    `skip_reason` says why it was skipped on purpose, `unreadable_reason` why the row is malformed,
    and `todo` what can be done about it. `unused_columns` are the columns with a value that the
    reader does not know; the first item of a row has them.
    """

    row: int
    part: int
    location: str
    record: Record | None
    skip_reason: str = ""
    unreadable_reason: str = ""
    todo: str = ""
    unused_columns: tuple[str, ...] = ()


@dataclass
class ReadStats:
    """Counts of the rows read from a source, by reason; `first_location` is the first of each.

    `unused_columns` counts the rows that have a value in a column that was not read.
    """

    label: str
    item_count: int = 0
    unreadable_reasons: Counter[str] = field(default_factory=Counter)
    skip_reasons: Counter[str] = field(default_factory=Counter)
    first_location: dict[str, str] = field(default_factory=dict)
    todos: dict[str, str] = field(default_factory=dict)
    unused_columns: Counter[str] = field(default_factory=Counter)

    def count(self, item: RowItem) -> None:
        """Counts one item of a row."""
        self.item_count += 1
        self.unused_columns.update(item.unused_columns)
        if item.skip_reason:
            self.skip_reasons[item.skip_reason] += 1
        if item.unreadable_reason:
            self.unreadable_reasons[item.unreadable_reason] += 1
            self.first_location.setdefault(item.unreadable_reason, item.location)
            self.todos.setdefault(item.unreadable_reason, item.todo)

    def check_unreadable_share(self, allowed: float) -> None:
        """Checks that the share of unreadable rows is within the limit.

        Raises:
            ZephyrError: more than the allowed share of rows can't be read, or all of them.
        """
        unreadable_count = sum(self.unreadable_reasons.values())
        if unreadable_count > allowed * max(self.item_count, 1) or (
            unreadable_count and unreadable_count == self.item_count
        ):
            raise ZephyrError(
                f"too many rows of source {self.label!r} can't be read",
                where=next(iter(self.first_location.values())),
                found=f"{unreadable_count} of {self.item_count} rows: {self._list_reasons()}",
                allowed=f"a share of {allowed:g} (`unreadable`)",
                todo=self._list_todos(unreadable_count),
            )

    def _list_reasons(self) -> str:
        """The counts of the reasons, each with its first place where there are several."""
        listed = [
            f"{count} x {why}"
            + (f" ({Path(self.first_location[why]).name})" if len(self.first_location) > 1 else "")
            for why, count in self.unreadable_reasons.most_common(_MAX_REASONS)
        ]
        if (more := len(self.unreadable_reasons) - _MAX_REASONS) > 0:
            listed.append(f"and {more} other reasons")
        return ", ".join(listed)

    def _list_todos(self, unreadable_count: int) -> str:
        """What can be done about each reason, and the share that would leave the rows out."""
        mend = "mend the rows, map their names with `columns`"
        reasons = [why for why, _ in self.unreadable_reasons.most_common(_MAX_REASONS)]
        todos = [f"{why}: {self.todos[why]}" for why in reasons if self.todos[why]]
        if not todos:
            return f"{mend}, or raise `unreadable`"
        if len(todos) < len(reasons):
            todos.append(mend)
        if unreadable_count < self.item_count:
            share = math.ceil(100 * unreadable_count / self.item_count) / 100
            todos.append(f"or leave the rows out with `unreadable: {share:g}`")
        return "; ".join(todos)


_MAX_REASONS = 12
"""Reasons that an error lists."""
