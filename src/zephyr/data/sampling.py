"""Samples one source: records in a shuffled order that depends only on (seed, source, row).

The other sources of a mixture do not change its sample, and a larger cap samples a superset of a
smaller one. Rows are read in that order and only as far as needed: a rejected one is replaced by
the next.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zephyr.data.contamination import ContaminationMatch, EvalQuestionIndex
from zephyr.data.read_stats import ReadStats, RowItem
from zephyr.data.sources import OpenedSource
from zephyr.records import Record

_ROWS_PER_BLOCK = 16_384
"""Rows read at once where there is no cap."""


class SampledRecord(NamedTuple):
    """A sampled record and its row number from 1: `17`, or `17.2` for the third record of a row."""

    row_id: str
    record: Record
    location: str


class ExcludedRow(NamedTuple):
    """A row, or a record of it, that is not in the mixture: its place, the outcome and the reason.

    The outcomes are the columns of the manifest: `unreadable`, `left_out`, `duplicates`,
    `contaminated` and `near_duplicates`.
    """

    source: str
    row: str
    location: str
    outcome: str
    reason: str


@dataclass
class SourceSample:
    """The sampled records of a source, the counts of those left out, and `excluded_rows`.

    Duplicate and contaminated records are in the sample too if they are only reported.
    """

    read_stats: ReadStats
    records: list[SampledRecord] = field(default_factory=list)
    duplicate_count: int = 0
    contamination_matches: list[tuple[SampledRecord, ContaminationMatch]] = field(
        default_factory=list
    )
    capped_count: int = 0
    excluded_rows: list[ExcludedRow] = field(default_factory=list)

    def exclude(self, item: RowItem, outcome: str, reason: str) -> None:
        """Lists an item of a row among the excluded ones."""
        row = ExcludedRow(self.read_stats.label, row_id(item), item.location, outcome, reason)
        self.excluded_rows.append(row)


def sample_source(
    source: OpenedSource,
    cap: int | None,
    *,
    seed: int,
    question_index: EvalQuestionIndex,
    remove: bool,
) -> SourceSample:
    """Samples `cap` records of a source in shuffled order, deduplicated and decontaminated.

    Without `remove`, duplicate and contaminated records are kept, and only counted.
    """
    sample = SourceSample(ReadStats(source.label))
    first_row_by_id: dict[str, str] = {}
    for block in _read_blocks(source, cap, seed, sample):
        records = [item.record for item in block if item.record is not None]
        matches = iter(question_index.find_matches(records))
        for found in block:
            match = next(matches) if found.record is not None else None
            if cap is not None and len(sample.records) >= cap:
                sample.capped_count += 1
                continue
            sample.read_stats.count(found)
            if found.record is None:
                outcome = "unreadable" if found.unreadable_reason else "left_out"
                sample.exclude(found, outcome, found.unreadable_reason or found.skip_reason)
                continue
            sampled_record = SampledRecord(row_id(found), found.record, found.location)
            first_row = first_row_by_id.setdefault(found.record.id, sampled_record.row_id)
            is_duplicate = first_row != sampled_record.row_id
            sample.duplicate_count += is_duplicate
            if match is not None and not (is_duplicate and remove):
                sample.contamination_matches.append((sampled_record, match))
            if not remove or not (is_duplicate or match is not None):
                sample.records.append(sampled_record)
            elif is_duplicate:
                sample.exclude(found, "duplicates", f"it repeats row {first_row}")
            elif match is not None:
                sample.exclude(found, "contaminated", f"it holds a question of {match.task}")
    return sample


def row_id(item: RowItem) -> str:
    """The row number of an item from 1, with the number of its part where it is not the first."""
    return f"{item.row + 1}.{item.part}" if item.part else str(item.row + 1)


def _read_blocks(
    source: OpenedSource, cap: int | None, seed: int, sample: SourceSample
) -> Iterator[list[RowItem]]:
    """Reads the rows of a source in shuffled order, block by block, until the cap is reached.

    The rows that were not read are counted as capped.
    """
    rows = len(source.rows)
    sort_keys = row_sort_keys(seed, source.label, rows)
    if source.column_format is not None and source.column_format.has_many_records:
        items = list(source.read(range(rows)))
        order = np.argsort(part_sort_keys(sort_keys, items), kind="stable")
        yield [items[i] for i in order]
        return
    order = np.argsort(sort_keys, kind="stable")
    at = 0
    size = _ROWS_PER_BLOCK if cap is None else cap + cap // 20 + 64
    while at < rows and (cap is None or len(sample.records) < cap):
        yield list(source.read(order[at : at + size]))
        at += size
        size = _ROWS_PER_BLOCK
    sample.capped_count += max(rows - at, 0)


_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def row_sort_keys(seed: int, label: str, rows: int) -> NDArray[np.uint64]:
    """Pseudo-random sort keys [rows] that shuffle the rows of a source.

    SplitMix64 (Steele, Lea and Flood, 2014), seeded with the seed and the label of the source.
    """
    start = hashlib.blake2b(f"{seed}\x1f{label}".encode(), digest_size=8).digest()
    return _splitmix64(
        np.uint64(int.from_bytes(start)) + _GOLDEN_GAMMA * np.arange(1, rows + 1, dtype=np.uint64)
    )


def part_sort_keys(row_keys: NDArray[np.uint64], items: list[RowItem]) -> NDArray[np.uint64]:
    """Sort keys [parts] of all records of the rows; the first of a row has the row's own."""
    rows = np.array([f.row for f in items], dtype=np.int64)
    parts = np.array([f.part for f in items], dtype=np.uint64)
    own_keys = row_keys[rows]
    return np.where(parts == 0, own_keys, _splitmix64(own_keys + _GOLDEN_GAMMA * parts))


def _splitmix64(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = codes ^ (codes >> np.uint64(31))
    return mixed
