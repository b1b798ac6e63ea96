"""Public data of the benchmarks: gzipped files below ZEPHYR_REAL_DATA."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.shared.environments import ROOT

DATA = Path(os.environ.get("ZEPHYR_REAL_DATA", ROOT.parent / "shared" / "data")).resolve()


def read_text(name: str) -> str:
    return gzip.decompress((DATA / f"{name}.gz").read_bytes()).decode()


def read_rows(name: str) -> Iterator[dict[str, Any]]:
    """Rows of a gzipped file of JSON lines."""
    return (json.loads(line) for line in read_text(f"{name}.jsonl").split("\n") if line)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes JSON lines for a worker process, and returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
