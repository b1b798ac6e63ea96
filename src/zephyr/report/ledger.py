"""The ledger: what every model of a recipe scored, read from its runs.

A row is a model, a column a metric of a task. A cell holds a value with its interval, or says why
it has none; beside it stands the difference, on the same items, to the model that it comes from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from zephyr.errors import ZephyrError
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.quantization import Quantize
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Lora
from zephyr.report.damage import damage
from zephyr.report.paired import Told, items_of, paired
from zephyr.runs.store import Run, Store
from zephyr.stats.intervals import Better, Estimate, Kind, Verdict, verdict
from zephyr.stats.significance import Evidence, enough, evidence, holm

State = Literal["finished", "failed", "damaged", "unfinished", "missing"]

AGAINST_ITSELF = {"reward_accuracy": 0.5, "reward_margin": 0.0}
"""What a model scores with itself as the reference: each reward is zero, so each pair is a tie."""


@dataclass(frozen=True)
class Entry:
    """One node of the recipe, and what is there of its run.

    `reason` says why the run is not finished. `made` counts the bytes of what the run made (of an
    adapter's run, the adapter alone); `kept` counts its whole folder, checkpoints included.
    """

    name: str
    kind: str
    inputs: Mapping[str, str]
    run: Run
    state: State
    reason: str | None
    cause: str | None
    """The failed node on which it waits, itself included."""
    seconds: float | None
    made: int | None
    kept: int | None
    joules: float | None = None
    """What the machine's processors used meanwhile, where they tell it."""


class Column(NamedTuple):
    """A metric of a task; `metric` is empty as long as no run of the task has told its metrics."""

    task: str
    metric: str
    kind: Kind
    better: Better | None
    scale: float
    headline: bool


@dataclass(frozen=True)
class Difference:
    """A model's score minus that of the model `to`, paired by item; or why there is none.

    `p` is corrected for the `comparisons` of its table, and so is the verdict; `needed` are the
    items at which a difference such as this could be told, where it can't be.
    """

    to: str
    estimate: Estimate | None
    verdict: Verdict | None
    empty: str | None
    p: float | None = None
    comparisons: int = 0
    needed: int | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Cell:
    """A score, or the reason why it is `empty`.

    `difference` is None for a model that comes from no other, and where the cell is empty;
    `published` is what others published of the same, scaled as people read it.
    """

    column: Column
    estimate: Estimate | None
    protocol: str | None
    empty: str | None
    difference: Difference | None = None
    groups: Mapping[str, Estimate] | None = None
    published: float | None = None


@dataclass(frozen=True)
class Row:
    """A model: what it comes from, what was done to it, and a cell for each column."""

    model: str
    parent: str | None
    done: str
    entry: Entry
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Ledger:
    """All that a recipe's runs say of its models; rows as in the recipe, headline columns first."""

    recipe: Recipe
    entries: Mapping[str, Entry]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def headlines(self) -> list[int]:
        """The places of the headline columns."""
        return [at for at, column in enumerate(self.columns) if column.headline]

    def protocols(self, at: int) -> dict[str, list[str]]:
        """How the scores of a column came to be: each protocol, and the models asked by it."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            cell = row.cells[at]
            if cell.estimate is not None and cell.protocol is not None:
                found.setdefault(cell.protocol, []).append(row.model)
        return found


def read_ledger(store: Store, recipe_name: str) -> Ledger:
    """The ledger of a recipe as it was last run in a store, finished or not.

    Raises:
        ZephyrError: it was never run there, or by a version with other recipes.
    """
    recipe, nodes = _known(store, recipe_name)
    entries: dict[str, Entry] = {}
    for node in nodes:  # every node comes after its inputs
        entries[node["name"]] = _entry(node, entries, store.find(node["fingerprint"]))
    scores = {
        name: {metric["name"]: metric | {"groups": found["groups"]} for metric in found["metrics"]}
        for name, entry in entries.items()
        if entry.kind == "evaluation" and entry.state == "finished"
        for found in [entry.run.read("artifact/scores.json")]
    }
    columns = _columns(recipe, scores)
    cells = {
        model: tuple(_cell(entries, scores, model, column) for column in columns)
        for model in recipe.models
    }
    rows: list[Row] = []
    for name, model in recipe.models.items():
        scored, parent = cells[name], model.from_
        if parent is not None:
            scored = tuple(
                _compared(ours, theirs, entries, name, parent, recipe.seed)
                for ours, theirs in zip(scored, cells[parent], strict=True)
            )
        rows.append(Row(name, parent, done(model), entries[name], scored))
    return Ledger(recipe, entries, columns, _corrected(_beside(rows, recipe)))


def _known(store: Store, name: str) -> tuple[Recipe, list[dict[str, Any]]]:
    known = store.nodes(name)
    if known is None:
        raise ZephyrError(
            f"recipe {name} has not been run here",
            where=str(store.root),
            todo=f"zephyr run {name}",
        )
    where = str(store.recipe_folder(name) / "nodes.json")
    try:
        recipe = Recipe.model_validate(known["spec"])
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
    nodes: list[dict[str, Any]] = known["nodes"]
    made = {node["name"] for node in nodes}
    if lost := [n for n in (*(f"data.{d}" for d in recipe.data), *recipe.models) if n not in made]:
        raise ZephyrError(
            f"the nodes of recipe {name} are not those that it asks for",
            where=where,
            found=f"no {lost[0]}",
            todo=f"zephyr run {name}",
        )
    return recipe, nodes


def _entry(node: Mapping[str, Any], before: Mapping[str, Entry], run: Run) -> Entry:
    name, kind, inputs = node["name"], node["kind"], node["inputs"]
    if flaw := damage(run):
        return Entry(name, kind, inputs, run, "damaged", flaw, None, None, None, None)
    if run.finished:
        sizes: dict[str, int] = run.read("DONE")["bytes"]
        made = sum(size for path, size in sizes.items() if path.startswith("artifact/"))
        kept, env = sum(sizes.values()), run.read("env.json")
        seconds, joules = env["seconds"], env.get("joules")
        return Entry(name, kind, inputs, run, "finished", None, None, seconds, made, kept, joules)
    state: State
    if run.failure is not None:
        state, cause, reason = "failed", name, f"failed: {_gist(run.failure)}"
    else:
        state = "unfinished" if run.path.exists() else "missing"
        cause = next((c for used in inputs.values() if (c := before[used].cause)), None)
        reason = f"not made: {cause} failed" if cause else _WAITING[state]
    return Entry(name, kind, inputs, run, state, reason, cause, None, None, None)


_WAITING = {"unfinished": "unfinished", "missing": "not made yet"}


def _gist(failure: str) -> str:
    """The line that says what is wrong: the last of a traceback, the first of any other text."""
    lines = failure.strip().splitlines() or ["no reason was kept"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def done(model: ModelSpec) -> str:
    """What was done to make a model, in a few words."""
    if model.base is not None:
        return f"base {Path(model.base).name if Path(model.base).is_absolute() else model.base}"
    if model.pretrain is not None:
        return f"pretrained on {model.pretrain.data}"
    if model.tune is not None:
        how = "all weights"
        if isinstance(model.tune.lora, Lora):
            kind = f"QLoRA {model.tune.load}" if model.tune.load else "LoRA"
            how = f"{kind} r{model.tune.lora.rank}"
        return f"SFT ({how}) on {model.tune.data}"
    if model.align is not None:
        fresh = model.align.adapter == "fresh"
        how = f"LoRA r{model.align.lora.rank}" if fresh else "its adapter"
        loss = {"simpo": "SimPO"}.get(model.align.loss, model.align.loss.upper())
        return f"{loss} β {model.align.beta:g} ({how}) on {model.align.data}"
    assert model.quantize is not None, "a recipe's model has an origin or an act"
    return _quantized(model.quantize)


def _quantized(spec: Quantize) -> str:
    """How weights were quantized, in a few words."""
    if spec.method == "whole":
        return "its adapters on whole weights"
    if spec.method == "merged":
        return "merged"
    said = spec.method if spec.method not in ("int4", "gptq") else f"{spec.method} g{spec.group}"
    if spec.method in ("nf4", "fp4") and not spec.double:
        said += ", scales not quantized"
    if spec.compute != "float32":
        said += f", computed in {spec.compute}"
    if spec.embeddings:
        said += f", embeddings {spec.embeddings}"
    return said


# -- columns and cells ----------------------------------------------------------------------------

_Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By evaluation, then by metric: the rows of `scores.json`, each with the groups of its task."""


def _columns(recipe: Recipe, scores: _Scores) -> tuple[Column, ...]:
    columns: dict[tuple[str, str], Column] = {}
    for task in recipe.evaluate.tasks:
        if task.is_footprint:
            continue  # no score: bytes and speeds stand in a table of their own
        for model in recipe.models:
            for name, row in scores.get(f"{model}/{task.key}", {}).items():
                columns[task.key, name] = Column(
                    task.key, name, row["kind"], row["better"], row["scale"], row["headline"]
                )
        if not any(key == task.key for key, _ in columns):
            columns[task.key, ""] = Column(task.key, "", "mean", None, 1, headline=True)
    return tuple(sorted(columns.values(), key=lambda column: not column.headline))


def _cell(entries: Mapping[str, Entry], scores: _Scores, model: str, column: Column) -> Cell:
    name = f"{model}/{column.task}"
    if name not in entries:
        return Cell(column, None, None, "not asked of this model")
    if name not in scores:
        return Cell(column, None, None, entries[name].reason)
    if column.metric not in scores[name]:
        return Cell(column, None, None, "this run does not have the metric")
    row = scores[name][column.metric]
    estimate = _estimate(row)
    empty = None if estimate else row["empty"] or "not a finite number"
    groups = {
        group: found
        for group, metrics in row["groups"].items()
        if (found := _estimate(metrics[column.metric]))
    }
    return Cell(column, estimate, row["protocol"], empty, None, groups)


def _estimate(row: Mapping[str, Any]) -> Estimate | None:
    found = Estimate(*(row[key] for key in Estimate._fields))
    return found if all(each is not None and math.isfinite(each) for each in found) else None


# -- differences ----------------------------------------------------------------------------------


def _compared(
    ours: Cell, theirs: Cell, entries: Mapping[str, Entry], model: str, parent: str, seed: int
) -> Cell:
    """A cell with its difference to the parent's."""
    if ours.estimate is None:
        return ours
    column = ours.column
    asked, before = entries[f"{model}/{column.task}"], f"{parent}/{column.task}"
    found: Told | str
    if column.metric.startswith("reward_") and asked.inputs.get("reference") == before:
        tie = AGAINST_ITSELF.get(column.metric)
        if tie is not None:
            value, low, high, n = ours.estimate
            gap = Estimate(value - tie, low - tie, high - tie, n)
            values = [v for v, _ in items_of(asked.run.path)[column.metric].values()]
            found = Told(gap, evidence(values, [tie] * len(values), kind="mean", seed=seed))
        else:
            found = f"measured against itself, {parent} ties on every pair"
    elif theirs.estimate is None:
        found = f"{parent} has no value: {theirs.empty}"
    else:
        theirs_at = entries[before].run.path
        found = paired(asked.run.path, theirs_at, column.metric, column.kind, seed)
    if isinstance(found, str):
        made = Difference(parent, None, None, found)
    else:
        made = Difference(parent, found.gap, None, None, evidence=found.evidence)
    return replace(ours, difference=made)


def _beside(rows: Sequence[Row], recipe: Recipe) -> list[Row]:
    """The rows with what others published of them."""
    if recipe.published is None:
        return list(rows)
    scores = recipe.published.scores

    def of(row: Row, cell: Cell) -> float | None:
        return scores.get(row.model, {}).get(f"{cell.column.task}.{cell.column.metric}")

    return [
        replace(row, cells=tuple(replace(c, published=of(row, c)) for c in row.cells))
        for row in rows
    ]


def _corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with verdicts, corrected for how many there are.

    All comparisons of headline metrics that have a better side are one family, those of all other
    metrics another.
    """
    corrected: dict[tuple[str, Column], Difference] = {}
    for headline in (True, False):
        family = [
            (row.model, cell.column, cell.difference, cell.difference.evidence)
            for row in rows
            for cell in row.cells
            if cell.column.headline == headline
            and cell.column.better is not None
            and cell.difference is not None
            and cell.difference.evidence is not None
        ]
        p_values = holm([found.p for *_, found in family])
        for (model, column, gap, found), p in zip(family, p_values, strict=True):
            assert gap.estimate is not None, "where there is evidence, there is a difference"
            said = verdict(gap.estimate, column.better, p)
            needed = enough(found, len(family)) if said == "cannot tell" else None
            corrected[model, column] = replace(
                gap, verdict=said, p=p, comparisons=len(family), needed=needed
            )

    def cell_of(row: Row, cell: Cell) -> Cell:
        gap = corrected.get((row.model, cell.column), cell.difference)
        if gap is not None and gap.estimate is not None and gap.verdict is None:
            gap = replace(gap, verdict="cannot tell")  # no side of it is better
        return replace(cell, difference=gap)

    return tuple(
        replace(row, cells=tuple(cell_of(row, cell) for cell in row.cells)) for row in rows
    )
