"""What asking a task needs: a model with two verbs, settings, and rows of answers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from zephyr.model.fork import Fork, Ids
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Record

if TYPE_CHECKING:
    from zephyr.evaluate.task import Metric  # imports this module
    from zephyr.model.decode import Sampling  # imports torch
    from zephyr.model.generate import Generation

T = TypeVar("T")
Logprobs = list[NDArray[np.float32]]
"""Of each continuation of a fork, natural-log probabilities of its tokens."""
Item = dict[str, Any]
"""One row of `items.jsonl`: id, source, group, scores, weight (where not 1), detail."""


class Model(Protocol):
    """All that an evaluation knows of a model."""

    tokenizer: Any
    template: Any
    context: int
    """Tokens that the network can read at once."""

    def logprobs(
        self, forks: Sequence[Fork], *, done: Callable[[int, Logprobs], None] = ...
    ) -> list[Logprobs]:
        """Natural-log probabilities of the tokens of each continuation of each fork."""

    def generate(
        self,
        prompts: Sequence[Ids],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: "Sampling" = ...,
        seeds: Sequence[int] | None = None,
        until: Sequence[str] = (),
        done: "Callable[[int, Generation], None]" = ...,
    ) -> "list[Generation]":
        """The answer to each prompt."""


class Settings(NamedTuple):
    """How a task is asked: what the recipe sets, and the recipe's seed.

    `reference` holds the items of the reference model by id, `examples` the records from which
    worked examples are drawn.
    """

    task: TaskSpec
    seed: int
    reference: Mapping[str, Item] | None = None
    examples: Sequence[Record] = ()


class Asked(NamedTuple):
    """What came of asking: a row for each item, and what a reader must know of them.

    `counts` says how many were cut or left out, by reason; `protocol` how they were asked; `empty`
    why a metric has no value. `metrics` are those of a task that learns of them by asking.
    """

    items: list[Item]
    counts: dict[str, int]
    protocol: tuple[str, ...]
    empty: dict[str, str]
    metrics: "tuple[Metric, ...]" = ()


def item(
    record: Record, scores: Mapping[str, float], detail: Mapping[str, Any], group: str = ""
) -> Item:
    """The row of a record."""
    return {
        "id": record.id,
        "source": record.source,
        "group": group,
        "scores": dict(scores),
        "detail": dict(detail),
    }


def sample(values: Sequence[T], n: int | None, seed: int, key: Callable[[T], str]) -> list[T]:
    """The `n` values whose keys come first in an order that the seed shuffles; all if n is None.

    Whether a value is drawn depends on the seed and the keys alone, not on the order of the
    values; that order is kept.
    """
    if n is None or n >= len(values):
        return list(values)

    def rank(at: int) -> bytes:
        text = f"{seed}:{key(values[at])}".encode()
        return hashlib.blake2b(text, digest_size=16).digest()

    drawn = sorted(range(len(values)), key=lambda at: (rank(at), at))[:n]
    return [values[at] for at in sorted(drawn)]
