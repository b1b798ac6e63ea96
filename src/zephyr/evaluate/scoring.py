"""Scoring: runs a task on a model, and computes its scores with confidence intervals."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, Metric, TaskOutput, sample
from zephyr.evaluate.mmlu_subjects import MMLU_GROUP_BY_SUBJECT
from zephyr.evaluate.task import Task
from zephyr.evaluate.tasks import get_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Record
from zephyr.stats.intervals import estimate


class EvalResult(NamedTuple):
    """Result of an evaluation: the rows of `items.jsonl`, and the content of `scores.json`."""

    items: list[Item]
    scores: dict[str, Any]


def run_task(
    settings: TaskSpec,
    records: Sequence[Record],
    model: EvalModel,
    *,
    split_label: str,
    reference_items: Iterable[Item] | None = None,
    few_shot_examples: Sequence[Record] = (),
    seed: int,
) -> EvalResult:
    """Runs one task on a model, and scores it.

    `split_label` names the evaluated split in the protocol. `reference_items` are the items of the
    same task from the reference model of the rewards; a base model has none. `few_shot_examples`
    are the records that a task with `shots` samples its few-shot examples from.

    Raises:
        ZephyrError: there is nothing to evaluate, or the model's log-probabilities are not finite
            numbers.
    """
    task = get_task(settings.name)
    selection = (
        records if task.is_single_text else sample(records, settings.n, seed, lambda r: r.id)
    )
    if task.record_kind is not None:
        _check_records(task, selection)
    items_by_id = None
    if reference_items is not None:
        items_by_id = {item["id"]: item for item in reference_items}
    output = task.evaluate(
        model, selection, EvalSettings(settings, seed, items_by_id, few_shot_examples)
    )
    if not output.items:
        raise ZephyrError(
            f"task {task.name!r} has nothing left to ask",
            found=", ".join(f"{count} {reason}" for reason, count in output.counts.items()),
            todo="give it records that fit the model",
        )
    _check_finite(task, output.items)
    counts = dict(output.counts)
    if len(selection) < len(records):
        counts["not drawn"] = len(records) - len(selection)
    return EvalResult(output.items, _build_scores(task, output, counts, split_label, seed))


def _check_records(task: Task, records: Sequence[Record]) -> None:
    if not records:
        raise ZephyrError(
            f"task {task.name!r} has nothing to ask",
            found="no records",
            todo="give it a source that isn't empty, or a mixture with a `holdout`",
        )
    for record in records:
        if record.kind != task.record_kind:
            raise ZephyrError(
                f"task {task.name!r} can't ask this source",
                where=record.source,
                found=f"records of kind {record.kind}",
                allowed=task.record_kind,
            )


def _check_finite(task: Task, items: Sequence[Item]) -> None:
    nonfinite_ids = [i["id"] for i in items if not all(map(math.isfinite, i["scores"].values()))]
    if nonfinite_ids:
        raise ZephyrError(
            f"task {task.name!r} has no score: the model's log-probabilities are not all finite",
            found=f"{len(nonfinite_ids)} of {len(items)} items, such as "
            f"{', '.join(nonfinite_ids[:3])}",
            todo="look at the loss of its training for NaN or inf; a lower `lr` may help",
        )


def _build_scores(
    task: Task, output: TaskOutput, counts: dict[str, int], split_label: str, seed: int
) -> dict[str, Any]:
    metrics = []
    metric_specs = task.metrics or output.metrics
    for metric in metric_specs:
        interval = _estimate_metric(metric, output.items, seed)
        protocol_parts = (
            f"{task.name}@{task.version}",
            task.method,
            metric.protocol_label,
            *output.protocol,
        )
        row = {
            "name": metric.name,
            "kind": metric.kind,
            "better": metric.better,
            "protocol": " · ".join((*protocol_parts, split_label, f"n={interval['n']}")),
            "scale": metric.scale,
            "headline": metric.headline,
            "primary": metric.primary,
            "chance_of": list(metric.chance_of),
            **interval,
            "empty": None if interval["n"] else output.empty_reasons[metric.name],
        }
        metrics.append(row)
    return {
        "task": task.name,
        "version": task.version,
        "metrics": metrics,
        "groups": {
            name: {m.name: _estimate_metric(m, members, seed) for m in metric_specs}
            for name, members in _group_items(output.items).items()
        },
        "counts": counts,
        "empty": metrics[0]["empty"],
    }


def _estimate_metric(metric: Metric, items: Iterable[Item], seed: int) -> dict[str, Any]:
    """Value, confidence interval (low, high) and n of a metric; no value if no item has it."""
    items_with_metric = [i for i in items if metric.name in i["scores"]]
    if not items_with_metric:
        return {"value": None, "low": None, "high": None, "n": 0}
    values = [i["scores"][metric.name] for i in items_with_metric]
    weights = [i.get("weight", {}).get(metric.name, 1) for i in items_with_metric]
    found = estimate(values, weights, kind=metric.kind, bounded=metric.bounded, seed=seed)
    return (found._replace(low=max(found.low, 0.0)) if metric.amount else found)._asdict()


def _group_items(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Items by group (subject), MMLU's subjects also by category ("group: stem"), and by source.

    Sources ("source: name") are groups only if there are several.
    """
    groups: dict[str, list[Item]] = {}
    sources: dict[str, list[Item]] = {}
    for item in items:
        if item["group"]:
            groups.setdefault(item["group"], []).append(item)
        if item["group"] in MMLU_GROUP_BY_SUBJECT:
            groups.setdefault(f"group: {MMLU_GROUP_BY_SUBJECT[item['group']]}", []).append(item)
        sources.setdefault(f"source: {item['source']}", []).append(item)
    return dict(sorted(groups.items())) | (sources if len(sources) > 1 else {})
