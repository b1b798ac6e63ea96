"""Which models are compared: all pairs equally often, and each as often on either side."""

from collections import Counter
from random import Random

from zephyr.tutor.pair_sampler import PairSampler


def test_pairs_are_balanced_at_every_moment() -> None:
    pairs = PairSampler(["a", "b", "c", "d"], random=Random(1))
    shown: Counter[frozenset[str]] = Counter()
    for n in range(1, 61):
        shown[frozenset(pairs.sample())] += 1
        assert max(shown.values()) - (min(shown.values()) if len(shown) == 6 else 0) <= 1
        assert sum(shown.values()) == n
    assert set(shown.values()) == {10}


def test_what_was_shown_before_counts() -> None:
    pairs = PairSampler(["a", "b", "c"], [("b", "a")] * 3 + [("a", "c")] * 3, random=Random(1))
    assert [set(pairs.sample()) for _ in range(3)] == [{"b", "c"}] * 3


def test_sides_are_random() -> None:
    pairs = PairSampler(["a", "b"], random=Random(1))
    firsts = Counter(pairs.sample()[0] for _ in range(400))
    assert 150 < firsts["a"] < 250
