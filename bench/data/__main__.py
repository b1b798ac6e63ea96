"""Data benchmark: the draw of D_S, decontamination and near-duplicates, on synthetic rows.

python -m bench.data [--only TEXT ...]

Files have the published sizes (2.7 million rows, 1 GB), and are made once by a seed. Planted among
the rows are repeated ones, questions of tests, and near-duplicates, so that what is found can be
counted; times are those of one process on an otherwise idle machine. Results go to
results/data.json.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from bench.data.corpus import CAP, CHARACTERS, SentencePool, source_sizes
from bench.shared.benchmark import measure_parts
from bench.shared.environments import ROOT
from zephyr.data import sources
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.duplicates import find_near_duplicates
from zephyr.data.mixture import build_mixture
from zephyr.data.table import SOURCES
from zephyr.recipe.data import MixtureSpec, SourceSpec
from zephyr.records import Chat, Choice, Message, Record

ROW_GROUP = 1_000
QUESTIONS = {"hellaswag": 10_042, "gsm8k": 1_319, "arc": 3_548, "mmlu": 14_042}
"""Questions of each test set."""
MANY = 115_000
PLANTED = 500


def make_files(folder: Path) -> dict[str, Any]:
    """Parquet files of the sources of D_S in their own columns and published sizes."""
    pool = SentencePool(1)
    for name, rows in source_sizes().items():
        path = folder / f"{name}.parquet"
        if not path.exists():
            temporary_path = path.with_suffix(".tmp")
            _write_rows(temporary_path, name, rows, pool)
            temporary_path.replace(path)
            print(f"made {path.name}: {rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB")
    return {"versions": {name: version(name) for name in ("numpy", "pyarrow", "rensa")}}


def _write_rows(path: Path, name: str, rows: int, pool: SentencePool) -> None:
    columns = ("conversations",) if name == "lima" else SOURCES[name].columns[:2]
    kind = pyarrow.list_(pyarrow.string()) if name == "lima" else pyarrow.string()
    schema = pyarrow.schema([(column, kind) for column in columns])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, ROW_GROUP):
            numbers = range(start, min(start + ROW_GROUP, rows))
            texts = [pool.question_and_answer(CHARACTERS[name]) for _ in numbers]
            pairs = [[f"{at}: {q}", a] for at, (q, a) in zip(numbers, texts, strict=True)]
            values = (
                [pairs] if name == "lima" else [list(each) for each in zip(*pairs, strict=True)]
            )
            writer.write_table(pyarrow.table(values, schema=schema))


def open_sources(folder: Path) -> tuple[MixtureSpec, list[sources.OpenedSource]]:
    """The mixture D_S and its sources."""
    listed = tuple(SourceSpec(name=n, path=str(folder / f"{n}.parquet")) for n in CHARACTERS)
    opened = [
        sources.open_source(s, kind="chat", use="train", origin=None, base=folder, where="d_s")
        for s in listed
    ]
    return MixtureSpec(kind="chat", sources=listed, cap=CAP, holdout=0.05), opened


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), round(time.perf_counter() - start, 2)


def measure_draw(folder: Path) -> dict[str, Any]:
    mixture, opened = open_sources(folder)
    no_questions = EvalQuestionIndex([], 8)
    drawn, seconds = timed(
        lambda: build_mixture(mixture, opened, seed=42, question_index=no_questions)
    )
    totals = drawn.manifest["totals"]
    assert totals["kept"] + totals["near_duplicates"] == 102_030, totals
    return {"seconds": seconds, "rows": totals["seen"], "kept": totals["kept"]}


def read_records(folder: Path) -> list[Record]:
    """115,000 records of the sources of D_S."""
    found: list[Record] = []
    for opened in open_sources(folder)[1]:
        numbers = range(min(len(opened.rows), 13_700))
        found += [f.record for f in opened.read(numbers) if f.record is not None]
    assert len(found) >= MANY
    return found[:MANY]


def eval_questions(pool: SentencePool) -> Iterator[tuple[str, Record]]:
    """As many test questions as the evaluation sets have."""
    for task, count in QUESTIONS.items():
        for _ in range(count):
            question, options = pool.text(220), tuple(pool.text(60) for _ in range(4))
            chat = Chat(task, (Message("user", question), Message("assistant", options[0])))
            yield task, chat if task == "gsm8k" else Choice(task, question, options, 0)


def plant(records: list[Record], questions: list[Record]) -> list[Record]:
    """The records, with questions put into the midst of answers here and there."""
    planted, step = list(records), len(records) // PLANTED
    for at, question in zip(range(0, step * PLANTED, step), questions, strict=False):
        text = " ".join(question.texts) if isinstance(question, Choice) else str(question.question)
        record = planted[at]
        assert isinstance(record, Chat)
        answer = record.messages[-1].content
        middle = len(answer) // 2
        message = Message("assistant", f"{answer[:middle]} {text} {answer[middle:]}")
        planted[at] = Chat(record.source, (record.messages[0], message))
    return planted


def measure_contamination(folder: Path) -> dict[str, Any]:
    questions = list(eval_questions(SentencePool(2)))
    chosen = [record for _, record in questions[:: len(questions) // PLANTED]]
    records = plant(read_records(folder), chosen)
    blocks = [records[i : i + 16_384] for i in range(0, len(records), 16_384)]
    index, built = timed(lambda: EvalQuestionIndex(questions, 8))
    found, seconds = timed(lambda: [match for block in blocks for match in index.find(block)])
    hits = sum(match is not None for match in found)
    assert hits == PLANTED, hits
    counts = {"records": len(records), "questions": len(questions), "planted": PLANTED}
    return {"seconds": round(built + seconds, 2), **counts, "found": hits}


def measure_near_duplicates(folder: Path) -> dict[str, Any]:
    records = read_records(folder)
    copies: list[Record] = []
    for record in records[:: len(records) // PLANTED][:PLANTED]:
        assert isinstance(record, Chat)
        changed = [Message(m.role, f"{m.content} so") for m in record.messages]
        copies.append(Chat(record.source, tuple(changed)))
    records = [*records[: MANY - PLANTED], *copies]
    found, seconds = timed(lambda: find_near_duplicates(records, remove=True))
    counts = {"found": sum(map(bool, found[-PLANTED:])), "others": sum(map(bool, found[:-PLANTED]))}
    return {"seconds": seconds, "records": len(records), "planted": PLANTED, **counts}


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

    seconds = {"seconds": timed(build)[1], "seconds of the second": timed(build)[1]}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {**seconds, "peak_bytes": peak}


PARTS = {
    "draw of D_S": measure_draw,
    "zephyr data build": measure_build,
    "decontamination": measure_contamination,
    "near-duplicates": measure_near_duplicates,
}

if __name__ == "__main__":
    measure_parts(__doc__, "bench.data", PARTS, make_files, ROOT / "results" / "data.json")
