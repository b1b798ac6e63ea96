"""Rows of a local file: JSON, JSONL, CSV, TSV, Parquet or plain text, each also gzipped."""

import csv
import fnmatch
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zephyr.data.rows import Header, Listed, Numbers, Row, Rows
from zephyr.errors import ZephyrError

FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".raw", ".tokens")


def find(base: Path, path: str, where: str) -> list[Path]:
    """The files that a recipe's `path` names, which may hold `*` and `?`, in order.

    Raises:
        ZephyrError: there is none.
    """
    name = Path(path).name
    if not set("*?") & set(name):
        return [base / path]
    folder = (base / path).parent
    there = folder.iterdir() if folder.is_dir() else ()
    found = sorted(p for p in there if fnmatch.fnmatchcase(p.name, name) and p.is_file())
    if not found:
        raise ZephyrError("no file has a name of this pattern", where=where, found=str(base / path))
    return found


def check(path: Path, where: str) -> str:
    """The format of a file, by its name without `.gz`.

    Raises:
        ZephyrError: the file is not there, or of another format.
    """
    if len(str(path)) > 4_000 or not path.is_file():
        raise ZephyrError(
            "a file is not there",
            where=where,
            found=str(path)[:200],
            todo="mend `path`: it is taken from the folder of the recipe",
        )
    ending = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if ending not in FORMATS:
        raise ZephyrError(
            "a file is of no format that can be read",
            where=where,
            found=path.name,
            allowed=[*FORMATS, "and each with .gz"],
        )
    if path.stat().st_size == 0:
        raise ZephyrError("a file is empty", where=where, found=str(path))
    if not os.access(path, os.R_OK):
        raise ZephyrError("a file may not be read", where=where, found=str(path))
    return ending


def open_rows(path: Path, where: str) -> Rows:
    """The rows of a file.

    Lines end in `\\n` alone, for texts may hold other characters that Unicode counts as line ends.

    Raises:
        ZephyrError: the file as a whole can't be read.
    """
    ending = check(path, where)
    if ending == ".parquet":
        return Parquet(path, where)
    text = _text(path, where)
    if not text.strip():
        raise ZephyrError("a file is empty", where=where, found=str(path))
    match ending:
        case ".json" if _is_lines(text):
            return Lines(path, text)
        case ".json":
            return Listed(list(_json(path, text)))
        case ".jsonl":
            return Lines(path, text)
        case ".csv" | ".tsv":
            return Listed(list(_table(path, text, "," if ending == ".csv" else "\t")))
        case _:
            return Listed([Row(str(path), {"text": text})])


def _unpacked(path: Path, where: str) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ZephyrError(
            "a packed file is damaged or cut short", where=where, found=f"{path}: {error}"
        ) from error


def _text(path: Path, where: str) -> str:
    data = _unpacked(path, where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ZephyrError(
            "a file is not UTF-8",
            where=f"{path}:{line}",
            found=str(error),
            todo="save it as UTF-8",
        ) from error


class Lines(Rows):
    """JSONL: one JSON object a line, read when it is taken."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        lines = text.split("\n")
        self._lines = [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    def take(self, numbers: Numbers, columns: Collection[str] | None = None) -> list[Row]:
        return [self._row(*self._lines[number]) for number in numbers]

    def _row(self, number: int, line: str) -> Row:
        place = f"{self._path}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # a number of 5,000 digits is a ValueError
            return Row(place, None, "not valid JSON")
        return _row(place, value)


def _is_lines(text: str) -> bool:
    """Whether a file called .json holds an object a line, as many data sets do."""
    first = text.lstrip().split("\n", 2)[:2]
    try:
        return len(first) == 2 and all(isinstance(json.loads(line), dict) for line in first)
    except (ValueError, RecursionError):
        return False


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise ZephyrError(
            "a file is not valid JSON",
            where=f"{path}:{line}",
            found=str(error),
            todo="mend it, or name it .jsonl if each line is a value of its own",
        ) from error
    if not isinstance(value, list):
        raise ZephyrError(
            "a JSON file does not hold a list of rows",
            where=str(path),
            found=type(value).__name__,
            allowed="[{...}, {...}]",
        )
    for number, row in enumerate(value, start=1):
        yield _row(f"{path} row {number}", row)


def _row(place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(place, None, "not an object with named columns")
    if not _is_unicode(value):
        return Row(place, None, "half a character (a surrogate without its other half)")
    return Row(place, value)


def _is_unicode(value: Any) -> bool:
    """Whether a JSON value can be written: `\\ud83d` alone is valid JSON, and no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    """Rows of a table whose first line names its columns; between tabs quotes are text."""
    names: list[str] = []
    for place, cells in _tabs(path, text) if delimiter == "\t" else _commas(path, text):
        if not names:
            names = cells
            _refuse_twice(names, place)
        elif len(cells) != len(names):
            yield Row(place, None, "not as many columns as the first line names")
        else:
            yield Row(place, dict(zip(names, cells, strict=True)))


def _tabs(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.removesuffix("\r"):
            yield f"{path}:{number}", line.split("\t")


def _commas(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        place = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ZephyrError(
                "a table can't be read",
                where=place,
                found=str(error),
                todo='look for a " that is not closed; within quotes it is written twice',
            ) from error
        if cells:
            yield place, cells


def _refuse_twice(names: list[str], place: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ZephyrError(
            "a table names a column twice", where=place, found=", ".join(map(repr, twice))
        )


class Parquet(Rows):
    """A Parquet file, of which only the row groups and columns that are wanted are read."""

    def __init__(self, path: Path, where: str) -> None:
        import pyarrow
        import pyarrow.parquet

        self._path = path
        self._where = where
        self._errors = (pyarrow.ArrowException, OSError)
        data = pyarrow.py_buffer(_unpacked(path, where)) if path.suffix == ".gz" else None

        def opened() -> Any:
            return pyarrow.parquet.ParquetFile(path if data is None else pyarrow.BufferReader(data))

        self._open = opened
        with self._reading() as file:
            self._names = tuple(file.schema_arrow.names)
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            self._starts = np.cumsum([0, *(group.num_rows for group in groups)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def header(self) -> Header | None:
        return Header(f"{self._path} row 1", frozenset(self._names)) if len(self) else None

    def take(self, numbers: Numbers, columns: Collection[str] | None = None) -> list[Row]:
        wanted = np.asarray(numbers, dtype=np.int64)
        there = None if columns is None else [name for name in self._names if name in columns]
        if there == []:  # one of several files may have other columns: its rows lack them all
            return [Row(f"{self._path} row {number + 1}", {}) for number in wanted]
        group_of = np.searchsorted(self._starts, wanted, side="right") - 1
        taken: dict[int, Row] = {}
        with self._reading() as file:
            for group in np.unique(group_of):
                places = np.flatnonzero(group_of == group)
                table = file.read_row_group(group, columns=there)
                chosen = table.take(wanted[places] - self._starts[group])
                for place, (value, problem) in zip(places.tolist(), _values(chosen), strict=True):
                    taken[place] = Row(f"{self._path} row {wanted[place] + 1}", value, problem)
        return [taken[place] for place in range(len(wanted))]

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with self._open() as file:
                yield file
        except self._errors as error:
            raise ZephyrError(
                "a Parquet file can't be read",
                where=self._where,
                found=f"{self._path}: {error}",
            ) from error


def _values(table: Any) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """The rows of a table, each by itself where one of them can't be read."""
    unreadable = (UnicodeDecodeError, ArithmeticError, ValueError)
    try:
        yield from [(value, "") for value in table.to_pylist()]
        return
    except unreadable:
        pass
    for number in range(len(table)):
        try:
            [value] = table.slice(number, 1).to_pylist()
            yield value, ""
        except UnicodeDecodeError:
            yield None, "not UTF-8"
        except unreadable:
            yield None, "a value that is beyond its type"
