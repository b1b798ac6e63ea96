"""Texts as runs of words, hashed: what contamination and near-duplicates are looked for in."""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_ALONE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Chinese, Japanese and Korean, which part words by no blank: each sign counts as one."""

WORDS = re.compile(rf"\d+|[{_ALONE}]|[^\W\d_{_ALONE}]+|[-+*/=<>^−×÷·≤≥≠√∑∫±]")
"""Words, numbers and operators: how a text is set makes no difference."""

SIGNS = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+|[^\w\s]")
"""Words, and each other sign by itself."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


class _Words(dict[str, int]):
    """Words to hashes that are the same in every process."""

    def __missing__(self, word: str) -> int:
        code = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
        self[word] = code
        return code


_words = _Words()


class Runs(NamedTuple):
    """Hashes of runs of words [runs], and where those of each text begin [texts + 1]."""

    hashes: Hashes
    bounds: Places


def words(texts: Iterable[str], pattern: re.Pattern[str] = WORDS) -> Runs:
    """The hash of each word of each text, whatever its case."""
    codes: list[NDArray[np.uint64]] = []
    lengths = [0]
    code = _words.__getitem__
    for text in texts:
        found = pattern.findall(text.lower())
        codes.append(np.fromiter(map(code, found), np.uint64, len(found)))
        lengths.append(len(found))
    whole = np.concatenate(codes) if codes else np.empty(0, np.uint64)
    return Runs(whole, np.cumsum(lengths))


def runs(texts: Runs, n: int) -> Runs:
    """The hash of each run of `n` words within a text; a text of fewer words has none."""
    codes, bounds = texts
    lengths = np.maximum(np.diff(bounds) - n + 1, 0)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    first = np.repeat(bounds[:-1] - starts[:-1], lengths) + np.arange(starts[-1])
    hashed = np.zeros(len(first), np.uint64)
    for offset in range(n):
        hashed = _mixed(hashed + codes[first + offset])
    return Runs(hashed, starts)


def _mixed(codes: Hashes) -> Hashes:
    codes = (codes + _FACTOR) * _MIX
    mixed: Hashes = codes ^ (codes >> np.uint64(29))
    return mixed


def owners(bounds: Places) -> Places:
    """For each run, the text that it stands in."""
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


def whole(texts: Runs) -> Hashes:
    """One hash for each text, of all its words in order; equal texts have equal hashes."""
    return np.array(
        [
            _text(texts.hashes[a:b])
            for a, b in zip(texts.bounds[:-1], texts.bounds[1:], strict=True)
        ],
        dtype=np.uint64,
    )


def _text(codes: Hashes) -> int:
    return int.from_bytes(blake2b(codes.tobytes(), digest_size=8).digest())
