"""The data and base models that a recipe needs: what is at hand, and how the rest gets here."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

from zephyr.data import hub, sources
from zephyr.data.sources import Tally
from zephyr.data.table import SOURCES, Source
from zephyr.errors import ZephyrError
from zephyr.evaluate.tasks import examples_of, find, sources_of
from zephyr.model import base
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.schema import Recipe
from zephyr.records import Kind

_In = TypeVar("_In")
_Out = TypeVar("_Out")

PREVIEW = 1_000
"""Rows of a source that `check` reads."""


@dataclass(frozen=True)
class Need:
    """A source that a mixture takes or a task asks; `where` is its place in the recipe."""

    where: str
    source: SourceSpec
    kind: Kind
    use: Use


def needs(recipe: Recipe) -> list[Need]:
    """All sources of a recipe."""
    found = [
        Need(f"data.{name}", source, mixture.kind, "train")
        for name, mixture in recipe.data.items()
        for source in mixture.sources
    ]
    return found + [
        Need(f"evaluate.tasks.{task.key}", source, kind, "exam")
        for task in recipe.evaluate.tasks
        if (kind := find(task.name).asks) is not None
        for source in (*sources_of(task), *examples_of(task))
    ]


def wanted(recipe: Recipe, folder: Path) -> dict[hub.Wanted, str]:
    """The files of the hub that a recipe needs, each with the first place that names it."""
    found: dict[hub.Wanted, str] = {}
    for need in needs(recipe):
        if not sources.is_embedded(need.source, recipe.origin):
            files = sources.on_hub(need.source, need.use, need.where)
            if files is not None:
                found.setdefault(files, f"{need.where}.{sources.label(need.source)}")
    for name, model in recipe.models.items():
        files = base.on_hub(model.base, folder) if model.base is not None else None
        if files is not None:
            found.setdefault(files, f"models.{name}.base")
    return found


class Parcel(NamedTuple):
    """Files of the hub that are still to be brought, in bytes."""

    files: hub.Wanted
    where: str
    snapshot: hub.Snapshot
    missing: int


def outstanding(recipe: Recipe, folder: Path, *, again: bool = False) -> list[Parcel]:
    """What a recipe needs and has not been fetched yet; with `again`, whatever has moved too.

    Raises:
        ZephyrError: the hub can't be reached, or refuses something.
    """
    todo = [
        (files, where)
        for files, where in wanted(recipe, folder).items()
        if again or hub.remembered(files) is None
    ]
    found = _each(lambda item: hub.ask(*item), todo)
    return [
        Parcel(files, where, snapshot, hub.missing(files, snapshot))
        for (files, where), snapshot in zip(todo, found, strict=True)
    ]


def bring(parcels: list[Parcel], progress: Callable[[int], None] = lambda count: None) -> None:
    """Fetches files; what was brought before a failure is kept."""
    for parcel in parcels:
        hub.fetch(parcel.files, parcel.snapshot, parcel.where, progress)


class State(NamedTuple):
    """Whether a source or a base model is at hand, in words; `problem` says why it can't be had.

    `registered` is its row of the table, `own` says that Zephyr makes its rows itself.
    """

    where: str
    name: str
    registered: Source | None
    expected: int | None
    """Rows of the split, where the table knows them."""
    said: str
    problem: ZephyrError | None = None
    own: bool = False


def check(recipe: Recipe, folder: Path) -> list[State]:
    """The state of every source and base of a recipe; reads the first rows of those at hand."""
    asked = _Asked()
    states = _each(lambda need: _source_state(need, recipe, folder, asked), needs(recipe))
    bases = [(f"models.{n}.base", m.base) for n, m in recipe.models.items() if m.base is not None]
    return states + _each(lambda named: _base_state(*named, folder, asked), bases)


class _Asked:
    """Asks the hub; where the first question finds no way to it, no other is asked."""

    def __init__(self) -> None:
        self._unreachable: hub.Unreachable | None = None
        self._first = Lock()
        self._reached = False

    def said(self, files: hub.Wanted, where: str) -> str:
        """How much there is to fetch, in words."""
        with nullcontext() if self._reached else self._first:
            if self._unreachable is not None:
                raise self._unreachable
            try:
                snapshot = hub.ask(files, where)
            except hub.Unreachable as error:
                self._unreachable = error
                raise
            finally:
                self._reached = True
        return f"on the hub, {hub.missing(files, snapshot) / 1e6:,.1f} MB to fetch"


def _source_state(need: Need, recipe: Recipe, folder: Path, asked: _Asked) -> State:
    source, where = need.source, need.where
    named = sources.label(source)
    embedded = sources.is_embedded(source, recipe.origin)
    registered = SOURCES.get(source.name or "")
    expected = None
    try:
        if registered is not None and not embedded:
            expected = registered.splits.get(sources.split_of(source, registered, need.use, where))
        files = None if embedded else sources.on_hub(source, need.use, where)
        if files is not None and hub.remembered(files) is None:
            return State(where, named, registered, expected, asked.said(files, where))
        opened = sources.open_source(
            source, kind=need.kind, use=need.use, origin=recipe.origin, base=folder, where=where
        )
        tally = Tally(opened.label)
        for found in opened.read(range(min(len(opened.rows), PREVIEW))):
            tally.count(found)
    except ZephyrError as error:
        return State(where, named, registered, expected, error.problem, error)
    said = f"{len(opened.rows):,} rows {'made by Zephyr' if embedded else 'at hand'}"
    for reason, count in tally.unreadable.items():
        said += f"; {count} of the first {tally.seen:,} can't be read: {reason}"
    return State(where, named, registered, expected, said, own=embedded)


def _base_state(where: str, named: str, folder: Path, asked: _Asked) -> State:
    try:
        files = base.on_hub(named, folder)
        if files is not None and hub.remembered(files) is None:
            return State(where, named, None, None, asked.said(files, where))
        base.locate(named, folder, where)
    except ZephyrError as error:
        return State(where, named, None, None, error.problem, error)
    return State(where, named, None, None, "at hand")


def _each(work: Callable[[_In], _Out], items: list[_In]) -> list[_Out]:
    """The results in order; eight at a time, for most of the time is spent waiting."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, items))
