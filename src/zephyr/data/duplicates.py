"""Near-duplicates among records: nearly the same question with nearly the same answers.

Two records are near-duplicates where each of their parts (the question, and each answer) shares at
least four fifths of its runs of five words and signs with that of the other (Jaccard), and all of
their numbers are the same. Where all answers are shorter than a run, and so tell little, no more
than one word of the question may differ.

MinHash finds who may be alike, in bands (Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, chapter 3) of which each part has its share, so that records must be alike in all parts to
meet; who is alike is then decided by exact counts.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zephyr.data.words import SIGNS, Hashes, runs, whole, words
from zephyr.records import Chat, Choice, Pair, Passage, Record

ALIKE = 0.8
SHINGLE = 5
"""Words in a run."""

BANDS, BAND = 20, 6
"""Two records as alike as `ALIKE` in every part meet in a band with a probability of 0.998."""

_BLOCK = 8192
_AT_ONCE = 64
_NUMBER = re.compile(r"\d+")


def near_duplicates(records: Sequence[Record], *, remove: bool) -> list[list[int]]:
    """For each record the earlier ones that it nearly repeats, by their places.

    Where `remove` is true, those that repeat another are taken to be gone: only with what stays is
    compared, and one that is found is enough. Else all are found that are needed to join what
    belongs together.
    """
    shingles = _Shingles(records)
    repeated: list[list[int]] = [[] for _ in records]
    meeting: dict[tuple[int, int], list[int]] = defaultdict(list)
    leader = list(range(len(records)))
    for place in np.flatnonzero(_met(shingles.bands).any(axis=1)).tolist():
        keys = list(enumerate(shingles.bands[place].tolist()))
        for earlier in sorted({other for key in keys for other in meeting[key]}):
            if remove and repeated[place]:
                break
            one, other = _first(leader, earlier), _first(leader, place)
            if one != other and shingles.alike(earlier, place):
                repeated[place].append(earlier)
                leader[max(one, other)] = min(one, other)
        if not (remove and repeated[place]):
            for key in keys:
                meeting[key].append(place)
    return repeated


def _first(leader: list[int], place: int) -> int:
    """The first of those that belong together with a record; shortens the way to it."""
    while leader[place] != place:
        leader[place] = leader[leader[place]]
        place = leader[place]
    return place


def _met(bands: Hashes) -> NDArray[np.bool_]:
    """Whether a band of a record [records, BANDS] is shared with another record."""
    met = np.empty(bands.shape, np.bool_)
    for band in range(bands.shape[1]):
        _, group, size = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        met[:, band] = size[group] > 1
    return met


class _Shingles:
    """The runs of words of records, part by part, and their bands [records, BANDS]."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._parts: list[list[Hashes]] = []
        self._short: list[bool] = []
        blocks = [self._add(records[i : i + _BLOCK]) for i in range(0, len(records), _BLOCK)]
        self.bands = np.concatenate(blocks) if blocks else np.empty((0, BANDS), np.uint64)

    def _add(self, records: Sequence[Record]) -> Hashes:
        parts = [_parts(record) for record in records]
        texts = words((text for part in parts for text in part), SIGNS)
        found = runs(texts, SHINGLE)
        long = np.diff(texts.bounds) >= SHINGLE
        entire = whole(texts)
        cut = [np.unique(h) for h in np.split(found.hashes, found.bounds[1:-1])]
        sets = [own if long[i] else entire[i : i + 1] for i, own in enumerate(cut)]
        first = np.cumsum([0, *map(len, parts)])
        for start, end in pairwise(first.tolist()):
            self._parts.append(sets[start:end])
            self._short.append(end - start > 1 and not long[start + 1 : end].any())
        return _bands(sets, first)

    def alike(self, one: int, other: int) -> bool:
        """Whether two records are near-duplicates, by exact counts."""
        both = self._parts[one], self._parts[other]
        if len(both[0]) != len(both[1]):
            return False
        common = [len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(*both, strict=True)]
        every = [len(a) + len(b) for a, b in zip(*both, strict=True)]
        if any(c < ALIKE * (e - c) for c, e in zip(common, every, strict=True)):
            return False
        if (self._short[one] or self._short[other]) and every[0] - 2 * common[0] > 2 * SHINGLE:
            return False
        numbers = (_NUMBER.findall("\n".join(_parts(self._records[i]))) for i in (one, other))
        return next(numbers) == next(numbers)


def _bands(sets: Sequence[Hashes], first: NDArray[np.int64]) -> Hashes:
    """The bands [records, BANDS] of records whose parts begin at `first` [records + 1]."""
    counts = np.diff(first)
    bands = np.zeros((len(counts), BANDS), np.uint64)
    for count in np.unique(counts):
        share = BAND // int(count)
        chosen = np.flatnonzero(counts == count)
        own = [sets[first[record] + part] for record in chosen for part in range(count)]
        rows = _digests(own, BANDS * share).reshape(-1, count, BANDS, share)
        mixed = np.full((len(chosen), BANDS), count, np.uint64)
        for part in range(count):
            for column in range(share):
                mixed = (mixed ^ rows[:, part, :, column]) * np.uint64(0x9E3779B97F4A7C15)
                mixed ^= mixed >> np.uint64(31)
        bands[chosen] = mixed
    return bands


def _digests(sets: Sequence[Hashes], size: int) -> Hashes:
    """MinHash digests [sets, size].

    A few sets at a time: many at once are shared out among threads, which is no quicker here, and
    leaves a process that can't be forked any more.
    """
    from rensa import RMinHash

    rows: list[list[int]] = []
    for start in range(0, len(sets), _AT_ONCE):
        some = sets[start : start + _AT_ONCE]
        offsets = np.cumsum([0, *map(len, some)]).astype(np.uint64)
        flat = np.concatenate(some)
        rows += RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, size, 1).to_rows()
    return np.array(rows, dtype=np.uint64)


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
