"""Any two models compared, on the items that both were asked in the same way."""

import re
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError, unknown
from zephyr.report.ledger import Cell, Column, Ledger, read_ledger
from zephyr.report.paired import paired
from zephyr.runs.store import Store
from zephyr.stats.intervals import Estimate, Verdict, verdict
from zephyr.stats.significance import Evidence, enough, holm


class Compared(NamedTuple):
    """A metric of both models, and the difference of the second to the first; or why there is none.

    `p` is corrected for all that is compared here; `needed` are the items that could tell where
    these can't.
    """

    column: Column
    first: Estimate | None
    second: Estimate | None
    difference: Estimate | None
    p: float | None
    verdict: Verdict | None
    needed: int | None
    empty: str | None


class _Open(NamedTuple):
    column: Column
    first: Cell
    second: Cell
    gap: Estimate
    evidence: Evidence


def compare(store: Store, first: str, second: str) -> list[Compared]:
    """Every metric that either of two models has; each is named RECIPE/MODEL.

    Raises:
        ZephyrError: a recipe was never run here, or has no such model.
    """
    (ledger_a, model_a), (ledger_b, model_b) = _model(store, first), _model(store, second)
    cells_a, cells_b = _cells(ledger_a, model_a), _cells(ledger_b, model_b)
    found: list[Compared | _Open] = []
    for key in dict.fromkeys([*cells_a, *cells_b]):
        a, b = cells_a.get(key), cells_b.get(key)
        if a is None or b is None or a.estimate is None or b.estimate is None:
            found.append(_missing(a, b, first, second))
            continue
        if _manner(a) != _manner(b):
            found.append(_without(a, b, f"asked in two ways: {_manner(a)}; {_manner(b)}"))
            continue
        told = paired(
            ledger_b.entries[f"{model_b}/{b.column.task}"].run.path,
            ledger_a.entries[f"{model_a}/{a.column.task}"].run.path,
            b.column.metric,
            b.column.kind,
            ledger_a.recipe.seed,
        )
        if isinstance(told, str):
            found.append(_without(a, b, told))
        else:
            found.append(_Open(b.column, a, b, told.gap, told.evidence))
    return _corrected(found)


def _corrected(found: list[Compared | _Open]) -> list[Compared]:
    family = [c for c in found if isinstance(c, _Open) and c.column.better is not None]
    p_values = dict(zip(map(id, family), holm([c.evidence.p for c in family]), strict=True))
    rows = []
    for each in found:
        if isinstance(each, Compared):
            rows.append(each)
            continue
        p = p_values.get(id(each))
        said = verdict(each.gap, each.column.better, 1.0 if p is None else p)
        unsure = said == "cannot tell" and p is not None
        needed = enough(each.evidence, len(family)) if unsure else None
        a, b = each.first.estimate, each.second.estimate
        rows.append(Compared(each.column, a, b, each.gap, p, said, needed, None))
    return rows


def _model(store: Store, name: str) -> tuple[Ledger, str]:
    recipe, slash, model = name.rpartition("/")
    if not slash:
        raise ZephyrError(
            "a model is named by its recipe and itself",
            found=name,
            allowed="RECIPE/MODEL, such as embedded/M1",
        )
    ledger = read_ledger(store, recipe)
    if model not in ledger.recipe.models:
        raise unknown("model", model, ledger.recipe.models, where=f"recipe {recipe}")
    return ledger, model


def _cells(ledger: Ledger, model: str) -> dict[tuple[str, str], Cell]:
    row = next(row for row in ledger.rows if row.model == model)
    return {(cell.column.task, cell.column.metric): cell for cell in row.cells}


def _manner(cell: Cell) -> str:
    """The protocol without the number of items, and without a reference where none is needed."""
    told = re.sub(r" · n=\d+$", "", cell.protocol or "")
    rewarded = cell.column.metric.startswith("reward_")
    return told if rewarded else re.sub(r" · against [^·]+$", "", told)


def _missing(a: Cell | None, b: Cell | None, first: str, second: str) -> Compared:
    lacking = next(
        f"{name}: {'not asked' if cell is None else cell.empty}"
        for name, cell in ((first, a), (second, b))
        if cell is None or cell.estimate is None
    )
    return _without(a, b, lacking)


def _without(a: Cell | None, b: Cell | None, why: str) -> Compared:
    some = a or b
    assert some is not None, "one of both has the metric"
    first, second = (None if cell is None else cell.estimate for cell in (a, b))
    return Compared(some.column, first, second, None, None, None, None, why)


def to_json(row: Compared) -> dict[str, Any]:
    """A row as JSON values."""

    def plain(found: Estimate | None) -> dict[str, Any] | None:
        return None if found is None else found._asdict()

    return {
        "task": row.column.task,
        "metric": row.column.metric,
        "scale": row.column.scale,
        "first": plain(row.first),
        "second": plain(row.second),
        "difference": plain(row.difference),
        "p_corrected": row.p,
        "verdict": row.verdict,
        "n_needed": row.needed,
        "empty": row.empty,
    }
