"""Deduplication: near-duplicate detection (MinHash LSH) over word shingles of each record.

Two records are near-duplicates where each of their parts (the question, and each answer) shares at
least four fifths of its shingles (five words or signs) with that of the other (Jaccard similarity),
and all of their numbers are the same. Where all answers are shorter than a shingle, no more
than one word of the question may differ.

MinHash LSH finds candidate pairs by bands of signature rows (Leskovec, Rajaraman and Ullman, Mining
of Massive Datasets, chapter 3). Each part of a record has its share of a band's rows, so that a
candidate is similar in all parts; the exact Jaccard similarity then decides.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zephyr.data.ngrams import WORD_OR_SIGN_PATTERN, Hashes, hash_ngrams, hash_texts, hash_words
from zephyr.records import Chat, Choice, Pair, Passage, Record

JACCARD_THRESHOLD = 0.8
SHINGLE_WORDS = 5
"""Words of a shingle (a word n-gram)."""

LSH_BANDS, LSH_ROWS_PER_BAND = 20, 6
"""LSH: records at `JACCARD_THRESHOLD` in every part share a band with a probability of 0.998."""

_RECORDS_PER_BLOCK = 8192
_MINHASH_BATCH = 64
_NUMBER = re.compile(r"\d+")


def find_near_duplicates(records: Sequence[Record], *, remove: bool) -> list[list[int]]:
    """Finds near-duplicates: for each record the indices of the earlier ones that it repeats.

    With `remove`, duplicates count as removed: records are compared with kept ones only, and one
    match is enough. Otherwise all pairs are found that are needed to cluster the duplicates.
    """
    shingles = _ShingleSets(records)
    duplicates_of: list[list[int]] = [[] for _ in records]
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    parents = list(range(len(records)))
    for index in np.flatnonzero(_in_shared_band(shingles.bands).any(axis=1)).tolist():
        keys = list(enumerate(shingles.bands[index].tolist()))
        for earlier in sorted({root for key in keys for root in buckets[key]}):
            if remove and duplicates_of[index]:
                break
            earlier_root, other = _find_root(parents, earlier), _find_root(parents, index)
            if earlier_root != other and shingles.are_near_duplicates(earlier, index):
                duplicates_of[index].append(earlier)
                parents[max(earlier_root, other)] = min(earlier_root, other)
        if not (remove and duplicates_of[index]):
            for key in keys:
                buckets[key].append(index)
    return duplicates_of


def _find_root(parents: list[int], index: int) -> int:
    """The root of a record's cluster (union-find with path compression)."""
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _in_shared_band(bands: Hashes) -> NDArray[np.bool_]:
    """Whether a band hash of a record [records, bands] is shared with another record."""
    is_shared = np.empty(bands.shape, np.bool_)
    for band in range(bands.shape[1]):
        _, group, size = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        is_shared[:, band] = size[group] > 1
    return is_shared


class _ShingleSets:
    """The shingle hashes of records, part by part, and their LSH bands [records, bands]."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._sets_by_record: list[list[Hashes]] = []
        self._has_short_answers: list[bool] = []
        blocks = [
            self._add_block(records[i : i + _RECORDS_PER_BLOCK])
            for i in range(0, len(records), _RECORDS_PER_BLOCK)
        ]
        self.bands = np.concatenate(blocks) if blocks else np.empty((0, LSH_BANDS), np.uint64)

    def _add_block(self, records: Sequence[Record]) -> Hashes:
        parts = [_question_and_answers(record) for record in records]
        texts = hash_words((text for part in parts for text in part), WORD_OR_SIGN_PATTERN)
        shingles = hash_ngrams(texts, SHINGLE_WORDS)
        is_long = np.diff(texts.offsets) >= SHINGLE_WORDS
        text_hashes = hash_texts(texts)
        shingles_by_text = [np.unique(h) for h in np.split(shingles.hashes, shingles.offsets[1:-1])]
        sets = [
            own if is_long[i] else text_hashes[i : i + 1] for i, own in enumerate(shingles_by_text)
        ]
        starts = np.cumsum([0, *map(len, parts)])
        for start, end in pairwise(starts.tolist()):
            self._sets_by_record.append(sets[start:end])
            self._has_short_answers.append(end - start > 1 and not is_long[start + 1 : end].any())
        return _lsh_bands(sets, starts)

    def are_near_duplicates(self, one: int, other: int) -> bool:
        """Whether two records are near-duplicates, by exact Jaccard similarity."""
        both = self._sets_by_record[one], self._sets_by_record[other]
        if len(both[0]) != len(both[1]):
            return False
        intersections = [
            len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(*both, strict=True)
        ]
        set_sizes = [len(a) + len(b) for a, b in zip(*both, strict=True)]
        if any(
            c < JACCARD_THRESHOLD * (e - c) for c, e in zip(intersections, set_sizes, strict=True)
        ):
            return False
        if (self._has_short_answers[one] or self._has_short_answers[other]) and set_sizes[
            0
        ] - 2 * intersections[0] > 2 * SHINGLE_WORDS:
            return False
        numbers = (
            _NUMBER.findall("\n".join(_question_and_answers(self._records[i])))
            for i in (one, other)
        )
        return next(numbers) == next(numbers)


def _lsh_bands(sets: Sequence[Hashes], starts: NDArray[np.int64]) -> Hashes:
    """LSH band hashes [records, bands] of records whose parts begin at `starts` [records + 1]."""
    counts = np.diff(starts)
    bands = np.zeros((len(counts), LSH_BANDS), np.uint64)
    for count in np.unique(counts):
        rows_per_part = LSH_ROWS_PER_BAND // int(count)
        indices = np.flatnonzero(counts == count)
        own_sets = [sets[starts[record] + part] for record in indices for part in range(count)]
        rows = _minhash_signatures(own_sets, LSH_BANDS * rows_per_part).reshape(
            -1, count, LSH_BANDS, rows_per_part
        )
        hashes = np.full((len(indices), LSH_BANDS), count, np.uint64)
        for part in range(count):
            for column in range(rows_per_part):
                hashes = (hashes ^ rows[:, part, :, column]) * np.uint64(0x9E3779B97F4A7C15)
                hashes ^= hashes >> np.uint64(31)
        bands[indices] = hashes
    return bands


def _minhash_signatures(sets: Sequence[Hashes], num_permutations: int) -> Hashes:
    """MinHash signatures [sets, permutations].

    In small batches: for large ones the library starts threads, which is no faster here, and after
    which the process can't fork safely.
    """
    from rensa import RMinHash

    rows: list[list[int]] = []
    for start in range(0, len(sets), _MINHASH_BATCH):
        batch = sets[start : start + _MINHASH_BATCH]
        offsets = np.cumsum([0, *map(len, batch)]).astype(np.uint64)
        flat = np.concatenate(batch)
        rows += RMinHash.digest_matrix_from_flat_token_hashes(
            flat, offsets, num_permutations, 1
        ).to_rows()
    return np.array(rows, dtype=np.uint64)


def _question_and_answers(record: Record) -> tuple[str, ...]:
    """The parts of a record: its question and its answers, as texts."""
    match record:
        case Chat():
            questions = [m.content for m in record.messages if m.role != "assistant"]
            answers = [m.content for m in record.messages if m.role == "assistant"]
            return "\n".join(questions), "\n".join(answers)
        case Pair():
            return "\n".join(m.content for m in record.prompt), record.chosen, record.rejected
        case Choice():
            return record.text, "\n".join(record.choices)
        case Passage():
            return (record.text,)
    raise AssertionError(record)
