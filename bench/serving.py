"""Servers measured side by side: `zephyr serve` and `transformers serve`, over HTTP.

python -m bench.serving [--only TEXT ...] [--rounds N] [--quick] [--theirs PYTHON] [--data FOLDER]

The same prompts go to each, by one user and by eight at once, and every answer is as long. One
server runs at a time, in a process of its own; the order turns from round to round. Results go to
results/bench/, and docs/benchmarks.md is made of them. `--theirs` is an interpreter that has
transformers[serving], where bench/peers.py has made none. `--quick` measures nothing of worth: it
shows that all of it runs.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench import endless, page
from bench.machine import commit, machine, write
from bench.peers import FOLDER, ROOT, python_of
from bench.reading import alone, take

QUIET = 0.05
ROUNDS = 2
TOKENS = 128
PATIENCE = 90.0
RESULTS = ROOT / "results" / "bench"
MODEL = "base"
WARMING = 8


class Model(NamedTuple):
    """A model, and how many requests one user makes and eight make together."""

    name: str
    alone: int
    together: int


MODELS = (Model("qwen1.5-0.5b-shape", 3, 8), Model("small", 16, 64))
QUICK = (Model("qwen1.5-0.5b-shape-2-layers", 2, 8), Model("small", 2, 8))
MAKERS = {
    "qwen1.5-0.5b-shape": endless.qwen,
    "qwen1.5-0.5b-shape-2-layers": lambda folder, data: endless.qwen(folder, data, 2),
    "small": endless.small,
}


class Entry(NamedTuple):
    """One line of the tables: a server on a model, as it is or in a dtype that it is told."""

    model: Model
    server: str
    dtype: str | None

    @property
    def name(self) -> str:
        return f"{self.model.name} · {self.server} · {self.dtype or 'default'}"


DTYPES: dict[str, tuple[str | None, ...]] = {
    "zephyr": (None,),
    "transformers": (None, "float32", "bfloat16"),
    "transformers, continuous batching": (None, "float32", "bfloat16"),
}
"""The dtypes in which each server computes; None is what it does if it is told nothing."""


def entries(models: tuple[Model, ...], parts: list[str]) -> list[Entry]:
    """All lines whose name holds one of the parts."""
    found = [
        Entry(model, server, dtype)
        for model in models
        for server, dtypes in DTYPES.items()
        for dtype in dtypes
    ]
    return [e for e in found if not parts or any(part in e.name for part in parts)]


def folder_of(model: Model) -> Path:
    return FOLDER / "models" / f"{model.name}-endless"


def default(server: str, folder: Path) -> str:
    """The dtype in which a server computes if it is told nothing."""
    from zephyr.model.precision import choose_dtype, stored_dtype

    if server == "zephyr":
        return choose_dtype("auto", folder)
    return str(stored_dtype(folder)).removeprefix("torch.")  # `--dtype auto`: that of the weights


def job(entry: Entry, data: Path, theirs: str, *, quick: bool) -> dict[str, Any]:
    """What the process that asks a server is told."""
    folder = folder_of(entry.model)
    asked = entry.model.together
    drawn = endless.prompts(folder, data, asked + WARMING)
    found = {
        "prompts": drawn[:asked],
        "warming": drawn[asked:],
        "tokens": 16 if quick else TOKENS,
        "loads": [(1, entry.model.alone), (8, entry.model.together)],
        "patience": 20.0 if quick else PATIENCE,
        "device": "cpu",
    }
    return found | (_zephyr(entry) if entry.server == "zephyr" else _transformers(entry, theirs))


def _zephyr(entry: Entry) -> dict[str, Any]:
    """A recipe that has nothing but the model, run and served."""
    folder = FOLDER / "serving" / entry.model.name
    recipe = _recipe(folder, folder_of(entry.model))
    environment = {"ZEPHYR_RUNS": str(folder / "runs")}
    serve = [sys.executable, "-m", "zephyr", "serve", MODEL, "--recipe", str(recipe)]
    return {
        "command": [*serve, "--port", "{port}"],
        "environment": environment,
        "versions": ["zephyr-tutor", "torch", "transformers", "fastapi", "uvicorn"],
        "model": MODEL,
    }


def _recipe(folder: Path, base: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.jsonl").write_text('{"text": "Nothing is learned from this line."}\n')
    value: dict[str, Any] = {
        "name": base.name,
        "data": {
            "text": {"kind": "passage", "clean": "report", "sources": [{"path": "text.jsonl"}]}
        },
        "models": {MODEL: {"base": str(base)}},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def _transformers(entry: Entry, theirs: str) -> dict[str, Any]:
    folder = str(folder_of(entry.model))
    more = ["--continuous-batching"] if entry.server != "transformers" else []
    if entry.dtype:
        more += ["--dtype", entry.dtype]
    serve = [theirs, "-m", "transformers.cli.transformers", "serve", folder, "--host", "127.0.0.1"]
    return {
        "command": [*serve, "--port", "{port}", *more],
        "environment": {},
        "versions": ["torch", "transformers", "fastapi", "uvicorn"],
        "model": folder,
    }


def prepare(models: Iterable[Model], data: Path) -> None:
    """Makes the models, and the run that Zephyr serves each from."""
    for model in models:
        folder = folder_of(model)
        if not (folder / "model.safetensors").exists():
            MAKERS[model.name](folder, data)
        place = FOLDER / "serving" / model.name
        recipe = _recipe(place, folder)
        subprocess.run(
            [sys.executable, "-m", "zephyr", "run", str(recipe)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "ZEPHYR_RUNS": str(place / "runs")},
        )


def run(lines: list[Entry], rounds: int, path: Path, take_one: Any) -> None:
    """All lines in turn, round by round; the file is written after each round."""
    readings: list[dict[str, Any]] = []
    for number in range(rounds):
        for entry in lines[:: -1 if number % 2 else 1]:
            reading, thrown = take_one(entry)
            for row, kept in [*((r, False) for r in thrown), (reading, True)]:
                about = {"name": entry.name, "round": number, "kept": kept}
                readings.append({**about, **row})
            _tell(f"round {number + 1}: {entry.name}", reading)
        result = {
            "device": "cpu",
            "machine": machine("cpu"),
            "commit": commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "rounds": number + 1,
            "tokens": TOKENS,
            "entries": [
                {
                    "name": entry.name,
                    "model": entry.model.name,
                    "server": entry.server,
                    "default": entry.dtype is None,
                    "dtype": entry.dtype or default(entry.server, folder_of(entry.model)),
                }
                for entry in lines
            ],
            "readings": readings,
        }
        write(path, result)


def _tell(name: str, reading: dict[str, Any]) -> None:
    said = reading.get("failed") or ", ".join(
        f"{row['users']} at once {row['tokens_per_second']:.3g} tokens/s"
        for row in reading["loads"]
    )
    print(f"{name}: {said} ({reading['wall']:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], help="lines whose name holds one of these")
    parser.add_argument("--quick", action="store_true", help="few, short answers of small models")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--theirs", default=str(python_of("transformers")))
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("ZEPHYR_REAL_DATA", ROOT.parent / "shared" / "data")),
    )
    given = parser.parse_args()
    data, models = given.data.resolve(), QUICK if given.quick else MODELS
    whole = not given.only and not given.quick
    out = (RESULTS if whole else FOLDER / "results") / "serving-cpu.json"

    def take_one(entry: Entry) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        asked = job(entry, data, given.theirs, quick=given.quick)
        return take("serve", asked, 1.0 if given.quick else QUIET)

    with alone():
        start = time.monotonic()
        wanted = entries(models, given.only)
        prepare(dict.fromkeys(entry.model for entry in wanted), data)
        lines = [e for e in wanted if e.dtype != default(e.server, folder_of(e.model))]
        run(lines, 1 if given.quick else given.rounds, out, take_one)
        print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    if whole:
        page.write()


if __name__ == "__main__":
    main()
