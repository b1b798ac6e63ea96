"""Synthetic corpus of the published sizes of D_S's sources, for benchmarks of data and of start-up.

Words have the frequencies of a language; with ZEPHYR_REAL_DATA sentences may be Open-Platypus's.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.shared.datasets import read_rows
from zephyr.data.table import SOURCES
from zephyr.records import Chat, Message

CHARACTERS = {
    "khan_academy": 4500,
    "math_college": 3000,
    "arxiv_math": 1200,
    "magicoder": 2200,
    "goat": 120,
    "metamathqa": 900,
    "code_assistant": 1900,
    "lima": 2500,
    "open_platypus": 1400,
    "math_instruct": 600,
}
"""D_S, and about how long a row of each source is."""
CAP = 12_000


class SentencePool:
    """Sentences that texts of a wanted length are drawn from."""

    def __init__(self, seed: int, sentences: list[str] | None = None) -> None:
        self.random = np.random.default_rng(seed)
        self.sentences = sentences or self._make_sentences(60_000)
        self.mean = float(np.mean([len(s) + 1 for s in self.sentences]))

    def _make_sentences(self, count: int) -> list[str]:
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        words = [
            "".join(self.random.choice(letters, n)) for n in self.random.integers(2, 11, 40_000)
        ]
        ranks = np.minimum(self.random.zipf(1.15, count * 16) - 1, len(words) - 1)
        numbers = self.random.integers(0, 10_000, count * 2)
        return [
            " ".join(words[w] for w in ranks[i * 16 : i * 16 + self.random.integers(6, 16)])
            + f" {numbers[2 * i]} {numbers[2 * i + 1]}."
            for i in range(count)
        ]

    def text(self, characters: float) -> str:
        count = max(1, self.random.poisson(characters / self.mean))
        drawn = self.random.integers(0, len(self.sentences), count)
        return " ".join(self.sentences[i] for i in drawn)

    def question_and_answer(self, characters: float) -> tuple[str, str]:
        """Two texts that together have so many characters, three tenths of them the question."""
        return self.text(characters * 0.3), self.text(characters * 0.7)


def platypus_sentences() -> list[str]:
    texts = (row["output"] for row in read_rows("sft/open_platypus"))
    return [f"{s}." for text in texts for s in text.split(". ") if 20 < len(s) < 300]


def source_sizes() -> dict[str, int]:
    """Published rows of each source."""
    sizes: dict[str, Any] = {name: SOURCES[name].splits["train"] for name in CHARACTERS}
    return sizes


def chats(pool: SentencePool) -> Iterator[Chat]:
    """As many chats of each source as D_S has."""
    for name, rows in source_sizes().items():
        for _ in range(min(rows, CAP)):
            question, answer = pool.question_and_answer(CHARACTERS[name])
            yield Chat(name, (Message("user", question), Message("assistant", answer)))
