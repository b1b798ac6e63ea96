"""The draw of one source: its records in an order that (seed, source, row) alone decide.

What stands beside a source in a mixture changes nothing of its draw, and a larger cap takes all
that a smaller one takes. Rows are read in that order and no further than needed: one that is
refused is replaced by the next.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zephyr.data.contamination import Exams, Match
from zephyr.data.sources import Found, Opened, Tally
from zephyr.records import Record

_BLOCK = 16_384
"""Rows read at once where there is no cap."""


class Entry(NamedTuple):
    """A record with the number of its row from 1: `17`, or `17.2` for its second further part."""

    row: str
    record: Record


@dataclass
class Taken:
    """What was taken of a source, and the account of the rest. Repeated and contaminated records
    are among the taken ones where they are only reported.
    """

    tally: Tally
    entries: list[Entry] = field(default_factory=list)
    duplicates: int = 0
    contaminated: list[tuple[Entry, Match]] = field(default_factory=list)
    capped: int = 0


def take(opened: Opened, cap: int | None, *, seed: int, exams: Exams, remove: bool) -> Taken:
    """The first `cap` records of a source by rank, without repeated and contaminated ones.

    Where `remove` is false these are taken too, and only counted.
    """
    taken = Taken(Tally(opened.label))
    seen: set[str] = set()
    for block in _blocks(opened, cap, seed, taken):
        records = [found.record for found in block if found.record is not None]
        matches = iter(exams.find(records))
        for found in block:
            match = next(matches) if found.record is not None else None
            if cap is not None and len(taken.entries) >= cap:
                taken.capped += 1
                continue
            taken.tally.count(found)
            if found.record is None:
                continue
            entry = Entry(_row(found), found.record)
            twice = found.record.id in seen
            seen.add(found.record.id)
            taken.duplicates += twice
            if match is not None and not (twice and remove):
                taken.contaminated.append((entry, match))
            if not (remove and (twice or match is not None)):
                taken.entries.append(entry)
    return taken


def _row(found: Found) -> str:
    return f"{found.row + 1}.{found.part}" if found.part else str(found.row + 1)


def _blocks(opened: Opened, cap: int | None, seed: int, taken: Taken) -> Iterator[list[Found]]:
    """What is found in the rows of a source, by rank; ends where the cap is reached.

    The rows that were not read then are counted as capped.
    """
    rows = len(opened.rows)
    ranks = row_ranks(seed, opened.label, rows)
    if opened.form is not None and opened.form.many:
        every = list(opened.read(range(rows)))
        order = np.argsort(part_ranks(ranks, every), kind="stable")
        yield [every[i] for i in order]
        return
    order = np.argsort(ranks, kind="stable")
    at = 0
    size = _BLOCK if cap is None else cap + cap // 20 + 64
    while at < rows and (cap is None or len(taken.entries) < cap):
        yield list(opened.read(order[at : at + size]))
        at += size
        size = _BLOCK
    taken.capped += max(rows - at, 0)


_STEP = np.uint64(0x9E3779B97F4A7C15)


def row_ranks(seed: int, label: str, rows: int) -> NDArray[np.uint64]:
    """A number [rows] for each row of a source, by which its rows are ordered.

    SplitMix64 (Steele, Lea and Flood, 2014), started by the seed and the name of the source.
    """
    start = hashlib.blake2b(f"{seed}\x1f{label}".encode(), digest_size=8).digest()
    return _mixed(
        np.uint64(int.from_bytes(start)) + _STEP * np.arange(1, rows + 1, dtype=np.uint64)
    )


def part_ranks(ranks: NDArray[np.uint64], found: list[Found]) -> NDArray[np.uint64]:
    """A number for each part of the rows; that of a row's first part is the row's own."""
    rows = np.array([f.row for f in found], dtype=np.int64)
    parts = np.array([f.part for f in found], dtype=np.uint64)
    own = ranks[rows]
    return np.where(parts == 0, own, _mixed(own + _STEP * parts))


def _mixed(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = codes ^ (codes >> np.uint64(31))
    return mixed
