"""Benchmark: its command line, its measurements in rounds, and the file of its results."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import page
from bench.shared import worker
from bench.shared.environments import CACHE, ROOT
from bench.shared.measurement import LOCK, MAX_INTERFERENCE, Measurement, measure
from zephyr.model import precision
from zephyr.model.precision import Dtype
from zephyr.runs.store import write_json


def argument_parser(doc: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options of all benchmarks; `--rounds` and `--quick` of those in rounds."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="TEXT", help="what has one of these in its name"
    )
    parser.set_defaults(quick=False, device="cpu", rounds=1)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds)
        parser.add_argument(
            "--quick",
            action="store_true",
            help="a small round on a busy machine: shows that all of it runs, and measures nothing",
        )
    return parser


def select(entries: Sequence[Any], texts: Sequence[str]) -> list[Any]:
    """The entries whose name has one of the texts in it; all where there is no text."""
    return [e for e in entries if not texts or any(text in e.name for text in texts)]


class Benchmark:
    """Measures entries, each with a name, and keeps the results; one at a time on a machine."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        LOCK.acquire()
        self.device, self.quick = arguments.device, arguments.quick
        self.rounds = 1 if arguments.quick else arguments.rounds
        self.is_complete = not (arguments.only or arguments.quick)
        self.versions: dict[str, dict[str, str]] = {}
        self.threads = 0

    def path(self, name: str, *, published: bool) -> Path:
        """Path of a results file; those of a part of a benchmark are kept apart."""
        folder = page.RESULTS if published else CACHE / "results"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.json"

    def measure(
        self,
        framework: str,
        module: str,
        job: dict[str, Any],
        max_interference: float = MAX_INTERFERENCE,
    ) -> list[Measurement]:
        """A framework measured in its own environment; last in the list, after discarded ones."""
        limit = 1.0 if self.quick else max_interference
        job = {"device": self.device, **job}
        attempts = measure(module, job, limit)
        for attempt in attempts:
            if versions := attempt.pop("versions", None):
                self.versions[framework] = versions
            self.threads = attempt.pop("threads", self.threads)
        return attempts

    def run(
        self,
        path: Path,
        entries: Sequence[Any],
        measure_entry: Callable[[Any, int], list[Measurement]],
        figure_text: Callable[[Measurement], str],
        header: Callable[[list[Measurement]], dict[str, Any]],
    ) -> None:
        """Measures all entries in turn, every second round backwards; writes after each round.

        `values`, the scores of each item, are for the `header` of the results alone.
        """
        measurements: list[Measurement] = []
        for number in range(self.rounds):
            for entry in entries[:: -1 if number % 2 else 1]:
                attempts = measure_entry(entry, number)
                measurements += [{"name": entry.name, "round": number, **each} for each in attempts]
                if attempts:
                    print_figures(f"round {number + 1}: {entry.name}", attempts[-1], figure_text)
            found = {**self.describe(), "rounds": number + 1, **header(measurements)}
            for measurement in measurements:
                measurement.pop("values", None)
            self.write(path, {**found, "measurements": measurements})

    def write(self, path: Path, results: dict[str, Any]) -> None:
        write_json(path, results)
        if path.parent == page.RESULTS:
            page.write()

    def describe(self) -> dict[str, Any]:
        """What was measured, where and when."""
        return {
            "device": self.device,
            "machine": describe_machine(self.device),
            "threads": self.threads,
            "commit": _commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "versions": self.versions,
        }


def read_results(path: Path) -> dict[str, Any]:
    """The results in a file; none where there is no file."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def print_figures(name: str, found: Measurement, figure_text: Callable[[Measurement], str]) -> None:
    text = found.get("failed") or figure_text(found)
    print(f"{name}: {text} ({found['wall']:.0f} s)", flush=True)


def fast_dtype() -> Dtype:
    """The dtype in which this machine multiplies fastest."""
    return "bfloat16" if precision.has_native_bfloat16() else "float32"


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """The GPU, or processor, cores and memory; its fastest dtype, and the version of Python."""
    common = {"products": fast_dtype(), "python": platform.python_version()}
    if device == "cuda":
        import torch

        return {"card": torch.cuda.get_device_name(), **common}
    _, _, model = Path("/proc/cpuinfo").read_text().partition("model name")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model.partition("\n")[0].strip(" \t:") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(gib, 1),
        **common,
    }


def _commit() -> str:
    """The commit of the code that was measured; `+` where the files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]  # wherever the user's git is
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "bench")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def measure_parts(
    doc: str | None,
    module: str,
    parts: Mapping[str, Callable[[Path], dict[str, Any]]],
    prepare: Callable[[Path], dict[str, Any]],
    path: Path,
) -> None:
    """Command of a benchmark in parts, each a worker process of the same module.

    `prepare` makes files in a folder, and describes them. The machine need not be idle. What the
    results file has of other parts is kept.
    """
    parser = argument_parser(doc)
    parser.add_argument("job", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        worker.main(lambda job: parts[job.part](Path(job.files)))
        return
    folder = CACHE / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    with LOCK:
        found = read_results(path) | {"machine": describe_machine(), "commit": _commit()}
        found |= prepare(folder)
        for part in parts:
            if not arguments.only or any(text in part for text in arguments.only):
                job = {"part": part, "files": str(folder), "device": "cpu"}
                found[part] = measure(module, job, 1.0)[-1]
                print(part, found[part], flush=True)
                write_json(path, found)
