"""Near-duplicates among records: nearly the same question with nearly the same answers.

Two records are near-duplicates where each of their parts (the question, and each answer) shares at
least four fifths of its runs of five words and signs with that of the other (Jaccard). MinHash
finds who may be alike, in bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3); who is alike is then decided by exact counts.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zephyr.data.words import SIGNS, Hashes, runs, whole, words
from zephyr.records import Chat, Choice, Pair, Passage, Record

ALIKE = 0.8
SHINGLE = 5
"""Words in a run."""

BANDS, BAND = 20, 6
"""Two records as alike as `ALIKE` meet in one of the bands with a probability of 0.998."""

_BLOCK = 8192


def near_duplicates(records: Sequence[Record]) -> list[int | None]:
    """For each record the first one that it nearly repeats, by its place; None where there is none.

    Only records that repeat no other are compared with: what is like a removed one, but not like
    any that stays, stays.
    """
    shingles = _Shingles()
    bands = np.concatenate([shingles.add(records[i : i + _BLOCK]) for i in _starts(records)])
    repeated: list[int | None] = [None] * len(records)
    meeting: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in np.flatnonzero(_met(bands).any(axis=1)).tolist():
        keys = list(enumerate(bands[place].tolist()))
        for earlier in sorted({other for key in keys for other in meeting[key]}):
            if shingles.alike(earlier, place):
                repeated[place] = earlier
                break
        else:
            for key in keys:
                meeting[key].append(place)
    return repeated


def _starts(records: Sequence[Record]) -> range:
    return range(0, max(len(records), 1), _BLOCK)


def _met(bands: Hashes) -> NDArray[np.bool_]:
    """Whether a band of a record [records, bands] is shared with another record."""
    met = np.empty(bands.shape, np.bool_)
    for band in range(bands.shape[1]):
        _, group, size = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        met[:, band] = size[group] > 1
    return met


class _Shingles:
    """The runs of words of records, part by part."""

    def __init__(self) -> None:
        self._parts: list[list[Hashes]] = []

    def add(self, records: Sequence[Record]) -> Hashes:
        """Keeps the runs of some records; gives their bands [records, BANDS]."""
        parts = [_parts(record) for record in records]
        texts = words((text for part in parts for text in part), SIGNS)
        found = runs(texts, SHINGLE)
        lengths = np.diff(texts.bounds)
        short = whole(texts)
        cut = [np.unique(h) for h in np.split(found.hashes, found.bounds[1:-1])]
        cut = [
            runs_of if length >= SHINGLE else short[i : i + 1]
            for i, (runs_of, length) in enumerate(zip(cut, lengths, strict=False))
        ]
        at = 0
        for part in parts:
            self._parts.append(cut[at : at + len(part)])
            at += len(part)
        return _bands(self._parts[len(self._parts) - len(records) :])

    def alike(self, one: int, other: int) -> bool:
        """Whether two records are near-duplicates, by exact counts."""
        both = self._parts[one], self._parts[other]
        if len(both[0]) != len(both[1]):
            return False
        return all(_jaccard(a, b) >= ALIKE for a, b in zip(*both, strict=True))


def _jaccard(one: Hashes, other: Hashes) -> float:
    if min(len(one), len(other)) < ALIKE * max(len(one), len(other)):
        return 0.0
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _bands(parts: Sequence[Sequence[Hashes]]) -> Hashes:
    from rensa import RMinHash

    if not parts:
        return np.empty((0, BANDS), np.uint64)
    sets = [np.unique(np.concatenate(part)) for part in parts]
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(sets), offsets, BANDS * BAND, 1
    )
    rows = np.array(digests.to_rows(), dtype=np.uint64).reshape(len(parts), BANDS, BAND)
    bands = np.zeros((len(parts), BANDS), np.uint64)
    for column in range(BAND):
        bands = (bands ^ rows[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
        bands ^= bands >> np.uint64(31)
    return bands


def _parts(record: Record) -> tuple[str, ...]:
    """The question and the answers of a record."""
    match record:
        case Chat():
            said = [m.content for m in record.messages if m.role != "assistant"]
            answers = [m.content for m in record.messages if m.role == "assistant"]
            return "\n".join(said), "\n".join(answers)
        case Pair():
            return "\n".join(m.content for m in record.prompt), record.chosen, record.rejected
        case Choice():
            return record.text, "\n".join(record.choices)
        case Passage():
            return (record.text,)
    raise AssertionError(record)
