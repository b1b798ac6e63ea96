"""Evaluation measured side by side: Zephyr and lm-evaluation-harness on the same items.

python -m bench.evaluation [--only TEXT ...] [--full] [--few] [--rounds N] [--data FOLDER]

First lm-eval's best batch size is found in trials, on a part of the items; then all is measured in
rounds, the two taking turns. Where they don't say the same of an item, the bench stops. Results go
to results/bench/, and docs/benchmarks.md is made of them.
"""

import argparse
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import page, questions, shape
from bench.machine import commit, machine, write
from bench.peers import FOLDER, ROOT
from bench.reading import alone, take

QUIET = 0.05
"""Largest share of the machine's processor time that others may take during a reading."""
QUIET_TRIAL = 0.15
ROUNDS = 3
RESULTS = ROOT / "results" / "bench"
ALLOWED = {"bfloat16": 0.12, "float32": 1e-3}
"""Nats for each token by which two ways of one forward differ by rounding, in the mean."""
SAME_CHOICE = 0.9
"""Least share of items at which both choose the same option."""
FULL = 200


class Entry(NamedTuple):
    """One line of the table: a work on a model, its items, and the batches that lm-eval tries.

    A trial is of `trial` items; the largest batch is that of all.
    """

    work: str
    model: str
    items: int
    trial: int
    batches: tuple[int, ...]
    context: int = 2048

    @property
    def name(self) -> str:
        return f"{self.work} · {self.model}"

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.model == "qwen" else "float32"


ENTRIES = (
    Entry("hellaswag", "qwen", 48, 16, (1, 8)),
    Entry("mmlu", "qwen", 32, 8, (1, 4)),
    Entry("gsm8k", "qwen", 32, 32, (32,)),
    Entry("wikitext", "qwen", 3, 3, (1,)),
    Entry("hellaswag", "tinystories", 500, 200, (8, 32, 128), 512),
    Entry("gsm8k", "tinystories", 200, 200, (32, 200), 512),
    Entry("wikitext", "tinystories", 12, 12, (1, 8), 512),
)
CONTENDERS = {"zephyr": "zephyr_asks", "lm_eval": "lm_eval"}


class Bench:
    """Two models, what they are asked, and the readings taken of both programs."""

    def __init__(self, data: Path, entries: list[Entry]) -> None:
        from zephyr.model.load import load_tokenizer

        qwen = FOLDER / "models" / "qwen1.5-0.5b-shape-24-layers"
        if not (qwen / "model.safetensors").exists():
            shape.make_model(qwen, data / "tokenizers" / "qwen2", layers=24)
        self.models = {"qwen": qwen, "tinystories": data / "models" / "tinystories-656k"}
        tokenizers = {
            name: load_tokenizer(self.models[name]) for name in {e.model for e in entries}
        }
        self.data, self.tokenizers = data, tokenizers
        self.versions: dict[str, dict[str, str]] = {}
        self.threads = 0

    def paper(self, entry: Entry, count: int) -> questions.Paper:
        return questions.paper(
            entry.work, self.data, count, self.tokenizers[entry.model], entry.context
        )

    def read(
        self, entry: Entry, contender: str, batch: int, paper: questions.Paper, quiet: float
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A reading with its rate, and those that were thrown away."""
        files = {}
        for part in ("rows", "warming", "shown"):
            path = FOLDER / "rows" / f"exam-{entry.work}-{entry.model}-{part}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = getattr(paper, part)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            files[part] = str(path) if rows else ""
        job = {
            "work": entry.work,
            "model": str(self.models[entry.model]),
            "device": "cpu",
            "dtype": entry.dtype,
            "context": entry.context,
            "batch": batch,
            **files,
        }
        reading, thrown = take(CONTENDERS[contender], job, quiet)
        if "failed" not in reading:
            self.versions[contender] = reading.pop("versions")
            self.threads = reading.pop("threads")
            done = paper.tokens if entry.work == "wikitext" else len(paper.rows)
            reading["rate"] = done / reading["seconds"]
        return reading, thrown


def agreement(
    entry: Entry, paper: questions.Paper, ours: dict[str, Any], theirs: dict[str, Any]
) -> dict[str, float]:
    """How far two readings of the same items are from each other.

    `nats` is the mean difference of a log-probability for each of its tokens, `same` the share of
    items at which the likeliest option is the same one.

    Raises:
        SystemExit: they are further apart than rounding.
    """
    if entry.work == "gsm8k":
        found = {"tokens": float(ours["tokens"]), "expected": float(paper.tokens)}
        alike = ours["tokens"] == theirs["tokens"] == paper.tokens
    else:
        pairs = list(zip(ours["values"], theirs["values"], strict=True))
        gaps = [abs(a - b) for own, other in pairs for a, b in zip(own, other, strict=True)]
        same = float(np.mean([np.argmax(own) == np.argmax(other) for own, other in pairs]))
        found = {"nats": sum(gaps) / paper.tokens, "same": same}
        alike = found["nats"] <= ALLOWED[entry.dtype] and same >= SAME_CHOICE
    if not alike:
        raise SystemExit(f"{entry.name}: the two do not say the same: {found}")
    return found


def trials(bench: Bench, entry: Entry, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One reading of lm-eval at each batch size that has not been tried, if there are several."""
    if len(entry.batches) == 1:
        return [{"name": entry.name, "batch": entry.batches[0]}]
    tried = {row["batch"] for row in known}
    paper = bench.paper(entry, min(entry.trial, entry.items))
    found = list(known)
    for batch in entry.batches:
        if batch not in tried:
            reading, _ = bench.read(entry, "lm_eval", batch, paper, QUIET_TRIAL)
            _tell(f"trial: {entry.name}, batch {batch}", reading)
            found.append({"name": entry.name, "batch": batch, **_figures(reading)})
    return found


def best(tried: list[dict[str, Any]]) -> int:
    """The batch size with the highest rate."""
    return int(max(tried, key=lambda r: r.get("rate", 0.0))["batch"])


def run(bench: Bench, entries: list[Entry], rounds: int, path: Path) -> None:
    """Trials where there are none yet, then all entries in turn, round by round."""
    before = json.loads(path.read_text()) if path.exists() else {}
    tried = {
        e.name: trials(bench, e, [r for r in before.get("trials", []) if r["name"] == e.name])
        for e in entries
    }
    papers = {entry.name: bench.paper(entry, entry.items) for entry in entries}
    readings: list[dict[str, Any]] = []
    said: dict[str, dict[str, float]] = {}
    for number in range(rounds):
        for entry in entries:
            pair = {}
            for contender in sorted(CONTENDERS, reverse=number % 2 == 1):
                batch = best(tried[entry.name])
                reading, thrown = bench.read(entry, contender, batch, papers[entry.name], QUIET)
                _tell(f"round {number + 1}: {entry.name}, {contender}", reading)
                pair[contender] = reading
                for row, kept in [*((r, False) for r in thrown), (reading, True)]:
                    about = {"name": entry.name, "contender": contender, "round": number}
                    readings.append({**about, "kept": kept, **_figures(row)})
            said[entry.name] = agreement(entry, papers[entry.name], pair["zephyr"], pair["lm_eval"])
        result = {
            "device": "cpu",
            "machine": machine("cpu"),
            "threads": bench.threads,
            "commit": commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "rounds": number + 1,
            "versions": bench.versions,
            "entries": [
                {
                    **entry._asdict(),
                    "name": entry.name,
                    "dtype": entry.dtype,
                    "batch": best(tried[entry.name]),
                    "tokens": papers[entry.name].tokens,
                    "agreement": said[entry.name],
                }
                for entry in entries
                if entry.name in said
            ],
            "trials": [row for rows in tried.values() for row in rows],
            "readings": readings,
        }
        write(path, result)


def _figures(reading: dict[str, Any]) -> dict[str, Any]:
    """A reading without what was said of each item."""
    return {key: value for key, value in reading.items() if key != "values"}


def _tell(name: str, reading: dict[str, Any]) -> None:
    said = f"{reading['rate']:.3g} a second" if "rate" in reading else reading["failed"]
    print(f"{name}: {said} ({reading['wall']:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", default=[], help="entries whose name holds one of these"
    )
    parser.add_argument("--full", action="store_true", help=f"{FULL} prompts of GSM8K everywhere")
    parser.add_argument(
        "--few", action="store_true", help="an eighth of the items, for a quick look"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("ZEPHYR_REAL_DATA", ROOT.parent / "shared" / "data")),
    )
    given = parser.parse_args()
    entries = [e for e in ENTRIES if not given.only or any(part in e.name for part in given.only)]
    if given.full:
        entries = [e._replace(items=FULL) if e.work == "gsm8k" else e for e in entries]
    if given.few:
        entries = [
            e._replace(items=max(2, e.items // 8), trial=2, batches=e.batches[:1]) for e in entries
        ]
    whole = not given.only and not given.few
    out = (RESULTS if whole else FOLDER / "results") / "evaluation-cpu.json"
    with alone():
        start = time.monotonic()
        run(Bench(given.data.resolve(), entries), entries, given.rounds, out)
        print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    if whole:
        page.write()


if __name__ == "__main__":
    main()
