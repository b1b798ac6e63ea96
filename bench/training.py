"""Training measured side by side: Zephyr, TRL and LLaMA-Factory on the same rows.

python -m bench.training run|trials [--device cpu|cuda] [--only TEXT ...] [--data FOLDER]

`trials` finds the best setting of each peer, one reading a candidate; `run` measures everything in
rounds, contenders taking turns, after the trials that this device has not had yet. Results go to
results/bench/, and docs/benchmarks.md is made of them.
"""

import argparse
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench import page, rows, shape
from bench.figures import agreement, figures
from bench.machine import commit, kind, machine, products, write
from bench.peers import FOLDER, ROOT
from bench.reading import alone, take
from bench.settings import (
    CANDIDATES,
    ENTRIES,
    PLANS,
    TARGETS,
    WARMING,
    Candidate,
    Entry,
    Options,
    Plan,
)

SEED = 0
QUIET = 0.05
"""Largest share of the machine's processor time that others may take during a reading."""
QUIET_TRIAL = 0.15
LAYERS = 24
RESULTS = ROOT / "results" / "bench"


class Work(NamedTuple):
    """The files of one kind of rows (warming, timed), and what the timed ones hold."""

    files: list[str]
    counted: rows.Count
    batch: int


class Bench:
    """A model, its rows, and the readings taken of them."""

    def __init__(self, device: str, data: Path, layers: int) -> None:
        self.device, self.layers = device, layers
        self.plan: Plan = PLANS[device]
        self.model = FOLDER / "models" / f"qwen1.5-0.5b-shape-{layers}-layers"
        if not (self.model / "model.safetensors").exists():
            shape.make_model(self.model, data / "tokenizers" / "qwen2", layers=layers)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model)
        plan = self.plan
        self.works = {
            "sft": self._work("sft", rows.chats(data), plan.chats, tokenizer),
            "dpo": self._work("dpo", rows.pairs(data), plan.pairs, tokenizer),
        }
        self.versions: dict[str, dict[str, str]] = {}
        self.threads = 0

    def _work(self, kind: str, sources: list[list[rows.Row]], batch: int, tokenizer: Any) -> Work:
        timed = batch * self.plan.steps
        drawn = rows.draw(sources, timed + WARMING, tokenizer, SEED)
        files = []
        for name, part in (("warming", drawn[timed:]), ("timed", drawn[:timed])):
            path = FOLDER / "rows" / f"{kind}-{name}-{timed}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
            files.append(str(path))
        return Work(files, rows.count(drawn[:timed], tokenizer), batch)

    def rate(self, quiet: float = QUIET) -> float:
        """Operations a second of matrix products, in the dtype that is quickest here."""
        reading, _ = take("matrix", {"device": self.device, "dtype": products()}, quiet)
        return float(reading["rate"])

    def read(
        self, entry: Entry, options: Options, rate: float, quiet: float = QUIET
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A reading with its figures, and those that were thrown away."""
        work = self.works[entry.work]
        options = dict(options)
        wide = options.pop("weights", None) == "float32"
        job = {
            "kind": entry.work,
            "model": str(shape.widened(self.model) if wide else self.model),
            "device": self.device,
            "targets": TARGETS[entry.targets],
            "rows": work.files,
            "batch": work.batch,
            "max_length": rows.MAX_LENGTH,
            "tokens_per_row": work.counted.tokens / work.counted.rows,
            "options": options,
        }
        reading, thrown = take(entry.contender, job, quiet)
        if "failed" not in reading:
            self.versions[entry.contender] = reading.pop("versions")
            self.threads = reading.pop("threads")
            reading["figures"] = figures(entry, reading, work.counted, rate, self.layers)
            reading["agreement"] = agreement(reading, work.counted)
        return reading, thrown

    def about(self) -> dict[str, Any]:
        """What the readings were taken on, and of what."""
        return {
            "device": self.device,
            "machine": machine(self.device),
            "threads": self.threads,
            "commit": commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "layers": self.layers,
            "plan": self.plan._asdict(),
            "rows": {kind: work.counted._asdict() for kind, work in self.works.items()},
            "versions": self.versions,
        }


def trials(bench: Bench, path: Path, asked: list[Candidate]) -> None:
    """One reading of each of these candidates; keeps what is there of the others."""
    rate = bench.rate(QUIET_TRIAL)
    for candidate in asked:
        entry = Entry(candidate.work, candidate.contender, "trial")
        reading, _ = bench.read(entry, candidate.options, rate, QUIET_TRIAL)
        _tell(candidate.name, reading)
        others = [row for row in _tried(path) if row["name"] != candidate.name]
        row = {**candidate._asdict(), "name": candidate.name, **reading}
        write(path, {**bench.about(), "trials": [*others, row]})


def _tried(path: Path) -> list[dict[str, Any]]:
    """The trials in a file, or none."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["trials"] if path.exists() else []
    return found


def best(trials_path: Path, work: str, contender: str) -> Options:
    """The candidate with the highest rate in the trials."""
    figure = "tokens_per_second" if work == "sft" else "pairs_per_second"
    tried = [
        r
        for r in _tried(trials_path)
        if (r["work"], r["contender"]) == (work, contender) and "figures" in r
    ]
    fastest: Options = max(tried, key=lambda r: r["figures"][figure])["options"]
    return fastest


def run(bench: Bench, path: Path, trials_path: Path, only: list[str]) -> None:
    """All entries in turn, round by round."""
    settings = {
        entry.name: best(trials_path, entry.work, entry.contender)
        if entry.setting == "best"
        else {}
        for entry in ENTRIES
        if _asked(entry.name, only)
    }
    rates: list[float] = []
    readings: list[dict[str, Any]] = []
    for number in range(bench.plan.rounds):
        rates.append(bench.rate())
        for entry in ENTRIES:
            beside = entry.setting == "default" or entry.targets != "q, v"
            late = beside and number >= bench.plan.defaults
            if entry.name not in settings or late:
                continue
            reading, thrown = bench.read(entry, settings[entry.name], rates[-1])
            _tell(f"round {number + 1}: {entry.name}", reading)
            for row, kept in [*((r, False) for r in thrown), (reading, True)]:
                readings.append({"name": entry.name, "round": number, "kept": kept, **row})
        result = {
            **bench.about(),
            "matrix_rate": rates,
            "entries": [
                {**entry._asdict(), "name": entry.name, "options": settings[entry.name]}
                for entry in ENTRIES
                if entry.name in settings
            ],
            "readings": readings,
        }
        write(path, result)


def _asked(name: str, only: list[str]) -> bool:
    return not only or any(part in name for part in only)


def _tell(name: str, reading: dict[str, Any]) -> None:
    shown = reading.get("figures") or {"failed": reading["failed"]}
    parts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{v}" for k, v in shown.items()]
    print(f"{name}: {', '.join(parts)} ({reading['wall']:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "trials"))
    parser.add_argument("--device", choices=tuple(PLANS), default="cpu")
    parser.add_argument(
        "--only", nargs="*", default=[], help="entries or candidates whose name holds one of these"
    )
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer, for a quick look")
    parser.add_argument("--rounds", type=int, help="other than the plan of the device says")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("ZEPHYR_REAL_DATA", ROOT.parent / "shared" / "data")),
    )
    given = parser.parse_args()
    whole = given.layers == LAYERS and not (given.command == "run" and given.only)
    out = RESULTS if whole else FOLDER / "results"
    tried = (RESULTS if given.layers == LAYERS else out) / f"trials-{kind(given.device)}.json"
    candidates = CANDIDATES[kind(given.device)]
    with alone():
        start = time.monotonic()
        bench = Bench(given.device, given.data.resolve(), given.layers)
        if given.rounds:
            bench.plan = bench.plan._replace(rounds=given.rounds)
        if given.command == "trials":
            trials(bench, tried, [c for c in candidates if _asked(c.name, given.only)])
        else:
            known = {row["name"] for row in _tried(tried)}
            if missing := [c for c in candidates if c.name not in known]:
                trials(bench, tried, missing)
            run(bench, out / f"training-{kind(given.device)}.json", tried, given.only)
        print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    if given.command == "run" and whole:
        page.write()


if __name__ == "__main__":
    main()
