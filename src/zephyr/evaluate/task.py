"""Task: the same prompts for every model, and the metrics that are computed from the answers.

A score carries its protocol: `hellaswag@1 · rank · acc_norm (characters) · 0-shot · … · n=500`.
Whatever changes a number changes the task's version.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr.evaluate.interface import EvalModel, EvalSettings, Metric, TaskOutput
from zephyr.records import RecordKind


@dataclass(frozen=True)
class Task:
    """An evaluation task: `evaluate` gets records of one kind and returns items to score.

    A task whose `record_kind` is None has its own data, and returns its metrics with the items.
    `sources` are (name, split) of registered sources; without any, a hold-out is used. `n` samples
    records (or parts of the text, if they are one). `few_shot_sources` are the sources of
    few-shot examples, `accepted_settings` the settings of a recipe's task beyond `n` that it uses.
    `generates` says that it lets the model write.
    """

    name: str
    version: int
    record_kind: RecordKind | None
    method: str
    sources: tuple[tuple[str, str], ...]
    evaluate: Callable[[EvalModel, Sequence[Any], EvalSettings], TaskOutput]
    metrics: tuple[Metric, ...]
    is_single_text: bool = False
    few_shot_sources: tuple[tuple[str, str], ...] = ()
    accepted_settings: tuple[str, ...] = ()
    generates: bool = False
