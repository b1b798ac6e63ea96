"""The evaluation interface of tasks and models: EvalModel, EvalSettings, Metric, TaskOutput."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from zephyr.model.example import Example, TokenIds
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Record
from zephyr.stats.intervals import BetterDirection, StatisticKind

if TYPE_CHECKING:
    from zephyr.model.decoding import SamplingParams  # imports torch
    from zephyr.model.generate import Generation
    from zephyr.model.template import ChatTemplate

T = TypeVar("T")
Logprobs = list[NDArray[np.float32]]
"""For each completion of an example, the natural-log probabilities of its tokens, [T]."""
Item = dict[str, Any]
"""One row of `items.jsonl`: id, source, group, scores, weight (where not 1), detail."""


class EvalModel(Protocol):
    """The part of a language model that an evaluation uses: `logprobs` and `generate`."""

    tokenizer: Any
    template: "ChatTemplate"
    context_length: int
    """Context length of the network, in tokens."""

    def logprobs(
        self, examples: Sequence[Example], *, on_done: Callable[[int, Logprobs], None] = ...
    ) -> list[Logprobs]:
        """Natural-log probabilities of the tokens of each completion of each example."""

    def generate(
        self,
        prompts: Sequence[TokenIds],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: "SamplingParams" = ...,
        seeds: Sequence[int] | None = None,
        stop: Sequence[str] = (),
        on_done: "Callable[[int, Generation], None]" = ...,
    ) -> "list[Generation]":
        """Generates the answer to each prompt; `stop` are stop strings."""


@dataclass(frozen=True)
class Metric:
    """A metric of a task: the `kind` of mean over its items, and which direction is better.

    `protocol_label` is its part of the protocol; `scale` is the factor for display, 100 for scores
    within [0, 1]; headline metrics come first in a table. `better` is None if neither direction is
    better. A task has one primary metric: only its verdicts are corrected together (Holm). A metric
    that is the `chance_of` others is their score by chance, and is shown beside them. An `amount`
    (bytes, a rate) is never below zero, nor is its interval.
    """

    name: str
    kind: StatisticKind
    better: BetterDirection | None
    protocol_label: str
    scale: float = 100
    headline: bool = False
    primary: bool = False
    chance_of: tuple[str, ...] = ()
    amount: bool = False

    @property
    def bounded(self) -> bool:
        """Whether it is a score within [0, 1]; what is the same for every model is no score."""
        return (self.kind == "proportion" or self.scale == 100) and not self.chance_of


class EvalSettings(NamedTuple):
    """Settings of one task run: the recipe's settings of the task, and its seed.

    `reference_items` holds the items of the reference model by id, `few_shot_examples` the records
    from which few-shot examples are sampled.
    """

    task: TaskSpec
    seed: int
    reference_items: Mapping[str, Item] | None = None
    few_shot_examples: Sequence[Record] = ()


class TaskOutput(NamedTuple):
    """Output of a task before scoring: an item (row) for each record, and its protocol.

    `counts` has the numbers of truncated or excluded records by reason; `protocol` says how prompts
    were made; `empty_reasons` why a metric has no value. `metrics` are those known only after the
    run (lm-eval).
    """

    items: list[Item]
    counts: dict[str, int]
    protocol: tuple[str, ...]
    empty_reasons: dict[str, str]
    metrics: tuple[Metric, ...] = ()


def make_item(
    record: Record, scores: Mapping[str, float], detail: Mapping[str, Any], group: str = ""
) -> Item:
    """Makes the row of `items.jsonl` for a record."""
    return {
        "id": record.id,
        "source": record.source,
        "group": group,
        "scores": dict(scores),
        "detail": dict(detail),
    }


def sample(values: Sequence[T], n: int | None, seed: int, key: Callable[[T], str]) -> list[T]:
    """Samples `n` values by a seeded hash of their keys; all of them if n is None.

    Which values are sampled depends only on the seed and the keys, not on their order, which is
    kept.
    """
    if n is None or n >= len(values):
        return list(values)

    def hash_key(at: int) -> bytes:
        text = f"{seed}:{key(values[at])}".encode()
        return hashlib.blake2b(text, digest_size=16).digest()

    indices = sorted(range(len(values)), key=lambda at: (hash_key(at), at))[:n]
    return [values[at] for at in sorted(indices)]
