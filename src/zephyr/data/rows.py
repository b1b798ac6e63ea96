"""Lazy, random-access rows of a source (as in `datasets`), which may exceed memory."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RowNumbers = Sequence[int] | NDArray[np.int64]


class SourceRow(NamedTuple):
    """One row of a source and its location; if it can't be read, `problem` instead of `value`.

    With `has_text_cells`, as in CSV, its file knows no types, and a missing value is a word.
    """

    location: str
    value: dict[str, Any] | None
    problem: str = ""
    has_text_cells: bool = False


class Header(NamedTuple):
    """The column names of the first readable row, and its location."""

    location: str
    columns: frozenset[str]


class Rows(ABC):
    """The rows of a source by number from 0 (abstract, random access)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, numbers: RowNumbers, columns: Collection[str] | None = None) -> list[SourceRow]:
        """Takes rows by number, in this order; only some columns, if the file format allows it."""

    def header(self) -> Header | None:
        """The column names of the first readable row; None where there is none."""
        for number in range(len(self)):
            [row] = self.take([number])
            if row.value is not None:
                return Header(row.location, frozenset(row.value))
        return None

    def __iter__(self) -> Iterator[SourceRow]:
        block = 4096
        for start in range(0, len(self), block):
            yield from self.take(range(start, min(start + block, len(self))))


class InMemoryRows(Rows):
    """Rows held in memory (synthetic ones, and those of small files)."""

    def __init__(self, rows: Sequence[SourceRow]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: RowNumbers, columns: Collection[str] | None = None) -> list[SourceRow]:
        return [self._rows[number] for number in numbers]


class ConcatenatedRows(Rows):
    """The rows of several files (shards), concatenated."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, numbers: RowNumbers, columns: Collection[str] | None = None) -> list[SourceRow]:
        row_numbers = np.asarray(numbers, dtype=np.int64)
        part_of = np.searchsorted(self._starts, row_numbers, side="right") - 1
        row_by_position: dict[int, SourceRow] = {}
        for part in np.unique(part_of):
            positions = np.flatnonzero(part_of == part)
            rows = self._parts[part].take(row_numbers[positions] - self._starts[part], columns)
            row_by_position |= zip(positions.tolist(), rows, strict=True)
        return [row_by_position[place] for place in range(len(row_numbers))]

    def header(self) -> Header | None:
        return next((h for part in self._parts if (h := part.header()) is not None), None)


class RenamedColumns(Rows):
    """Rows with columns renamed to those that readers expect (`names`: reader's to file's)."""

    def __init__(self, rows: Rows, names: Mapping[str, str]) -> None:
        self._rows = rows
        self._names = names
        self._reader_names = {theirs: ours for ours, theirs in names.items()}
        self._shadowed_columns = names.keys() - self._reader_names.keys()
        """Columns of the file whose name another column is renamed to: they are dropped."""

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: RowNumbers, columns: Collection[str] | None = None) -> list[SourceRow]:
        file_columns = (
            None if columns is None else [self._names.get(name, name) for name in columns]
        )
        return [
            row if row.value is None else row._replace(value=self._rename_columns(row.value))
            for row in self._rows.take(numbers, file_columns)
        ]

    def _rename_columns(self, value: dict[str, Any]) -> dict[str, Any]:
        return {
            self._reader_names.get(name, name): cell
            for name, cell in value.items()
            if name not in self._shadowed_columns
        }

    def header(self) -> Header | None:
        header = self._rows.header()
        if header is None:
            return None
        visible_columns = header.columns - self._shadowed_columns
        return Header(
            header.location,
            frozenset(self._reader_names.get(name, name) for name in visible_columns),
        )
