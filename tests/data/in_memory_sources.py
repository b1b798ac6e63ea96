"""In-memory sources for tests: rows that hold a record, or the reason why they hold none."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from zephyr.data.column_formats import ColumnFormat
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.mixture import BuiltMixture, build_mixture
from zephyr.data.read_stats import ReadStats
from zephyr.data.readers.parsing import RowValues, SkippedRecord, UnreadableRowError
from zephyr.data.rows import InMemoryRows, SourceRow
from zephyr.data.sources import OpenedSource, open_source, read_records
from zephyr.recipe.data import MixtureSpec, SourceSpec, Use
from zephyr.records import Chat, Message, Record, RecordKind

NO_EVAL_QUESTIONS = EvalQuestionIndex([], 8)
UNREADABLE = "bad"
SKIPPED = "unwanted"


def _read_parts(row: RowValues, label: str) -> Iterator[Record | SkippedRecord]:
    for part in row["parts"]:
        if part == UNREADABLE:
            raise UnreadableRowError("it is bad")
        yield SkippedRecord("nobody wants it") if part == SKIPPED else part


def make_source(
    label: str, rows: Sequence[Record | str | Sequence[Record | str]], kind: RecordKind = "chat"
) -> OpenedSource:
    """A source of these rows; one that is a sequence holds several records."""
    has_many_records = any(isinstance(row, list) for row in rows)
    values = [{"parts": row if isinstance(row, list) else [row]} for row in rows]
    source_rows = [
        SourceRow(f"{label}.jsonl:{n}", value) for n, value in enumerate(values, start=1)
    ]
    return OpenedSource(
        label,
        kind,
        InMemoryRows(source_rows),
        ColumnFormat(kind, ("parts",), _read_parts, has_many_records=has_many_records),
        None,
    )


def make_chats(
    source: str, count: int, *, num_questions: int = 10**9, first: int = 0
) -> list[Record]:
    """Records that differ, about `num_questions` questions."""
    return [
        Chat(source, (Message("user", f"{n % num_questions}?"), Message("assistant", f"{n}.")))
        for n in range(first, first + count)
    ]


def make_mixture(
    sources: Sequence[OpenedSource],
    seed: int = 1,
    caps: dict[str, int] | None = None,
    question_index: EvalQuestionIndex = NO_EVAL_QUESTIONS,
    **settings: object,
) -> BuiltMixture:
    """The mixture that is built of these sources, each perhaps with a cap of its own."""
    caps = caps or {}
    source_specs = [{"name": source.label, "cap": caps.get(source.label)} for source in sources]
    kind = sources[0].kind
    spec = MixtureSpec.model_validate({"kind": kind, "sources": source_specs, **settings})
    return build_mixture(spec, sources, seed=seed, question_index=question_index)


def record_ids(mixture: BuiltMixture, source: str) -> set[str]:
    return {r.id for side in mixture.split for r in side if r.source == source}


def read_source(
    source: SourceSpec, kind: RecordKind, folder: Path, *, use: Use = "train"
) -> tuple[list[Record], ReadStats]:
    """All records of a source of a recipe that lies in a folder, and what became of its rows."""
    where = f"data.{source.name or source.path}"
    opened_source = open_source(source, kind=kind, use=use, origin=None, base=folder, where=where)
    return read_records(opened_source)
