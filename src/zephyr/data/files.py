"""Rows of a local file: JSON, JSONL, CSV, TSV, Parquet or plain text, each also gzipped."""

import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from collections import Counter
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
    if not os.access(path, os.R_OK):
        raise ZephyrError("a file may not be read", where=where, found=str(path))
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


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
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
        except (ValueError, RecursionError):
            yield Row(place, None, "not valid JSON")
            continue
        yield _row(place, value)


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
    except UnicodeEncodeError:
        return False
    return True


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    lines = io.StringIO(text, newline="")
    if delimiter == ",":
        reader = csv.reader(lines, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    names: list[str] = []
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
        if not cells:
            continue
        if not names:
            names = cells
            _refuse_twice(names, place)
        elif len(cells) != len(names):
            yield Row(place, None, "not as many columns as the first line names")
        else:
            yield Row(place, dict(zip(names, cells, strict=True)))


def _refuse_twice(names: list[str], place: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ZephyrError(
            "a table names a column twice", where=place, found=", ".join(map(repr, twice))
        )


def _parquet(path: Path, where: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    packed = path.suffix == ".gz"
    place = pyarrow.BufferReader(_unpacked(path, where)) if packed else path
    try:
        with pyarrow.parquet.ParquetFile(place) as file:
            number = 0
            for batch in file.iter_batches():
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", value)
    except (pyarrow.ArrowException, OSError) as error:
        raise ZephyrError(
            "a Parquet file is damaged or cut short", where=where, found=f"{path}: {error}"
        ) from error
