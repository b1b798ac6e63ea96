"""Rows of a local file: JSON, JSONL, CSV, TSV, Parquet or plain text, each also gzipped."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError

FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".raw", ".tokens")


class Row(NamedTuple):
    """One row with the place where it stands; `value` is None where it can't be read, and why."""

    place: str
    value: dict[str, Any] | None
    problem: str = ""


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, where: str) -> str:
    """The format of a file, by its name without `.gz`.

    Raises:
        ZephyrError: the file is not there, or of another format.
    """
    if not path.is_file():
        raise ZephyrError(
            "a file is not there",
            where=where,
            found=str(path),
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
    return ending


def read_rows(path: Path, where: str) -> Iterator[Row]:
    """All rows of a file in order.

    A row that can't be read is given with the reason. Lines end in `\\n` alone, for texts may hold
    other characters that Unicode counts as line ends.

    Raises:
        ZephyrError: the file as a whole can't be read.
    """
    ending = check(path, where)
    if ending == ".parquet":
        yield from _parquet(path, where)
        return
    text = _text(path, where)
    if not text.strip():
        raise ZephyrError("a file is empty", where=where, found=str(path))
    match ending:
        case ".json":
            yield from _json(path, text)
        case ".jsonl":
            yield from _json_lines(path, text)
        case ".csv" | ".tsv":
            yield from _table(path, text, "," if ending == ".csv" else "\t")
        case _:
            yield Row(str(path), {"text": text})


def _text(path: Path, where: str) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ZephyrError(
            "a packed file is damaged or cut short", where=where, found=f"{path}: {error}"
        ) from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ZephyrError(
            "a file is not UTF-8",
            where=f"{path}:{line}",
            found=str(error),
            todo="save it as UTF-8",
        ) from error


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
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


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            yield Row(place, None, "not valid JSON")
            continue
        yield _row(place, value)


def _row(place: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(place, value)
    return Row(place, None, "not an object with named columns")


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    lines = io.StringIO(text, newline="")
    if delimiter == ",":
        reader = csv.DictReader(lines)
    else:
        reader = csv.DictReader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    try:
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                yield Row(place, None, "not as many columns as the first line names")
            else:
                yield Row(place, dict(row))
    except csv.Error as error:
        raise ZephyrError(
            "a table can't be read", where=f"{path}:{reader.line_num}", found=str(error)
        ) from error


def _parquet(path: Path, where: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", value)
    except (pyarrow.ArrowException, OSError) as error:
        raise ZephyrError(
            "a Parquet file is damaged or cut short", where=where, found=f"{path}: {error}"
        ) from error
