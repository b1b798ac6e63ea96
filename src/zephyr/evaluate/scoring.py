"""Scoring: a task asked of a model, and the items and scores that come of it."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.evaluate.asking import Asked, Item, Model, Settings, sample
from zephyr.evaluate.subjects import GROUP_OF
from zephyr.evaluate.task import Metric, Task
from zephyr.evaluate.tasks import find
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Record
from zephyr.stats.intervals import estimate


class Result(NamedTuple):
    """The rows of `items.jsonl`, and the content of `scores.json`."""

    items: list[Item]
    scores: dict[str, Any]


def run_task(
    settings: TaskSpec,
    records: Sequence[Record],
    model: Model,
    *,
    split_label: str,
    reference_items: Iterable[Item] | None = None,
    examples: Sequence[Record] = (),
    seed: int,
) -> Result:
    """Asks a model one task, and scores it.

    `split_label` says in the protocol what was asked. `reference_items` are the items of the same
    task asked of the model that rewards are measured against; a base model has none. `examples` are
    the records that a task with `shots` draws its worked examples from.

    Raises:
        ZephyrError: there is nothing to ask, or the model gives log-probabilities that aren't
            finite numbers.
    """
    task = find(settings.name)
    drawn = records if task.one_text else sample(records, settings.n, seed, lambda r: r.id)
    if task.asks is not None:
        _check(task, drawn)
    reference = None
    if reference_items is not None:
        reference = {item["id"]: item for item in reference_items}
    asked = task.ask(model, drawn, Settings(settings, seed, reference, examples))
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
    known = task.metrics or asked.metrics
    for metric in known:
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
            name: {m.name: _estimate(m, members, seed) for m in known}
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
    """Items by their group, MMLU's subjects also by theirs ("group: stem"), and by their source.

    Sources ("source: name") are told apart where there are several.
    """
    groups: dict[str, list[Item]] = {}
    sources: dict[str, list[Item]] = {}
    for item in items:
        if item["group"]:
            groups.setdefault(item["group"], []).append(item)
        if item["group"] in GROUP_OF:
            groups.setdefault(f"group: {GROUP_OF[item['group']]}", []).append(item)
        sources.setdefault(f"source: {item['source']}", []).append(item)
    return dict(sorted(groups.items())) | (sources if len(sources) > 1 else {})
