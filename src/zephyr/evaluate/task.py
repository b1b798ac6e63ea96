"""Tasks: what every model is asked, in the same way, and how the answers become scores.

A score carries its protocol: `hellaswag@1 · rank · acc_norm (characters) · 0-shot · … · n=500`.
Whatever changes a number changes the task's version.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from zephyr import recipe
from zephyr.errors import ZephyrError, unknown
from zephyr.evaluate import perplexity, preferences, ranking, writing
from zephyr.evaluate.asking import Asked, Item, Model, Settings
from zephyr.evaluate.asking import sample as sample_by
from zephyr.records import Kind as RecordKind
from zephyr.records import Record
from zephyr.statistics import Better, Kind, estimate

R = TypeVar("R", bound=Record)

__all__ = ["TASKS", "Metric", "Model", "Result", "Task", "find", "run_task", "sample", "sources_of"]


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

    `sources` are (name, split) of registered sources; without any, a hold-out is asked. `n` draws
    records, or, where the records are one text, parts of it.
    """

    name: str
    version: int
    asks: RecordKind
    method: str
    sources: tuple[tuple[str, str], ...]
    ask: Callable[[Model, Sequence[Any], Settings], Asked]
    metrics: tuple[Metric, ...]
    one_text: bool = False


class Result(NamedTuple):
    """The rows of `items.jsonl`, and the content of `scores.json`."""

    items: list[Item]
    scores: dict[str, Any]


_RANKED = (
    Metric("acc_norm", "proportion", "higher", "acc_norm (characters)", headline=True),
    Metric("acc", "proportion", "higher", "acc"),
    Metric("chance", "mean", None, "one option at random"),
)

_ALL = (
    Task(
        name="hellaswag",
        version=1,
        asks="choice",
        method="rank",
        sources=(("hellaswag", "validation"),),
        ask=ranking.ask_endings,
        metrics=_RANKED,
    ),
    Task(
        name="gsm8k",
        version=1,
        asks="chat",
        method="write",
        sources=(("gsm8k", "test"),),
        ask=writing.ask_problems,
        metrics=(
            Metric("bleu4", "mean", "higher", "BLEU-4 (characters)", headline=True),
            Metric("rouge1", "mean", "higher", "ROUGE-1 (jieba, F)", headline=True),
            Metric("rouge2", "mean", "higher", "ROUGE-2 (jieba, F)", headline=True),
            Metric("rougeL", "mean", "higher", "ROUGE-L (jieba, F)", headline=True),
            Metric("exact_match", "proportion", "higher", "number after ####", headline=True),
            Metric("exact_match_flexible", "proportion", "higher", "last number"),
            Metric("stopped", "proportion", "higher", "ended by itself"),
            Metric("length", "mean", None, "tokens of the answer", scale=1),
        ),
    ),
    Task(
        name="preferences",
        version=1,
        asks="pair",
        method="compare",
        sources=(),
        ask=preferences.ask_pairs,
        metrics=(
            Metric(
                "reward_accuracy", "proportion", "higher", "reward, ties one half", headline=True
            ),
            Metric("reward_accuracy_strict", "proportion", "higher", "reward, ties wrong"),
            Metric("reward_margin", "mean", "higher", "reward margin (nats, beta 1)", scale=1),
            Metric("policy_accuracy", "proportion", "higher", "log-probability, no reference"),
            Metric("longer_accuracy", "proportion", None, "the longer answer (characters)"),
        ),
    ),
    Task(
        name="mcqa",
        version=1,
        asks="choice",
        method="rank",
        sources=(("arc_easy", "test"), ("arc_challenge", "test"), ("mmlu", "test")),
        ask=ranking.ask_questions,
        metrics=_RANKED,
    ),
    Task(
        name="wikitext2",
        version=1,
        asks="passage",
        method="predict",
        sources=(("wikitext2", "test"),),
        ask=perplexity.ask_windows,
        metrics=(Metric("perplexity", "exp-mean", "lower", "per token", scale=1, headline=True),),
        one_text=True,
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def find(name: str) -> Task:
    """The task of this name.

    Raises:
        ZephyrError: there is none.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS, where="evaluate.tasks")
    return TASKS[name]


def sources_of(settings: recipe.Task) -> tuple[recipe.Source, ...]:
    """What a task asks: the recipe's sources, else its own; none where it asks a hold-out."""
    own = tuple(recipe.Source(name=n, split=split) for n, split in find(settings.name).sources)
    return settings.sources or own


def sample(records: Sequence[R], n: int | None, seed: int) -> list[R]:
    """`n` records drawn by the seed, whatever order they come in; all if n is None."""
    return sample_by(records, n, seed, lambda record: record.id)


def run_task(
    settings: recipe.Task,
    records: Sequence[Record],
    model: Model,
    *,
    split_label: str,
    reference_items: Iterable[Item] | None = None,
    seed: int,
) -> Result:
    """Asks a model one task, and scores it.

    `split_label` says in the protocol what was asked. `reference_items` are the items of the same
    task asked of the model that rewards are measured against; a base model has none.

    Raises:
        ZephyrError: there is nothing to ask, or the model gives log-probabilities that aren't
            finite numbers.
    """
    task = find(settings.name)
    drawn = records if task.one_text else sample(records, settings.n, seed)
    _check(task, drawn)
    reference = None
    if reference_items is not None:
        reference = {item["id"]: item for item in reference_items}
    asked = task.ask(model, drawn, Settings(settings.n, seed, settings.max_new_tokens, reference))
    if not asked.items:
        raise ZephyrError(
            f"task {task.name!r} has nothing left to ask",
            found=", ".join(f"{count} {reason}" for reason, count in asked.counts.items()),
            todo="give it records that fit the model",
        )
    _refuse_broken(task, asked.items)
    counts = dict(asked.counts)
    if len(drawn) < len(records):
        counts["not drawn"] = len(records) - len(drawn)
    return Result(asked.items, _scores(task, asked, counts, split_label, seed))


def _check(task: Task, records: Sequence[Record]) -> None:
    if not records:
        raise ZephyrError(
            f"task {task.name!r} has nothing to ask",
            found="no records",
            todo="give it a source that isn't empty, or a mixture with a `holdout`",
        )
    for record in records:
        if record.kind != task.asks:
            raise ZephyrError(
                f"task {task.name!r} can't ask this source",
                where=record.source,
                found=f"records of kind {record.kind}",
                allowed=task.asks,
            )


def _refuse_broken(task: Task, items: Sequence[Item]) -> None:
    broken = [i["id"] for i in items if not all(map(math.isfinite, i["scores"].values()))]
    if broken:
        raise ZephyrError(
            f"task {task.name!r} has no score: the model's log-probabilities are not all finite",
            found=f"{len(broken)} of {len(items)} items, such as {', '.join(broken[:3])}",
            todo="look at the loss of its training for NaN or inf; a lower `lr` may help",
        )


def _scores(
    task: Task, asked: Asked, counts: dict[str, int], split_label: str, seed: int
) -> dict[str, Any]:
    metrics = []
    for metric in task.metrics:
        found = _estimate(metric, asked.items, seed)
        said = (f"{task.name}@{task.version}", task.method, metric.rule, *asked.protocol)
        row = {
            "name": metric.name,
            "kind": metric.kind,
            "better": metric.better,
            "protocol": " · ".join((*said, split_label, f"n={found['n']}")),
            "scale": metric.scale,
            "headline": metric.headline,
            **found,
            "empty": None if found["n"] else asked.empty[metric.name],
        }
        metrics.append(row)
    return {
        "task": task.name,
        "version": task.version,
        "metrics": metrics,
        "groups": {
            name: {m.name: _estimate(m, members, seed) for m in task.metrics}
            for name, members in _groups(asked.items).items()
        },
        "counts": counts,
        "empty": metrics[0]["empty"],
    }


def _estimate(metric: Metric, items: Iterable[Item], seed: int) -> dict[str, Any]:
    """value, low, high and n of one metric; no value where no item has it."""
    having = [i for i in items if metric.name in i["scores"]]
    if not having:
        return {"value": None, "low": None, "high": None, "n": 0}
    values = [i["scores"][metric.name] for i in having]
    weights = [i.get("weight", {}).get(metric.name, 1) for i in having]
    return estimate(values, weights, kind=metric.kind, seed=seed)._asdict()


def _groups(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Items by their group, and by their source (as "source: name") where there are several."""
    groups: dict[str, list[Item]] = {}
    sources: dict[str, list[Item]] = {}
    for item in items:
        if item["group"]:
            groups.setdefault(item["group"], []).append(item)
        sources.setdefault(f"source: {item['source']}", []).append(item)
    return dict(sorted(groups.items())) | (sources if len(sources) > 1 else {})
