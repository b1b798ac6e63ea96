"""Local data set loader: rows of JSON, JSONL, CSV, TSV, Parquet or text files, gzipped or not."""

import csv
import fnmatch
import gzip
import io
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from zephyr.data.rows import Header, InMemoryRows, RowNumbers, Rows, SourceRow
from zephyr.errors import ZephyrError

FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".raw", ".tokens")


def find_files(base: Path, path: str, where: str) -> list[Path]:
    """Finds the files that a recipe's `path` names, in order; it may be a glob with `*` and `?`.

    Raises:
        ZephyrError: there is none.
    """
    name = Path(path).name
    if not set("*?") & set(name):
        return [base / path]
    folder = (base / path).parent
    paths = folder.iterdir() if folder.is_dir() else ()
    matching_files = sorted(p for p in paths if fnmatch.fnmatchcase(p.name, name) and p.is_file())
    if not matching_files:
        raise ZephyrError("no file has a name of this pattern", where=where, found=str(base / path))
    return matching_files


def check_format(path: Path, where: str) -> str:
    """Checks that a file can be read, and returns its format: its suffix without `.gz`.

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
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise ZephyrError(
            "a file is of no format that can be read",
            where=where,
            found=path.name,
            allowed=[*FILE_SUFFIXES, "and each with .gz"],
        )
    if path.stat().st_size == 0:
        raise ZephyrError("a file is empty", where=where, found=str(path))
    if not os.access(path, os.R_OK):
        raise ZephyrError("a file may not be read", where=where, found=str(path))
    return suffix


def open_rows(path: Path, where: str) -> Rows:
    """Opens (loads) the rows of a file, by its format.

    Only `\\n` ends a line: texts may hold other characters that Unicode counts as line ends.

    Raises:
        ZephyrError: the file as a whole can't be read.
    """
    suffix = check_format(path, where)
    if suffix == ".parquet":
        return ParquetRows(path, where)
    text = _read_text(path, where)
    if not text.strip():
        raise ZephyrError("a file is empty", where=where, found=str(path))
    match suffix:
        case ".json" if _is_json_lines(text):
            return JsonLinesRows(path, text)
        case ".json":
            return InMemoryRows(list(_read_json_rows(path, text)))
        case ".jsonl":
            return JsonLinesRows(path, text)
        case ".csv" | ".tsv":
            return InMemoryRows(list(_read_table(path, text, suffix)))
        case _:
            return InMemoryRows([SourceRow(str(path), {"text": text})])


def _read_bytes(path: Path, where: str) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ZephyrError(
            "a packed file is damaged or cut short", where=where, found=f"{path}: {error}"
        ) from error


def _read_text(path: Path, where: str) -> str:
    data = _read_bytes(path, where)
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


class JsonLinesRows(Rows):
    """Rows of a JSONL file: one JSON object a line, parsed lazily."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        lines = text.split("\n")
        self._lines = [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    def take(self, numbers: RowNumbers, columns: Collection[str] | None = None) -> list[SourceRow]:
        return [self._parse_line(*self._lines[number]) for number in numbers]

    def _parse_line(self, number: int, line: str) -> SourceRow:
        location = f"{self._path}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # a number of 5,000 digits is a ValueError
            return SourceRow(location, None, "not valid JSON")
        return _make_row(location, value)


def _is_json_lines(text: str) -> bool:
    """Whether a file called .json is JSONL (one object a line), as in many data sets."""
    first_lines = text.lstrip().split("\n", 2)[:2]
    try:
        return len(first_lines) == 2 and all(
            isinstance(json.loads(line), dict) for line in first_lines
        )
    except (ValueError, RecursionError):
        return False


def _read_json_rows(path: Path, text: str) -> Iterator[SourceRow]:
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
        yield _make_row(f"{path} row {number}", row)


def _make_row(location: str, value: Any) -> SourceRow:
    if not isinstance(value, dict):
        return SourceRow(location, None, "not an object with named columns")
    if not _is_unicode(value):
        return SourceRow(location, None, "half a character (a surrogate without its other half)")
    return SourceRow(location, value)


def _is_unicode(value: Any) -> bool:
    """Whether a JSON value can be encoded as UTF-8 (`\\ud83d` alone is valid JSON, but can't)."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


_DELIMITERS = (",", ";", "\t", "|")
"""Delimiters of a .csv file, the likeliest first: in much of Europe Excel writes semicolons."""

_Record = tuple[str, list[str]]
"""The location of a record of a table, and its cells."""


def _read_table(path: Path, text: str, suffix: str) -> Iterator[SourceRow]:
    """Reads a CSV or TSV table whose first record names its columns; in TSV quotes are text.

    What Excel leaves at the ends is no data: records of blank cells, and columns without a name
    that are blank in every record.
    """
    records = _read_tsv_records(path, text) if suffix == ".tsv" else _read_csv_records(path, text)
    filled_records = (r for r in records if len(r[1]) == 1 or any(map(str.strip, r[1])))
    location, header = next(filled_records, ("", []))
    names = [name.strip() for name in header]
    rows = [(location, _trim_cells(cells, len(names))) for location, cells in filled_records]
    used = [
        at
        for at, name in enumerate(names)
        if name or any(len(cells) > at and cells[at].strip() for _, cells in rows)
    ]
    _check_unique_columns([names[at] for at in used], location)
    for location, cells in rows:
        if len(cells) > len(names) or not len(cells) > max(used, default=-1):
            yield SourceRow(location, None, "not as many columns as the first line names")
        else:
            value = {names[at]: cells[at] for at in used}
            yield SourceRow(location, value, has_text_cells=True)


def _trim_cells(cells: list[str], count: int) -> list[str]:
    """Drops blank cells beyond the last column."""
    while len(cells) > count and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _read_tsv_records(path: Path, text: str) -> Iterator[_Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.removesuffix("\r"):
            yield f"{path}:{number}", line.split("\t")


def _read_csv_records(path: Path, text: str, delimiter: str | None = None) -> Iterator[_Record]:
    """Reads the records of a CSV file; Excel's line `sep=;` names the delimiter, else it is found.

    Raises:
        ZephyrError: a quotation mark is not closed.
    """
    csv.field_size_limit(1 << 30)
    skipped_lines = 0
    if delimiter is None:
        first_line, _, rest = text.partition("\n")
        if match := _EXCEL_DELIMITER.fullmatch(first_line.removesuffix("\r")):
            text, delimiter, skipped_lines = rest, match[1], 1
        else:
            delimiter = _find_delimiter(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    while True:
        location = f"{path}:{skipped_lines + reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ZephyrError(
                "a table can't be read",
                where=location,
                found=str(error),
                todo='look for a " that is not closed; within quotes it is written twice',
            ) from error
        if cells:
            yield location, cells


_EXCEL_DELIMITER = re.compile(r'"?sep=([^\w"\s]|\t)"?')


def _find_delimiter(path: Path, text: str) -> str:
    """The delimiter that cuts the header into several cells and most records into as many.

    A comma where none does, or where several do equally well.
    """
    best_delimiter, best_share = ",", 0.0
    for delimiter in _DELIMITERS:
        try:
            cuts = list(islice(_read_csv_records(path, text, delimiter), _DELIMITER_RECORDS))
        except ZephyrError:
            continue
        header, *records = [len(cells) for _, cells in cuts]
        share = (1 + records.count(header)) / (1 + len(records)) if header > 1 else 0.0
        if share > best_share:
            best_delimiter, best_share = delimiter, share
    return best_delimiter


_DELIMITER_RECORDS = 100
"""Records by which the delimiter is found."""


def _check_unique_columns(names: list[str], location: str) -> None:
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    if duplicates == [""]:
        raise ZephyrError(
            "several columns of a table have cells and no name",
            where=location,
            todo="name them in the first line, or empty them",
        )
    if duplicates:
        raise ZephyrError(
            "a table names a column twice", where=location, found=", ".join(map(repr, duplicates))
        )


class ParquetRows(Rows):
    """Rows of a Parquet file; only the requested row groups and columns are read."""

    def __init__(self, path: Path, where: str) -> None:
        import pyarrow
        import pyarrow.parquet

        self._path = path
        self._where = where
        self._errors = (pyarrow.ArrowException, OSError)
        data = pyarrow.py_buffer(_read_bytes(path, where)) if path.suffix == ".gz" else None

        def open_parquet() -> Any:
            return pyarrow.parquet.ParquetFile(path if data is None else pyarrow.BufferReader(data))

        self._open = open_parquet
        with self._open_file() as file:
            self._names = tuple(file.schema_arrow.names)
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            self._starts = np.cumsum([0, *(group.num_rows for group in groups)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def header(self) -> Header | None:
        return Header(f"{self._path} row 1", frozenset(self._names)) if len(self) else None

    def take(self, numbers: RowNumbers, columns: Collection[str] | None = None) -> list[SourceRow]:
        row_numbers = np.asarray(numbers, dtype=np.int64)
        present_columns = (
            None if columns is None else [name for name in self._names if name in columns]
        )
        if present_columns == []:  # of several files, one may have none of these columns
            return [SourceRow(f"{self._path} row {number + 1}", {}) for number in row_numbers]
        group_of = np.searchsorted(self._starts, row_numbers, side="right") - 1
        row_by_position: dict[int, SourceRow] = {}
        with self._open_file() as file:
            for group in np.unique(group_of):
                positions = np.flatnonzero(group_of == group)
                table = file.read_row_group(group, columns=present_columns)
                rows = table.take(row_numbers[positions] - self._starts[group])
                for position, (value, problem) in zip(
                    positions.tolist(), _row_values(rows), strict=True
                ):
                    row_by_position[position] = SourceRow(
                        f"{self._path} row {row_numbers[position] + 1}", value, problem
                    )
        return [row_by_position[place] for place in range(len(row_numbers))]

    @contextmanager
    def _open_file(self) -> Iterator[Any]:
        try:
            with self._open() as file:
                yield file
        except self._errors as error:
            raise ZephyrError(
                "a Parquet file can't be read",
                where=self._where,
                found=f"{self._path}: {error}",
            ) from error


def _row_values(table: Any) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Converts the rows of a table to dicts, one by one where one of them can't be read."""
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
