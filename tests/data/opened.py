"""Sources in memory, for tests: rows that hold a record, or the reason why they hold none."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from zephyr.data.contamination import Exams
from zephyr.data.forms import Form
from zephyr.data.mixture import Drawn, draw
from zephyr.data.readers.values import Columns, LeftOut, Unreadable
from zephyr.data.rows import Listed, Row
from zephyr.data.sources import Opened, Tally, open_source, read
from zephyr.recipe.data import MixtureSpec, SourceSpec, Use
from zephyr.records import Chat, Kind, Message, Record

NO_EXAMS = Exams([], 8)
BAD = "bad"
UNWANTED = "unwanted"


def _read(row: Columns, label: str) -> Iterator[Record | LeftOut]:
    for part in row["parts"]:
        if part == BAD:
            raise Unreadable("it is bad")
        yield LeftOut("nobody wants it") if part == UNWANTED else part


def opened(
    label: str, rows: Sequence[Record | str | Sequence[Record | str]], kind: Kind = "chat"
) -> Opened:
    """A source of these rows; one that is a sequence holds several records."""
    many = any(isinstance(row, list) for row in rows)
    values = [{"parts": row if isinstance(row, list) else [row]} for row in rows]
    listed = [Row(f"{label}.jsonl:{n}", value) for n, value in enumerate(values, start=1)]
    return Opened(label, kind, Listed(listed), Form(kind, ("parts",), _read, many=many), None)


def chats(source: str, count: int, *, asked: int = 10**9, first: int = 0) -> list[Record]:
    """Records that differ, about `asked` questions."""
    return [
        Chat(source, (Message("user", f"{n % asked}?"), Message("assistant", f"{n}.")))
        for n in range(first, first + count)
    ]


def drawn(
    sources: Sequence[Opened],
    seed: int = 1,
    caps: dict[str, int] | None = None,
    exams: Exams = NO_EXAMS,
    **settings: object,
) -> Drawn:
    """A mixture of these sources, each perhaps with a cap of its own."""
    caps = caps or {}
    listed = [{"name": source.label, "cap": caps.get(source.label)} for source in sources]
    kind = sources[0].kind
    spec = MixtureSpec.model_validate({"kind": kind, "sources": listed, **settings})
    return draw(spec, sources, seed=seed, exams=exams)


def ids(got: Drawn, source: str) -> set[str]:
    return {r.id for side in got.split for r in side if r.source == source}


def read_source(
    source: SourceSpec, kind: Kind, folder: Path, *, use: Use = "train"
) -> tuple[list[Record], Tally]:
    """All records of a source of a recipe that lies in a folder, and what became of its rows."""
    where = f"data.{source.name or source.path}"
    found = open_source(source, kind=kind, use=use, origin=None, base=folder, where=where)
    return read(found)
