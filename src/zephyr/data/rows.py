"""Rows by number: a source may be larger than memory, and a draw reads no more than it takes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[int] | NDArray[np.int64]


class Row(NamedTuple):
    """One row with the place where it stands; `value` is None where it can't be read, and why."""

    place: str
    value: dict[str, Any] | None
    problem: str = ""


class Header(NamedTuple):
    """The names of the columns of the first row that can be read, and its place."""

    place: str
    columns: frozenset[str]


class Rows(ABC):
    """The rows of a source, numbered from 0."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, numbers: Numbers, columns: Collection[str] | None = None) -> list[Row]:
        """The rows of these numbers, in this order; of tables that allow it, only some columns."""

    def header(self) -> Header | None:
        """What the first readable row tells; None where there is none."""
        for number in range(len(self)):
            [row] = self.take([number])
            if row.value is not None:
                return Header(row.place, frozenset(row.value))
        return None

    def __iter__(self) -> Iterator[Row]:
        block = 4096
        for start in range(0, len(self), block):
            yield from self.take(range(start, min(start + block, len(self))))


class Listed(Rows):
    """Rows that are in memory already."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: Numbers, columns: Collection[str] | None = None) -> list[Row]:
        return [self._rows[number] for number in numbers]


class Joined(Rows):
    """The rows of several files, one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, numbers: Numbers, columns: Collection[str] | None = None) -> list[Row]:
        wanted = np.asarray(numbers, dtype=np.int64)
        part_of = np.searchsorted(self._starts, wanted, side="right") - 1
        taken: dict[int, Row] = {}
        for part in np.unique(part_of):
            places = np.flatnonzero(part_of == part)
            rows = self._parts[part].take(wanted[places] - self._starts[part], columns)
            taken |= zip(places.tolist(), rows, strict=True)
        return [taken[place] for place in range(len(wanted))]

    def header(self) -> Header | None:
        return next((h for part in self._parts if (h := part.header()) is not None), None)


class Renamed(Rows):
    """Rows whose columns bear the names that readers know (`names`: reader's name to file's)."""

    def __init__(self, rows: Rows, names: Mapping[str, str]) -> None:
        self._rows = rows
        self._names = names
        self._known = {theirs: ours for ours, theirs in names.items()}
        self._hidden = names.keys() - self._known.keys()
        """Columns of the file that bear a name which is given to another."""

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: Numbers, columns: Collection[str] | None = None) -> list[Row]:
        theirs = None if columns is None else [self._names.get(name, name) for name in columns]
        return [
            row if row.value is None else row._replace(value=self._renamed(row.value))
            for row in self._rows.take(numbers, theirs)
        ]

    def _renamed(self, value: dict[str, Any]) -> dict[str, Any]:
        return {
            self._known.get(name, name): cell
            for name, cell in value.items()
            if name not in self._hidden
        }

    def header(self) -> Header | None:
        header = self._rows.header()
        if header is None:
            return None
        there = header.columns - self._hidden
        return Header(header.place, frozenset(self._known.get(name, name) for name in there))
