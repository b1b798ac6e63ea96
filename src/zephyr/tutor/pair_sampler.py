"""Pair sampling for comparisons: picks the least shown pair of models, in random order."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from random import Random, SystemRandom


class PairSampler:
    """Samples pairs of models, balanced by how often each was shown; `past_pairs` count too."""

    def __init__(
        self,
        models: Sequence[str],
        past_pairs: Iterable[Iterable[str]] = (),
        random: Random | None = None,
    ) -> None:
        assert len(models) > 1, "two are compared"
        self._pairs = list(combinations(models, 2))
        self._show_counts = Counter(frozenset(pair) for pair in past_pairs)
        self._random = random or SystemRandom()

    def sample(self) -> tuple[str, str]:
        """Samples the models of sides A and B."""
        counts = [self._show_counts[frozenset(pair)] for pair in self._pairs]
        least_shown = [p for p, n in zip(self._pairs, counts, strict=True) if n == min(counts)]
        first, second = self._random.choice(least_shown)
        self._show_counts[frozenset((first, second))] += 1
        return (first, second) if self._random.random() < 0.5 else (second, first)
