"""Samples the two models of the next comparison: the pair shown least, in random order."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from random import Random, SystemRandom


class PairSampler:
    """Counts how often each pair of models was shown; `past_pairs` are those of earlier days."""

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
