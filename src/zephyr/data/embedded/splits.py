"""Splits synthetic content into train, dev, validation and test by its hash (no leakage)."""

import hashlib
from collections.abc import Callable
from random import Random
from typing import TypeVar

T = TypeVar("T")

_SIDES = ("train",) * 10 + ("dev",) + ("validation",) * 4 + ("test",) * 5


def assign_side(content: str) -> str:
    """Assigns content by its hash: train (half of all content), dev, validation or test."""
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    return _SIDES[int.from_bytes(digest) % len(_SIDES)]


def sample_on_side(
    random: Random, side: str, make: Callable[[Random], T], content_key: Callable[[T], str]
) -> T:
    """Samples with `make` until the content falls on a side (rejection sampling)."""
    while True:
        sample = make(random)
        if assign_side(content_key(sample)) == side:
            return sample
