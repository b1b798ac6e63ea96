"""What a task is: a question put to every model in the same way, and what is made of the answers.

A score carries its protocol: `hellaswag@1 · rank · acc_norm (characters) · 0-shot · … · n=500`.
Whatever changes a number changes the task's version.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr.evaluate.asking import Asked, Model, Settings
from zephyr.records import Kind as RecordKind
from zephyr.stats.intervals import Better, Kind


@dataclass(frozen=True)
class Metric:
    """One number of a task: the `kind` of mean over its items, and which side is better.

    `rule` is its part of the protocol; `scale` multiplies it for people to read; a headline is
    what a table shows first. `better` is None where neither side is.
    """

    name: str
    kind: Kind
    better: Better | None
    rule: str
    scale: float = 100
    headline: bool = False


@dataclass(frozen=True)
class Task:
    """A question put to every model. `ask` gets records of one kind and gives rows of answers.

    One that `asks` None brings its own data, and says its metrics with its answers.
    `sources` are (name, split) of registered sources; without any, a hold-out is asked. `n` draws
    records, or, where the records are one text, parts of it. `examples` are the sources of worked
    examples, and `takes` the settings of a recipe's task that this one heeds beyond `n`.
    """

    name: str
    version: int
    asks: RecordKind | None
    method: str
    sources: tuple[tuple[str, str], ...]
    ask: Callable[[Model, Sequence[Any], Settings], Asked]
    metrics: tuple[Metric, ...]
    one_text: bool = False
    examples: tuple[tuple[str, str], ...] = ()
    takes: tuple[str, ...] = ()
