"""Source loader: opens the sources of a recipe (hub, file, synthetic) and reads their records.

A source is a registered one (on the hub, or synthetic if the recipe's origin is `embedded`), any
other data set of the hub, or a user's own file; the latter two are read by the format of their
columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from zephyr.data import files, hub, quiz_format
from zephyr.data.cache import content_sha256
from zephyr.data.column_formats import ColumnFormat, detect_format, find_unused_columns
from zephyr.data.read_stats import ReadStats, RowItem
from zephyr.data.readers.choice import QuizReader
from zephyr.data.readers.parsing import MISSING_VALUES, SkippedRecord, UnreadableRowError
from zephyr.data.rows import (
    ConcatenatedRows,
    InMemoryRows,
    RenamedColumns,
    RowNumbers,
    Rows,
    SourceRow,
)
from zephyr.data.table import SOURCES, HubLocation, RegisteredSource
from zephyr.errors import ZephyrError, unknown_name_error
from zephyr.recipe.data import SourceSpec, Use
from zephyr.records import Choice, Pair, Record, RecordKind


@dataclass(frozen=True)
class OpenedSource:
    """An opened source, ready to read; `column_format` is None if no row can be read.

    `unloaded_columns` are those of a Parquet file that no reader knows, and that are never loaded.
    """

    label: str
    kind: RecordKind
    rows: Rows
    column_format: ColumnFormat | None
    registered_source: RegisteredSource | None
    unloaded_columns: frozenset[str] = frozenset()

    def read(self, numbers: RowNumbers) -> Iterator[RowItem]:
        """Reads the items of these rows, in this order."""
        columns = self.column_format.all_columns if self.column_format is not None else None
        for number, row in zip(numbers, self.rows.take(numbers, columns), strict=True):
            yield from self._parse_row(int(number), row)

    def _parse_row(self, number: int, row: SourceRow) -> Iterator[RowItem]:
        if row.value is None or self.column_format is None:
            yield RowItem(number, 0, row.location, None, unreadable_reason=row.problem)
            return
        known_columns = self.column_format.all_columns
        values = row.value
        if row.has_text_cells and self.column_format.kind in ("chat", "pair"):
            values = {n: None if cell in MISSING_VALUES else cell for n, cell in values.items()}
        unused_columns = find_unused_columns(values, known_columns, self.kind)
        if self.registered_source is not None:  # what its reader is not said to read, it never sees
            values = {name: values[name] for name in known_columns if name in values}
        item = RowItem(number, 0, row.location, None, unused_columns=unused_columns)
        try:
            parts = list(self.column_format.reader(values, self.label))
        except UnreadableRowError as error:
            yield item._replace(unreadable_reason=str(error), todo=error.todo)
        except SkippedRecord as error:
            yield item._replace(skip_reason=str(error))
        else:
            for i, part in enumerate(parts):
                if isinstance(part, SkippedRecord):
                    yield item._replace(part=i, skip_reason=str(part))
                else:
                    yield item._replace(part=i, record=self._finish_record(part))
                item = item._replace(unused_columns=())

    def _finish_record(self, record: Record) -> Record:
        if isinstance(record, Pair) and self.registered_source is not None:
            return replace(record, aspect=self.registered_source.aspect)
        if isinstance(record, Choice) and self.kind == "chat":
            return quiz_format.quiz_to_chat(record)
        return record


def read_records(source: OpenedSource) -> tuple[list[Record], ReadStats]:
    """Reads all records of a source in order, and the counts of its rows by outcome."""
    stats = ReadStats(source.label)
    records: list[Record] = []
    block = 8192
    for start in range(0, len(source.rows), block):
        for item in source.read(range(start, min(start + block, len(source.rows)))):
            stats.count(item)
            if item.record is not None:
                records.append(item.record)
    return records, stats


def source_label(source: SourceSpec) -> str:
    """The label of a source in records and tables: its name, or that of its file or data set."""
    return source.name or Path(source.path or str(source.hub)).name.split(".")[0]


def open_source(
    source: SourceSpec, *, kind: RecordKind, use: Use, origin: str | None, base: Path, where: str
) -> OpenedSource:
    """Opens a source of a recipe: its rows and how they are read; `base` is the recipe's folder.

    Raises:
        ZephyrError: the source is unknown, not available, or of another kind or format.
    """
    registered_source = _find_registered(source, kind, where)
    rows: Rows
    if is_embedded(source, origin):
        assert registered_source is not None
        rows = _embedded_rows(registered_source, split_of(source, registered_source, use, where))
    else:
        parts = [files.open_rows(path, where) for path in _source_paths(source, use, base, where)]
        rows = RenamedColumns(ConcatenatedRows(parts), source.columns or {})
    header = rows.header()
    if header is None:
        return OpenedSource(source_label(source), kind, rows, None, registered_source)
    expected_kind = registered_source.kind if registered_source is not None else kind
    form = detect_format(
        header.columns, expected_kind, registered_source, f"{where}, {header.location}"
    )
    form = _resolve_answer_key(form, source, rows, where)
    [first] = rows.take([0], form.all_columns)
    loaded_columns = header.columns if first.value is None else first.value.keys()
    return OpenedSource(
        source_label(source),
        kind,
        rows,
        form,
        registered_source,
        header.columns - loaded_columns,
    )


def _resolve_answer_key(
    form: ColumnFormat, source: SourceSpec, rows: Rows, where: str
) -> ColumnFormat:
    """The format of a quiz of one's own, whose reader knows how its keys are read.

    Raises:
        ZephyrError: the keys can be read in several ways, or `answer_key` is set of another source.
    """
    if not isinstance(form.reader, QuizReader):
        if source.answer_key is not None:
            raise ZephyrError(
                f"source {source_label(source)!r} has no keys that `answer_key` could say",
                where=where,
                found=f"columns {', '.join(form.columns)}",
                todo="leave `answer_key` out",
            )
        return form
    if source.name in SOURCES and source.answer_key is None:
        return form  # a registered source's keys are known
    columns = form.all_columns
    blocks = (
        rows.take(range(n, min(n + 8192, len(rows))), columns) for n in range(0, len(rows), 8192)
    )
    reader = form.reader.resolve(
        chain.from_iterable(blocks), source.answer_key, source_label(source), where
    )
    return replace(form, reader=reader)


READER_VERSION = 2
"""Version of how rows of users' own files, and of mixtures, become records: 2 reads `system` beside
any form, numbers and blank cells, quizzes with option columns and letters in their options."""


def source_fingerprint(
    source: SourceSpec, *, use: Use, origin: str | None, base: Path, where: str
) -> dict[str, Any]:
    """Fingerprints a source's content without reading its rows: file hashes, or the version.

    Raises:
        ZephyrError: the source is unknown, or not available on this machine.
    """
    registered_source = _find_registered(source, None, where)
    if is_embedded(source, origin):
        from zephyr.data import embedded

        assert registered_source is not None
        split = split_of(source, registered_source, use, where)
        return {"embedded": embedded.VERSION, "split": split}
    if (wanted := hub_query(source, use, where)) is not None:
        hashes = [file.sha256 for file in _cached_snapshot(source, wanted, where).files]
    else:
        paths = _source_paths(source, use, base, where)
        for path in paths:
            files.check_format(path, where)
        hashes = [content_sha256(path) for path in paths]
    content = {"sha256": hashes if len(hashes) > 1 else hashes[0]}
    is_read_anew = registered_source is None or use == "train"
    return content | ({"reader": READER_VERSION} if is_read_anew else {})


def hub_query(source: SourceSpec, use: Use, where: str) -> hub.HubQuery | None:
    """The hub query for the files of a source of a recipe; None for one that has a `path`.

    Raises:
        ZephyrError: the source is unknown, or on no hub, or has no such split.
    """
    if source.path is not None:
        return None
    registered_source = _find_registered(source, None, where)
    location = (
        HubLocation(source.hub)
        if source.hub is not None
        else registered_source and registered_source.hub
    )
    if not location:
        assert registered_source is not None
        raise ZephyrError(
            f"source {registered_source.name!r} is on no hub",
            where=where,
            found=registered_source.licence,
            todo="give the `path:` of your own file, or set `origin: embedded`",
        )
    if source.config is not None:
        location = replace(location, config=source.config)
    split = split_of(source, registered_source, use, where)
    if source.files is not None:
        return hub.HubQuery(location.id, (source.files,), source.revision or "main")
    return hub.HubQuery(
        location.id, (location.pattern(split),), source.revision or location.revision
    )


def _cached_snapshot(source: SourceSpec, query: hub.HubQuery, where: str) -> hub.Snapshot:
    """The cached hub snapshot of a source.

    Raises:
        ZephyrError: it has not been downloaded.
    """
    snapshot = hub.cached_snapshot(query)
    if snapshot is None:
        raise ZephyrError(
            f"source {source_label(source)!r} has not been fetched",
            where=where,
            found=f"it is on the hub: {query.repo} at {query.revision}",
            todo="zephyr data fetch RECIPE, or give the `path:` of a file of yours",
        )
    return snapshot


def _source_paths(source: SourceSpec, use: Use, base: Path, where: str) -> list[Path]:
    if source.path is not None:
        return files.find_files(base, source.path, where)
    query = hub_query(source, use, where)
    assert query is not None
    return hub.snapshot_paths(query, _cached_snapshot(source, query, where))


def _find_registered(
    source: SourceSpec, kind: RecordKind | None, where: str
) -> RegisteredSource | None:
    registered_source = SOURCES.get(source.name) if source.name is not None else None
    if registered_source is None and source.path is None and source.hub is None:
        todo = "name one of these, or give a `path:` or a `hub:` of your own"
        raise unknown_name_error("source", str(source.name), SOURCES, where=where, todo=todo)
    if registered_source is None or kind in (None, registered_source.kind):
        return registered_source
    if (kind, registered_source.kind) == ("chat", "choice"):
        return registered_source  # converted to chats, see `quiz_format.quiz_to_chat`
    raise ZephyrError(
        f"source {registered_source.name!r} is of another kind",
        where=where,
        found=registered_source.kind,
        allowed=kind,
    )


def split_of(
    source: SourceSpec, registered_source: RegisteredSource | None, use: Use, where: str
) -> str:
    """The split of a source to read; test splits are refused in training (data leakage).

    Raises:
        ZephyrError: a mixture would train on an evaluation split, or there is no training split.
    """
    same_repo_sources = [
        s for s in SOURCES.values() if s.hub is not None and s.hub.id == source.hub
    ]
    eval_splits = {s.eval_split for s in (registered_source, *same_repo_sources) if s is not None}
    if use == "exam":
        return (
            source.split
            or (
                registered_source
                and (registered_source.eval_split or registered_source.train_split)
            )
            or "test"
        )
    split = source.split or (
        registered_source.train_split if registered_source is not None else "train"
    )
    if split is None or split in eval_splits or "test" in split:
        splits = registered_source.splits if registered_source is not None else ()
        raise ZephyrError(
            f"split {split!r} of source {source_label(source)!r} is for tests, and never "
            "trained on",
            where=where,
            allowed=[name for name in splits if name not in eval_splits and "test" not in name]
            or None,
        )
    return split


def is_embedded(source: SourceSpec, origin: str | None) -> bool:
    """Whether the rows of a source are synthetic, made by Zephyr (`origin: embedded`)."""
    return origin == "embedded" and source.path is None and source.hub is None


def _embedded_rows(registered_source: RegisteredSource, split: str) -> Rows:
    from zephyr.data import embedded

    numbered_rows = enumerate(embedded.make_rows(registered_source.name, split), start=1)
    location = f"embedded {registered_source.name}/{split}"
    return InMemoryRows(
        [SourceRow(f"{location} row {number}", value) for number, value in numbered_rows]
    )
