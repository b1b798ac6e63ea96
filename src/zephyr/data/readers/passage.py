"""Row readers of plain text passages (pretraining, perplexity)."""

from collections.abc import Iterator

from zephyr.data.readers.parsing import RowValues, read_text
from zephyr.records import Passage, Record


def read_passage(row: RowValues, source: str) -> Iterator[Record]:
    """Reads a passage of text."""
    yield Passage(source, read_text(row, "text"))


def read_wikitext_line(row: RowValues, source: str) -> Iterator[Record]:
    """Reads a line of WikiText, also a blank one: perplexity is computed over all of them."""
    yield Passage(source, read_text(row, "text", allow_empty=True))
