"""How long a mixture takes: the draw of D_S, decontamination and near-duplicates, on made-up rows.

python bench/data.py FOLDER [--out results/data.json]

FOLDER gets Parquet files of the published sizes (2.7 million rows, 1 GB), made once by a seed.
Planted among them are repeated rows, questions of tests, and near-duplicates, so that what is found
can be counted; times are those of one process on an otherwise idle machine.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from zephyr.data import sources
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.duplicates import find_near_duplicates
from zephyr.data.mixture import build_mixture
from zephyr.data.table import SOURCES
from zephyr.recipe.data import MixtureSpec, SourceSpec
from zephyr.records import Chat, Choice, Message, Record

CHARACTERS = {
    "khan_academy": 4500,
    "math_college": 3000,
    "arxiv_math": 1200,
    "magicoder": 2200,
    "goat": 120,
    "metamathqa": 900,
    "code_assistant": 1900,
    "lima": 2500,
    "open_platypus": 1400,
    "math_instruct": 600,
}
"""D_S, and about how long a row of each source is."""

CAP = 12_000
ROWS_OF_A_GROUP = 1_000
EXAMS = {"hellaswag": 10_042, "gsm8k": 1_319, "arc": 3_548, "mmlu": 14_042}
MANY = 115_000
PLANTED = 500


class Pool:
    """Sentences of words whose frequencies fall as those of a language do."""

    def __init__(self, seed: int, sentences: int = 60_000) -> None:
        self.random = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        lengths = self.random.integers(2, 11, 40_000)
        words = ["".join(self.random.choice(letters, n)) for n in lengths]
        ranks = np.minimum(self.random.zipf(1.15, sentences * 16) - 1, len(words) - 1)
        numbers = self.random.integers(0, 10_000, sentences * 2)
        self.sentences = [
            " ".join(words[w] for w in ranks[i * 16 : i * 16 + self.random.integers(6, 16)])
            + f" {numbers[2 * i]} {numbers[2 * i + 1]}."
            for i in range(sentences)
        ]
        self.mean = float(np.mean([len(s) + 1 for s in self.sentences]))

    def text(self, characters: float) -> str:
        count = max(1, self.random.poisson(characters / self.mean))
        return " ".join(
            self.sentences[i] for i in self.random.integers(0, len(self.sentences), count)
        )


def questions(pool: Pool) -> list[tuple[str, Record]]:
    """As many test questions as the evaluation sets have."""
    made: list[tuple[str, Record]] = []
    for task, count in EXAMS.items():
        for _ in range(count):
            asked = pool.text(220)
            options = tuple(pool.text(60) for _ in range(4))
            chat = Chat(task, (Message("user", asked), Message("assistant", options[0])))
            made.append((task, chat if task == "gsm8k" else Choice(task, asked, options, 0)))
    return made


def make_files(folder: Path) -> None:
    """Parquet files of the sources of D_S in their own columns and published sizes."""
    pool = Pool(1)
    for name, characters in CHARACTERS.items():
        path = folder / f"{name}.parquet"
        if path.exists():
            continue
        source = SOURCES[name]
        rows = source.splits["train"]
        assert rows is not None
        temporary = path.with_suffix(".tmp")
        writer = None
        for start in range(0, rows, ROWS_OF_A_GROUP):
            count = min(ROWS_OF_A_GROUP, rows - start)
            asked = [f"{start + i}: {pool.text(characters * 0.3)}" for i in range(count)]
            answered = [pool.text(characters * 0.7) for _ in range(count)]
            if name == "lima":
                pairs = [list(pair) for pair in zip(asked, answered, strict=True)]
                table = pyarrow.table({"conversations": pairs})
            else:
                first, second = source.columns[:2]
                table = pyarrow.table({first: asked, second: answered})
            writer = writer or pyarrow.parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
        temporary.replace(path)
        print(f"made {path.name}: {rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB")


def d_s(folder: Path) -> tuple[MixtureSpec, list[sources.OpenedSource]]:
    listed = tuple(SourceSpec(name=n, path=str(folder / f"{n}.parquet")) for n in CHARACTERS)
    mixture = MixtureSpec(kind="chat", sources=listed, cap=CAP, holdout=0.05)
    opened = [
        sources.open_source(s, kind="chat", use="train", origin=None, base=folder, where="d_s")
        for s in listed
    ]
    return mixture, opened


class Timed(NamedTuple):
    result: Any
    seconds: float


def timed(work: Callable[[], Any]) -> Timed:
    start = time.perf_counter()
    return Timed(work(), round(time.perf_counter() - start, 2))


def measure_draw(folder: Path) -> dict[str, Any]:
    mixture, opened = d_s(folder)
    drawn, seconds = timed(
        lambda: build_mixture(mixture, opened, seed=42, question_index=EvalQuestionIndex([], 8))
    )
    totals = drawn.manifest["totals"]
    assert totals["kept"] + totals["near_duplicates"] == 102_030, totals
    return {"seconds": seconds, "rows": totals["seen"], "kept": totals["kept"]}


def many(folder: Path) -> list[Record]:
    """115,000 records of the sources of D_S."""
    found: list[Record] = []
    for opened in d_s(folder)[1]:
        numbers = range(min(len(opened.rows), 13_700))
        found += [f.record for f in opened.read(numbers) if f.record is not None]
    assert len(found) >= MANY
    return found[:MANY]


def planted(records: list[Record], texts: Iterator[str]) -> list[Record]:
    """The records, with texts put into the midst of answers here and there."""
    step = len(records) // PLANTED
    made = list(records)
    for at, text in zip(range(0, step * PLANTED, step), texts, strict=False):
        record = made[at]
        assert isinstance(record, Chat)
        asked, answered = record.messages[0], record.messages[-1].content
        middle = len(answered) // 2
        answer = Message("assistant", f"{answered[:middle]} {text} {answered[middle:]}")
        made[at] = Chat(record.source, (asked, answer))
    return made


def measure_contamination(folder: Path) -> dict[str, Any]:
    asked = questions(Pool(2))
    chosen = asked[:: len(asked) // PLANTED]
    planting = (" ".join(r.texts) if isinstance(r, Choice) else str(r.question) for _, r in chosen)
    records = planted(many(folder), planting)
    exams, built = timed(lambda: EvalQuestionIndex(asked, 8))
    blocks = [records[i : i + 16_384] for i in range(0, len(records), 16_384)]
    found, seconds = timed(lambda: [m for block in blocks for m in exams.find(block)])
    hits = sum(match is not None for match in found)
    assert hits == PLANTED, hits
    return {
        "seconds": round(built + seconds, 2),
        "records": len(records),
        "questions": len(asked),
        "planted": PLANTED,
        "found": hits,
    }


def measure_near_duplicates(folder: Path) -> dict[str, Any]:
    records = many(folder)
    copies: list[Record] = []
    for record in records[:: len(records) // PLANTED][:PLANTED]:
        assert isinstance(record, Chat)
        said = [Message(m.role, f"{m.content} so") for m in record.messages]
        copies.append(Chat(record.source, tuple(said)))
    records = [*records[: MANY - PLANTED], *copies]
    found, seconds = timed(lambda: find_near_duplicates(records, remove=True))
    return {
        "seconds": seconds,
        "records": len(records),
        "planted": PLANTED,
        "found": sum(map(bool, found[-PLANTED:])),
        "others": sum(map(bool, found[:-PLANTED])),
    }


def measure_build(folder: Path) -> dict[str, Any]:
    """The command `zephyr data build`, twice: the second time nothing has changed."""
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text("{}")
    listed = [{"name": name, "path": f"{name}.parquet"} for name in CHARACTERS]
    spec = {
        "name": "d_s",
        "data": {"D_S": {"kind": "chat", "cap": CAP, "holdout": 0.05, "sources": listed}},
        "models": {"M0": {"base": "base"}},
    }
    (folder / "d_s.yaml").write_text(json.dumps(spec))
    shutil.rmtree(folder / "runs", ignore_errors=True)
    places = {"ZEPHYR_RUNS": str(folder / "runs"), "ZEPHYR_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "zephyr", "data", "build", str(folder / "d_s.yaml")]

    def build() -> None:
        subprocess.run(command, check=True, capture_output=True, env=os.environ | places)

    return {"seconds": timed(build).seconds, "seconds of the second": timed(build).seconds}


PARTS = {
    "draw of D_S": measure_draw,
    "zephyr data build": measure_build,
    "decontamination": measure_contamination,
    "near-duplicates": measure_near_duplicates,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=PARTS)
    arguments = parser.parse_args()
    if arguments.part:
        row = PARTS[arguments.part](arguments.folder)
        row["peak MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        print(json.dumps(row))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    make_files(arguments.folder)
    found: dict[str, Any] = {
        "what": "bench/data.py",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}; load {os.getloadavg()[0]:.2f}",
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "rensa")},
        "python": platform.python_version(),
    }
    for part in PARTS:
        command = [sys.executable, __file__, str(arguments.folder), "--part", part]
        found[part] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(part, found[part])
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
