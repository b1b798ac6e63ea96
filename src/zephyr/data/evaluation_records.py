"""Reads the records of an evaluation or a quiz: all of a source but a few unreadable rows."""

from typing import NamedTuple

from zephyr.data.read_stats import ReadStats
from zephyr.data.readers.choice import QuizReader
from zephyr.data.sources import OpenedSource, read_records
from zephyr.records import Record


class EvaluationRecords(NamedTuple):
    """The records of a source, the number of rows left out, and what the user should know."""

    records: list[Record]
    unreadable_count: int
    notes: list[str]


def reading_notes(source: OpenedSource) -> tuple[str, ...]:
    """How the keys of a quiz are read; nothing of other sources."""
    reader = source.column_format.reader if source.column_format is not None else None
    return reader.notes if isinstance(reader, QuizReader) else ()


def check_evaluation_share(stats: ReadStats, unreadable: float) -> None:
    """Checks that of the rows of an evaluation no more can't be read than may be left out.

    One row always may, unless the share is 0: a quiz of six questions is still one of five.

    Raises:
        ZephyrError: more rows can't be read, or all of them.
    """
    unreadable_count = sum(stats.unreadable_reasons.values())
    if not (unreadable and unreadable_count == 1 < stats.item_count):
        stats.check_unreadable_share(unreadable)


def read_evaluation_records(source: OpenedSource, unreadable: float) -> EvaluationRecords:
    """Reads all records of a source, of whose rows a share of `unreadable` may be left out.

    Raises:
        ZephyrError: more rows can't be read, or all of them.
    """
    records, stats = read_records(source)
    check_evaluation_share(stats, unreadable)
    unreadable_count = sum(stats.unreadable_reasons.values())
    notes = list(reading_notes(source))
    for reason, count in stats.unreadable_reasons.items():
        notes.append(
            f"{count} of {stats.item_count} rows of source {source.label!r} left out: {reason} "
            f"({'first ' if count > 1 else ''}at {stats.first_location[reason]})"
        )
    return EvaluationRecords(records, unreadable_count, notes)
