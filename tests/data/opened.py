"""Sources in memory, for tests: rows that hold a record, or the reason why they hold none."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from zephyr.data.column_formats import ColumnFormat
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.mixture import BuiltMixture, build_mixture
from zephyr.data.readers.parsing import RowValues, SkippedRecord, UnreadableRowError
from zephyr.data.rows import InMemoryRows, SourceRow
from zephyr.data.sources import OpenedSource, ReadStats, open_source, read_records
from zephyr.recipe.data import MixtureSpec, SourceSpec, Use
from zephyr.records import Chat, Message, Record, RecordKind

NO_EXAMS = EvalQuestionIndex([], 8)
BAD = "bad"
UNWANTED = "unwanted"


def _read(row: RowValues, label: str) -> Iterator[Record | SkippedRecord]:
    for part in row["parts"]:
        if part == BAD:
            raise UnreadableRowError("it is bad")
        yield SkippedRecord("nobody wants it") if part == UNWANTED else part


def opened(
    label: str, rows: Sequence[Record | str | Sequence[Record | str]], kind: RecordKind = "chat"
) -> OpenedSource:
    """A source of these rows; one that is a sequence holds several records."""
    many = any(isinstance(row, list) for row in rows)
    values = [{"parts": row if isinstance(row, list) else [row]} for row in rows]
    listed = [SourceRow(f"{label}.jsonl:{n}", value) for n, value in enumerate(values, start=1)]
    return OpenedSource(
        label,
        kind,
        InMemoryRows(listed),
        ColumnFormat(kind, ("parts",), _read, has_many_records=many),
        None,
    )


def chats(source: str, count: int, *, asked: int = 10**9, first: int = 0) -> list[Record]:
    """Records that differ, about `asked` questions."""
    return [
        Chat(source, (Message("user", f"{n % asked}?"), Message("assistant", f"{n}.")))
        for n in range(first, first + count)
    ]


def drawn(
    sources: Sequence[OpenedSource],
    seed: int = 1,
    caps: dict[str, int] | None = None,
    exams: EvalQuestionIndex = NO_EXAMS,
    **settings: object,
) -> BuiltMixture:
    """A mixture of these sources, each perhaps with a cap of its own."""
    caps = caps or {}
    listed = [{"name": source.label, "cap": caps.get(source.label)} for source in sources]
    kind = sources[0].kind
    spec = MixtureSpec.model_validate({"kind": kind, "sources": listed, **settings})
    return build_mixture(spec, sources, seed=seed, question_index=exams)


def ids(got: BuiltMixture, source: str) -> set[str]:
    return {r.id for side in got.split for r in side if r.source == source}


def read_source(
    source: SourceSpec, kind: RecordKind, folder: Path, *, use: Use = "train"
) -> tuple[list[Record], ReadStats]:
    """All records of a source of a recipe that lies in a folder, and what became of its rows."""
    where = f"data.{source.name or source.path}"
    found = open_source(source, kind=kind, use=use, origin=None, base=folder, where=where)
    return read_records(found)
