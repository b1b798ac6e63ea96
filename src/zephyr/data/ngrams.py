"""Word n-gram hashes of texts, for decontamination and deduplication (shingles)."""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Chinese, Japanese and Korean have no spaces between words: each character is a token."""

WORD_PATTERN = re.compile(rf"\d+|[{_CJK}]|[^\W\d_{_CJK}]+|[-+*/=<>^−×÷·≤≥≠√∑∫±]")
"""Tokens: words, numbers and operators; spacing and punctuation are ignored."""

WORD_OR_SIGN_PATTERN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")
"""Tokens: words, and every other character by itself."""

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)


class _WordHashes(dict[str, int]):
    """Cache of word hashes, which are equal in every process (unlike `hash`)."""

    def __missing__(self, word: str) -> int:
        code = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
        self[word] = code
        return code


_WORD_HASHES = _WordHashes()


class HashedTexts(NamedTuple):
    """Hashes of words or n-grams [hashes], and the offset of each text's first [texts + 1]."""

    hashes: Hashes
    offsets: Indices


def hash_words(texts: Iterable[str], pattern: re.Pattern[str] = WORD_PATTERN) -> HashedTexts:
    """Hashes each word of each text, whatever its case."""
    hashes_by_text: list[NDArray[np.uint64]] = []
    lengths = [0]
    code = _WORD_HASHES.__getitem__
    for text in texts:
        tokens = pattern.findall(text.lower())
        hashes_by_text.append(np.fromiter(map(code, tokens), np.uint64, len(tokens)))
        lengths.append(len(tokens))
    hashes = np.concatenate(hashes_by_text) if hashes_by_text else np.empty(0, np.uint64)
    return HashedTexts(hashes, np.cumsum(lengths))


def hash_ngrams(texts: HashedTexts, n: int) -> HashedTexts:
    """Hashes each word n-gram of each text; a text of fewer than `n` words has none."""
    codes, offsets = texts
    lengths = np.maximum(np.diff(offsets) - n + 1, 0)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    first = np.repeat(offsets[:-1] - starts[:-1], lengths) + np.arange(starts[-1])
    ngram_hashes = np.zeros(len(first), np.uint64)
    for offset in range(n):
        ngram_hashes = _mix_hash(ngram_hashes + codes[first + offset])
    return HashedTexts(ngram_hashes, starts)


def _mix_hash(codes: Hashes) -> Hashes:
    codes = (codes + _GOLDEN_GAMMA) * _MIX_MULTIPLIER
    mixed: Hashes = codes ^ (codes >> np.uint64(29))
    return mixed


def text_indices(offsets: Indices) -> Indices:
    """The index of the text that each hash belongs to [hashes]."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def hash_texts(texts: HashedTexts) -> Hashes:
    """Hashes each text as a whole, all its words in order; equal texts have equal hashes."""
    return np.array(
        [
            _hash_sequence(texts.hashes[a:b])
            for a, b in zip(texts.offsets[:-1], texts.offsets[1:], strict=True)
        ],
        dtype=np.uint64,
    )


def _hash_sequence(codes: Hashes) -> int:
    return int.from_bytes(blake2b(codes.tobytes(), digest_size=8).digest())
