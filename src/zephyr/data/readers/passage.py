"""Readers of plain text."""

from collections.abc import Iterator

from zephyr.data.readers.values import Columns, text
from zephyr.records import Passage, Record


def passage(row: Columns, source: str) -> Iterator[Record]:
    yield Passage(source, text(row, "text"))


def line(row: Columns, source: str) -> Iterator[Record]:
    """WikiText's lines; blank ones belong to the text, whose protocols join all of them."""
    yield Passage(source, text(row, "text", empty=True))
