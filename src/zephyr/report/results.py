"""Results table of a recipe: the score of every model in every metric, read from its runs.

A row is a model, a column a metric of a task. A cell has a score with its confidence interval, or
the reason why it has none, and the paired difference to the model's parent on the same items.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from zephyr.errors import ZephyrError
from zephyr.recipe.schema import Recipe
from zephyr.report.derivation import describe_derivation
from zephyr.report.node_status import NodeStatus, read_node_status
from zephyr.report.paired_comparison import Comparison, compare_paired, read_item_scores
from zephyr.report.verdicts import PairedResult, decide
from zephyr.runs.store import Store
from zephyr.stats.intervals import BetterDirection, Estimate, StatisticKind, Verdict
from zephyr.stats.significance import PairedTestResult, paired_test

SELF_REFERENCE_SCORES = {"reward_accuracy": 0.5, "reward_margin": 0.0}
"""Scores of a model with itself as the reference: all rewards are zero, every pair is a tie."""


class Column(NamedTuple):
    """A column: a metric of a task; `metric` is empty until a run of the task has scores.

    A task has one primary metric, of which verdicts are corrected together; all others are
    secondary.
    """

    task: str
    metric: str
    kind: StatisticKind
    better: BetterDirection | None
    scale: float
    headline: bool
    primary: bool = False

    @property
    def bounded(self) -> bool:
        """Whether its values are within [0, 1]."""
        return self.kind == "proportion" or self.scale == 100


@dataclass(frozen=True)
class Difference:
    """The paired difference of a model's score to its `baseline`'s; or why there is none.

    It holds the fields of its `Decision`, which are None or 0 where there is no difference.
    """

    baseline: str
    estimate: Estimate | None
    verdict: Verdict | None
    missing_reason: str | None
    p: float | None = None
    p_uncorrected: float | None = None
    note: str | None = None
    comparisons: int = 0
    items_needed: int | None = None
    evidence: PairedTestResult | None = None


@dataclass(frozen=True)
class Cell:
    """The score of a model in a column, or the `missing_reason` where there is none.

    `difference` is None for a model without a parent, and for an empty cell; `chance` is the score
    by chance; `published` is the published score of the same metric, scaled for display.
    """

    column: Column
    estimate: Estimate | None
    protocol: str | None
    missing_reason: str | None
    difference: Difference | None = None
    groups: Mapping[str, Estimate] | None = None
    chance: float | None = None
    published: float | None = None


@dataclass(frozen=True)
class ModelRow:
    """The row of a model: its parent, how it was derived from that, and a cell for each column."""

    model: str
    parent: str | None
    derivation: str
    node: NodeStatus
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Results:
    """The results of a recipe's models; rows as in the recipe, headline columns first."""

    recipe: Recipe
    nodes: Mapping[str, NodeStatus]
    columns: tuple[Column, ...]
    rows: tuple[ModelRow, ...]
    argument: str
    """What named the recipe in the command that ran it: its file or its name, and `--set`s."""

    @property
    def asked_rows(self) -> tuple[ModelRow, ...]:
        """The rows of models that are asked something: a table of scores leaves out the others."""
        keys = [task.key for task in self.recipe.evaluate.tasks if not task.is_footprint]
        return tuple(
            row for row in self.rows if any(f"{row.model}/{key}" in self.nodes for key in keys)
        )

    @property
    def primary_indices(self) -> list[int]:
        """The indices of the primary columns, one a task."""
        return [at for at, column in enumerate(self.columns) if column.primary]

    @property
    def headline_indices(self) -> list[int]:
        """The indices of the headline columns."""
        return [at for at, column in enumerate(self.columns) if column.headline]

    def protocols(self, at: int) -> dict[str, list[str]]:
        """The protocols of a column's scores, each with the models that were evaluated by it."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            cell = row.cells[at]
            if cell.estimate is not None and cell.protocol is not None:
                found.setdefault(cell.protocol, []).append(row.model)
        return found


def read_results(store: Store, recipe_name: str) -> Results:
    """Reads the results of a recipe as it was last run in a store, finished or not.

    Raises:
        ZephyrError: it was never run there, or by an incompatible version.
    """
    recipe, nodes = _read_recorded_nodes(store, recipe_name)
    statuses: dict[str, NodeStatus] = {}
    for node in nodes:  # every node comes after its inputs
        statuses[node["name"]] = read_node_status(node, statuses, store.find(node["fingerprint"]))
    scores = {
        name: {metric["name"]: metric | {"groups": found["groups"]} for metric in found["metrics"]}
        for name, status in statuses.items()
        if status.kind == "evaluation" and status.state == "finished"
        for found in [status.run.read("artifact/scores.json")]
    }
    columns = _metric_columns(recipe, scores)
    cells = {
        model: tuple(_score_cell(statuses, scores, model, column) for column in columns)
        for model in recipe.models
    }
    rows: list[ModelRow] = []
    for name, model in recipe.models.items():
        model_cells, parent = cells[name], model.from_
        if parent is not None:
            model_cells = tuple(
                _with_difference(cell, parent_cell, statuses, name, parent, recipe.seed)
                for cell, parent_cell in zip(model_cells, cells[parent], strict=True)
            )
        rows.append(ModelRow(name, parent, describe_derivation(model), statuses[name], model_cells))
    return Results(
        recipe,
        statuses,
        columns,
        _with_corrected_verdicts(_with_published(rows, recipe)),
        (store.read_nodes(recipe_name) or {}).get("argument", recipe.name),
    )


def _read_recorded_nodes(store: Store, name: str) -> tuple[Recipe, list[dict[str, Any]]]:
    recorded = store.read_nodes(name)
    if recorded is None:
        raise ZephyrError(
            f"recipe {name} has not been run here",
            where=str(store.root),
            todo=f"zephyr run {name}",
        )
    where = str(store.recipe_folder(name) / "nodes.json")
    try:
        recipe = Recipe.model_validate(recorded["spec"])
    except ValidationError as error:
        raise ZephyrError(
            f"recipe {name} was run by another version of Zephyr",
            where=where,
            found=f"{error.error_count()} keys that this version does not know",
            todo="run it again",
        ) from None
    if recipe.name != name:
        raise ZephyrError(
            f"these are the nodes of another recipe than {name}",
            where=where,
            found=recipe.name,
            todo=f"remove the file, then zephyr run {name}",
        )
    nodes: list[dict[str, Any]] = recorded["nodes"]
    node_names = {node["name"] for node in nodes}
    if missing := [
        n for n in (*(f"data.{d}" for d in recipe.data), *recipe.models) if n not in node_names
    ]:
        raise ZephyrError(
            f"the nodes of recipe {name} are not those that it asks for",
            where=where,
            found=f"no {missing[0]}",
            todo=f"zephyr run {name}",
        )
    return recipe, nodes


# -- columns and cells ----------------------------------------------------------------------------

_Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Rows of `scores.json` by evaluation and metric, each with the groups of its task."""


def _metric_columns(recipe: Recipe, scores: _Scores) -> tuple[Column, ...]:
    """The columns of all tasks, headline columns first; what is a score by chance has none."""
    columns_by_key: dict[tuple[str, str], Column] = {}
    for task in recipe.evaluate.tasks:
        if task.is_footprint:
            continue  # no score: sizes and throughput have a separate table
        for model in recipe.models:
            for name, row in scores.get(f"{model}/{task.key}", {}).items():
                if not row.get("chance_of"):
                    columns_by_key[task.key, name] = Column(
                        task.key, name, row["kind"], row["better"], row["scale"], row["headline"]
                    )
        if not any(key == task.key for key, _ in columns_by_key):
            columns_by_key[task.key, ""] = Column(
                task.key, "", "mean", None, 1, headline=True, primary=True
            )
        primary = _primary_metric([scores.get(f"{m}/{task.key}", {}) for m in recipe.models])
        if (column := columns_by_key.get((task.key, primary))) is not None:
            columns_by_key[task.key, primary] = column._replace(primary=True)
    return tuple(sorted(columns_by_key.values(), key=lambda column: not column.headline))


def _primary_metric(task_scores: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """The primary metric of a task; where no model has a value, the first headline metric with one.

    Runs before there were primary metrics take that, too.
    """
    rows = [row for scores in task_scores for row in scores.values() if row["value"] is not None]
    rows.sort(key=lambda row: (not row.get("primary"), not row["headline"]))
    return rows[0]["name"] if rows else ""


def _score_cell(
    statuses: Mapping[str, NodeStatus], scores: _Scores, model: str, column: Column
) -> Cell:
    name = f"{model}/{column.task}"
    if name not in statuses:
        return Cell(column, None, None, "not asked of this model")
    if name not in scores:
        return Cell(column, None, None, statuses[name].reason)
    if column.metric not in scores[name]:
        return Cell(column, None, None, "this run does not have the metric")
    row = scores[name][column.metric]
    estimate = _estimate(row)
    missing_reason = None if estimate else row["empty"] or "not a finite number"
    groups = {
        group: found
        for group, metrics in row["groups"].items()
        if (found := _estimate(metrics[column.metric]))
    }
    chance = next(
        (r["value"] for r in scores[name].values() if column.metric in r.get("chance_of", ())), None
    )
    return Cell(column, estimate, row["protocol"], missing_reason, None, groups, chance)


def _estimate(row: Mapping[str, Any]) -> Estimate | None:
    found = Estimate(*(row[key] for key in Estimate._fields))
    return found if all(each is not None and math.isfinite(each) for each in found) else None


# -- differences ----------------------------------------------------------------------------------


def _with_difference(
    cell: Cell,
    parent_cell: Cell,
    statuses: Mapping[str, NodeStatus],
    model: str,
    parent: str,
    seed: int,
) -> Cell:
    """A cell with its paired difference to the parent's."""
    if cell.estimate is None:
        return cell
    column = cell.column
    evaluation, parent_evaluation = statuses[f"{model}/{column.task}"], f"{parent}/{column.task}"
    comparison: Comparison | str
    if (
        column.metric.startswith("reward_")
        and evaluation.inputs.get("reference") == parent_evaluation
    ):
        tie = SELF_REFERENCE_SCORES.get(column.metric)
        if tie is not None:
            value, low, high, n = cell.estimate
            estimate = Estimate(value - tie, low - tie, high - tie, n)
            values = [v for v, _ in read_item_scores(evaluation.run.path)[column.metric].values()]
            comparison = Comparison(
                estimate, paired_test(values, [tie] * len(values), kind="mean", seed=seed)
            )
        else:
            comparison = f"measured against itself, {parent} ties on every pair"
    elif parent_cell.estimate is None:
        comparison = f"{parent} has no value: {parent_cell.missing_reason}"
    else:
        parent_run = statuses[parent_evaluation].run.path
        comparison = compare_paired(
            evaluation.run.path, parent_run, column.metric, column.kind, seed, column.bounded
        )
    if isinstance(comparison, str):
        difference = Difference(parent, None, None, comparison)
    else:
        difference = Difference(
            parent, comparison.difference, None, None, evidence=comparison.evidence
        )
    return replace(cell, difference=difference)


def _with_published(rows: Sequence[ModelRow], recipe: Recipe) -> list[ModelRow]:
    """The rows with published scores added."""
    if recipe.published is None:
        return list(rows)
    scores = recipe.published.scores

    def published_score(row: ModelRow, cell: Cell) -> float | None:
        return scores.get(row.model, {}).get(f"{cell.column.task}.{cell.column.metric}")

    return [
        replace(row, cells=tuple(replace(c, published=published_score(row, c)) for c in row.cells))
        for row in rows
    ]


def _with_corrected_verdicts(rows: Sequence[ModelRow]) -> tuple[ModelRow, ...]:
    """The rows with verdicts, those of primary metrics Holm-corrected for all of these."""
    results = {
        (row.model, cell.column): PairedResult(
            found.estimate, found.evidence, cell.column.better, cell.column.primary
        )
        for row in rows
        for cell in row.cells
        if (found := cell.difference) and found.estimate and found.evidence
    }
    decisions = decide(results)

    def with_verdict(model: str, cell: Cell) -> Cell:
        decision = decisions.get((model, cell.column))
        if cell.difference is None or decision is None:
            return cell
        return replace(cell, difference=replace(cell.difference, **decision._asdict()))

    return tuple(
        replace(row, cells=tuple(with_verdict(row.model, cell) for cell in row.cells))
        for row in rows
    )
