"""Which two models are compared next: those that were shown together least, sides by chance."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from random import Random, SystemRandom


class Pairs:
    """All pairs of models, and how often each was shown; `shown` are those of earlier days."""

    def __init__(
        self,
        models: Sequence[str],
        shown: Iterable[Iterable[str]] = (),
        random: Random | None = None,
    ) -> None:
        assert len(models) > 1, "two are compared"
        self._pairs = list(combinations(models, 2))
        self._shown = Counter(frozenset(pair) for pair in shown)
        self._random = random or SystemRandom()

    def draw(self) -> tuple[str, str]:
        """The models of sides A and B."""
        counts = [self._shown[frozenset(pair)] for pair in self._pairs]
        fewest = [p for p, n in zip(self._pairs, counts, strict=True) if n == min(counts)]
        one, other = self._random.choice(fewest)
        self._shown[frozenset((one, other))] += 1
        return (one, other) if self._random.random() < 0.5 else (other, one)
