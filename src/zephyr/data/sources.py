"""How a source of a recipe becomes records, wherever its rows lie.

A source is a row of the table (on the hub, or made by Zephyr itself where the recipe's origin is
`embedded`), any other data set of the hub, or a file of one's own, which is read by the form of its
columns.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.data import course, files, hub
from zephyr.data.cache import content_sha256
from zephyr.data.forms import Form, form_of
from zephyr.data.readers.values import LeftOut, Unreadable
from zephyr.data.rows import Joined, Listed, Numbers, Renamed, Row, Rows
from zephyr.data.table import SOURCES, Hub, Source
from zephyr.errors import ZephyrError, unknown
from zephyr.recipe.data import SourceSpec, Use
from zephyr.records import Choice, Kind, Pair, Record


class Found(NamedTuple):
    """One thing in a row (`part` counts those of a row): a record, or why there is none.

    `left_out` is the reason for which it is not wanted, `unreadable` that for which the row is not
    what its source promises.
    """

    row: int
    part: int
    place: str
    record: Record | None
    left_out: str = ""
    unreadable: str = ""


@dataclass(frozen=True)
class Opened:
    """A source whose rows are at hand; `form` is None where none of them can be read."""

    label: str
    kind: Kind
    rows: Rows
    form: Form | None
    registered: Source | None

    def read(self, numbers: Numbers) -> Iterator[Found]:
        """What is in the rows of these numbers, in their order."""
        columns = (*self.form.columns, *self.form.optional) if self.form is not None else None
        for number, row in zip(numbers, self.rows.take(numbers, columns), strict=True):
            yield from self._found(int(number), row)

    def _found(self, number: int, row: Row) -> Iterator[Found]:
        if row.value is None or self.form is None:
            yield Found(number, 0, row.place, None, unreadable=row.problem)
            return
        try:
            parts = list(self.form.reader(row.value, self.label))
        except Unreadable as error:
            yield Found(number, 0, row.place, None, unreadable=str(error))
        except LeftOut as error:
            yield Found(number, 0, row.place, None, left_out=str(error))
        else:
            for i, part in enumerate(parts):
                if isinstance(part, LeftOut):
                    yield Found(number, i, row.place, None, left_out=str(part))
                else:
                    yield Found(number, i, row.place, self._finished(part))

    def _finished(self, record: Record) -> Record:
        if isinstance(record, Pair) and self.registered is not None:
            return replace(record, aspect=self.registered.aspect)
        if isinstance(record, Choice) and self.kind == "chat":
            return course.as_chat(record)
        return record


@dataclass
class Tally:
    """What was seen of a source. Reasons are counted; `first_bad` is where each came up first."""

    label: str
    seen: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first_bad: dict[str, str] = field(default_factory=dict)

    def count(self, found: Found) -> None:
        """Counts one thing of a row."""
        self.seen += 1
        if found.left_out:
            self.left_out[found.left_out] += 1
        if found.unreadable:
            self.unreadable[found.unreadable] += 1
            self.first_bad.setdefault(found.unreadable, found.place)

    def refuse_unreadable(self, allowed: float) -> None:
        """
        Raises:
            ZephyrError: more than the allowed share of rows can't be read, or none of them.
        """
        bad = sum(self.unreadable.values())
        if bad > allowed * max(self.seen, 1) or (bad and bad == self.seen):
            reasons = ", ".join(f"{count} x {why}" for why, count in self.unreadable.most_common(5))
            raise ZephyrError(
                f"too many rows of source {self.label!r} can't be read",
                where=next(iter(self.first_bad.values())),
                found=f"{bad} of {self.seen} rows: {reasons}",
                allowed=f"a share of {allowed:g} (`unreadable`)",
                todo="mend the rows, map their names with `columns`, or raise `unreadable`",
            )


def read(opened: Opened) -> tuple[list[Record], Tally]:
    """All records of a source in order, and what became of its rows."""
    tally = Tally(opened.label)
    records: list[Record] = []
    block = 8192
    for start in range(0, len(opened.rows), block):
        for found in opened.read(range(start, min(start + block, len(opened.rows)))):
            tally.count(found)
            if found.record is not None:
                records.append(found.record)
    return records, tally


def label(source: SourceSpec) -> str:
    """The name under which a source's records are known: its own, or its file's or data set's."""
    return source.name or Path(source.path or str(source.hub)).name.split(".")[0]


def open_source(
    source: SourceSpec, *, kind: Kind, use: Use, origin: str | None, base: Path, where: str
) -> Opened:
    """Finds the rows of a source of a recipe and how they are read; `base` is the recipe's folder.

    Raises:
        ZephyrError: the source is unknown, of another kind, not at hand, or of no known form.
    """
    registered = _registered(source, kind, where)
    rows: Rows
    if is_embedded(source, origin):
        assert registered is not None
        rows = _embedded(registered, split_of(source, registered, use, where))
    else:
        parts = [files.open_rows(path, where) for path in _paths(source, use, base, where)]
        rows = Renamed(Joined(parts), source.columns or {})
    header = rows.header()
    if header is None:
        return Opened(label(source), kind, rows, None, registered)
    wanted = registered.kind if registered is not None else kind
    form = form_of(header.columns, wanted, registered, f"{where}, {header.place}")
    return Opened(label(source), kind, rows, form, registered)


def fingerprint(
    source: SourceSpec, *, use: Use, origin: str | None, base: Path, where: str
) -> dict[str, Any]:
    """What enters a fingerprint for a source, without reading its rows: hashes of its content.

    Raises:
        ZephyrError: the source is unknown, or not at hand.
    """
    registered = _registered(source, None, where)
    if is_embedded(source, origin):
        from zephyr.data import embedded

        assert registered is not None
        split = split_of(source, registered, use, where)
        return {"embedded": embedded.VERSION, "split": split}
    if (wanted := on_hub(source, use, where)) is not None:
        hashes = [file.sha256 for file in _remembered(source, wanted, where).files]
    else:
        paths = _paths(source, use, base, where)
        for path in paths:
            files.check(path, where)
        hashes = [content_sha256(path) for path in paths]
    return {"sha256": hashes if len(hashes) > 1 else hashes[0]}


def on_hub(source: SourceSpec, use: Use, where: str) -> hub.Wanted | None:
    """The files of the hub that hold a source of a recipe; None for one that has a `path`.

    Raises:
        ZephyrError: the source is unknown, or on no hub, or has no such split.
    """
    if source.path is not None:
        return None
    registered = _registered(source, None, where)
    place = Hub(source.hub) if source.hub is not None else registered and registered.hub
    if not place:
        assert registered is not None
        raise ZephyrError(
            f"source {registered.name!r} is on no hub",
            where=where,
            found=registered.licence,
            todo="give the `path:` of your own file, or set `origin: embedded`",
        )
    if source.config is not None:
        place = replace(place, config=source.config)
    split = split_of(source, registered, use, where)
    if source.files is not None:
        return hub.Wanted(place.id, (source.files,), source.revision or "main")
    return hub.Wanted(place.id, (place.pattern(split),), source.revision or place.revision)


def _remembered(source: SourceSpec, wanted: hub.Wanted, where: str) -> hub.Snapshot:
    """What has been fetched of a source.

    Raises:
        ZephyrError: nothing has been.
    """
    snapshot = hub.remembered(wanted)
    if snapshot is None:
        raise ZephyrError(
            f"source {label(source)!r} has not been fetched",
            where=where,
            found=f"it is on the hub: {wanted.repo} at {wanted.revision}",
            todo="zephyr data fetch RECIPE, or give the `path:` of a file of yours",
        )
    return snapshot


def _paths(source: SourceSpec, use: Use, base: Path, where: str) -> list[Path]:
    if source.path is not None:
        return files.find(base, source.path, where)
    wanted = on_hub(source, use, where)
    assert wanted is not None
    return hub.paths(wanted, _remembered(source, wanted, where))


def _registered(source: SourceSpec, kind: Kind | None, where: str) -> Source | None:
    registered = SOURCES.get(source.name) if source.name is not None else None
    if registered is None and source.path is None and source.hub is None:
        todo = "name one of these, or give a `path:` or a `hub:` of your own"
        raise unknown("source", str(source.name), SOURCES, where=where, todo=todo)
    if registered is None or kind in (None, registered.kind):
        return registered
    if (kind, registered.kind) == ("chat", "choice"):
        return registered  # questions become chats in one form, see `course.as_chat`
    raise ZephyrError(
        f"source {registered.name!r} is of another kind",
        where=where,
        found=registered.kind,
        allowed=kind,
    )


def split_of(source: SourceSpec, registered: Source | None, use: Use, where: str) -> str:
    """The split that is read.

    Raises:
        ZephyrError: a mixture would train on what tasks ask, or there is nothing to train on.
    """
    same = [s for s in SOURCES.values() if s.hub is not None and s.hub.id == source.hub]
    exams = {s.exam for s in (registered, *same) if s is not None}
    if use == "exam":
        return source.split or (registered and (registered.exam or registered.train)) or "test"
    split = source.split or (registered.train if registered is not None else "train")
    if split is None or split in exams or "test" in split:
        splits = registered.splits if registered is not None else ()
        raise ZephyrError(
            f"split {split!r} of source {label(source)!r} is for tests, and never trained on",
            where=where,
            allowed=[name for name in splits if name not in exams and "test" not in name] or None,
        )
    return split


def is_embedded(source: SourceSpec, origin: str | None) -> bool:
    """Whether Zephyr makes the rows of a source itself."""
    return origin == "embedded" and source.path is None and source.hub is None


def _embedded(registered: Source, split: str) -> Rows:
    from zephyr.data import embedded

    made = enumerate(embedded.rows(registered.name, split), start=1)
    place = f"embedded {registered.name}/{split}"
    return Listed([Row(f"{place} row {number}", value) for number, value in made])
