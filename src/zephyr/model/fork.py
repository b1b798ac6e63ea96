"""A fork: a prompt and its continuations. Nothing else enters a network.

Supervised fine-tuning is a fork with one continuation, DPO with two, multiple choice with one for
each option, perplexity one after a single token of prompt.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int32]
Marks = NDArray[np.bool_]


def ids(values: ArrayLike) -> Ids:
    """Token ids as an array [time] of int32."""
    return np.asarray(values, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Continuation:
    """Token ids [time] that follow a prompt; `supervised` [time] marks those that count."""

    ids: Ids
    supervised: Marks


@dataclass(frozen=True, slots=True, eq=False)
class Fork:
    """A prompt of at least one token, and at least one continuation of at least one token."""

    prompt: Ids
    continuations: tuple[Continuation, ...]

    def __post_init__(self) -> None:
        assert len(self.prompt) > 0, "the first token of a continuation needs one before it"
        assert self.continuations, "a fork has a continuation"
        assert all(len(c.ids) > 0 for c in self.continuations), "a continuation has a token"

    @property
    def length(self) -> int:
        """Tokens that enter a network when the prompt is stored once.

        The last token of a continuation is predicted and never read.
        """
        return len(self.prompt) + sum(len(c.ids) - 1 for c in self.continuations)

    @property
    def longest(self) -> int:
        """Tokens that enter a network for the prompt and its longest continuation."""
        return len(self.prompt) + max(len(c.ids) for c in self.continuations) - 1

    @property
    def supervised(self) -> int:
        """How many tokens count."""
        return int(sum(c.supervised.sum() for c in self.continuations))


def fork(prompt: ArrayLike, *continuations: ArrayLike) -> Fork:
    """A fork all of whose continuation tokens count."""
    return Fork(
        ids(prompt),
        tuple(Continuation(ids(c), np.ones(np.shape(c), dtype=np.bool_)) for c in continuations),
    )


def cut_prompt(whole: Fork, longest: int, start: int | None) -> Fork | None:
    """The fork with its prompt cut from the left, so that `longest` tokens enter a network.

    A start token stays in front. None where the continuations alone leave no room for a prompt.
    """
    room = longest - (whole.longest - len(whole.prompt))
    head = whole.prompt[:1] if whole.prompt[0] == start and room > 1 else whole.prompt[:0]
    if room < 1:
        return None
    tail = whole.prompt[len(whole.prompt) - (room - len(head)) :]
    return Fork(np.concatenate([head, tail]), whole.continuations)


def same(a: Fork, b: Fork) -> bool:
    """Whether two forks hold the same ids and marks."""

    def parts(f: Fork) -> list[Any]:
        return [f.prompt, *(x for c in f.continuations for x in (c.ids, c.supervised))]

    left, right = parts(a), parts(b)
    return len(left) == len(right) and all(map(np.array_equal, left, right))
