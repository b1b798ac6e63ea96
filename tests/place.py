"""A recipe on a user's own files, small enough to run in seconds, and ways to run it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from filelock import FileLock

from tests.commands import Started

WORDS = ["force", "mass", "energy", "speed", "charge", "power", "work", "heat"]


class Printed(NamedTuple):
    """The exit code of a command, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Printed]


@dataclass(frozen=True)
class Place:
    """A folder with a recipe, its files and its runs."""

    folder: Path

    def copy(self, folder: Path) -> "Place":
        """All of it, to be changed."""
        shutil.copytree(self.folder, folder)
        return Place(folder)

    @property
    def recipe(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def start(self, *arguments: str) -> Started:
        """Starts the command line as a process of its own, which has imported everything."""
        return Started(arguments, self.folder, self._setting)

    def start_anew(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the command line as a user does."""
        return subprocess.Popen(
            [sys.executable, "-m", "zephyr", *arguments],
            cwd=self.folder,
            env={**os.environ, **self._setting},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def _setting(self) -> dict[str, str]:
        return {"ZEPHYR_RUNS": str(self.runs), "OMP_NUM_THREADS": "1"}

    def kill(self, process: subprocess.Popen[str] | Started, *, group: bool = True) -> str:
        """SIGKILL to all processes of a command, or to the first alone; gives what it printed."""
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        return process.communicate()[0]

    def zephyr(self, *arguments: str, code: int = 0) -> str:
        """Runs the command line to its end and gives what it printed."""
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=240)
        assert process.returncode == code, printed
        return printed

    def nodes(self) -> dict[str, Any]:
        known = json.loads((self.runs / "tiny" / "nodes.json").read_text())
        return {n["name"]: n for n in known["nodes"]}

    def marks(self) -> dict[str, str]:
        """The fingerprint of each node."""
        return {name: node["fingerprint"] for name, node in self.nodes().items()}

    def run(self, name: str) -> Path:
        return self.runs / "objects" / self.nodes()[name]["fingerprint"]


VARYING = {"seconds", "joules", "tokens_per_second", "started", "told", "metrics_bytes", "sum"}
"""Keys whose values tell of time, or of how a run got there."""


def everything(place: Place) -> dict[str, Any]:
    """All that the runs of a place hold and that must not depend on how they got there.

    That is each file of each run, byte for byte; of those that tell of time, the rest.
    """
    found: dict[str, Any] = {"nodes": place.marks()}
    for name in place.nodes():
        run = place.run(name)
        for path in sorted(run.rglob("*")):
            if path.is_file():
                found[f"{name}/{path.relative_to(run)}"] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.name == "DONE":
        return sorted(json.loads(path.read_text())["bytes"])
    if path.name in ("env.json", "state.json", "metrics.jsonl"):
        rows = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return [_lasting(json.loads(row)) for row in rows]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lasting(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _lasting(value) if isinstance(value, dict) else value
        for key, value in row.items()
        if key not in VARYING
    }


def write_files(folder: Path) -> None:
    """Questions, pairs, a quiz, endings and text about eight words."""
    facts = [(f"What is {w}?", f"It is word {i} of eight. #### {i}") for i, w in enumerate(WORDS)]
    chats = [{"instruction": f"{q} ({n})", "output": a} for n in range(8) for q, a in facts]
    pairs = [
        {"prompt": f"{q} ({n})", "chosen": a, "rejected": "No idea at all."}
        for n in range(4)
        for q, a in facts
    ]
    quiz = [
        {"question": f"Which number has {w}?", "choices": ["0", "3", "7", "9"], "answer": i % 4}
        for i, w in enumerate(WORDS)
    ]
    test = [{"question": q, "answer": a} for q, a in facts]
    text = [
        {"text": f"The {w} of the body number {n} is known. " * 3} for n in range(60) for w in WORDS
    ]
    for name, rows in (
        ("chat.jsonl", chats),
        ("pairs.jsonl", pairs),
        ("quiz.jsonl", quiz),
        ("test.jsonl", test),
        ("text.jsonl", text),
    ):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def tiny_recipe() -> dict[str, Any]:
    shape = {"vocabulary": 320, "hidden": 32, "layers": 2, "heads": 2, "mlp": 64, "context": 128}
    often = {"log_every": 5, "evaluate_every": 10}
    best = {"log_every": 1, "evaluate_every": 5, "keep": "best accuracy", "canary_tokens": 8}
    return {
        "name": "tiny",
        "seed": 1,
        "data": {
            "text": {"kind": "passage", "clean": "report", "sources": [{"path": "text.jsonl"}]},
            "chat": {
                "kind": "chat",
                "clean": "report",
                "holdout": 0.1,
                "sources": [{"path": "chat.jsonl"}],
            },
            "pairs": {
                "kind": "pair",
                "clean": "report",
                "holdout": 0.25,
                "sources": [{"path": "pairs.jsonl"}],
            },
        },
        "models": {
            "M0": {
                "pretrain": {
                    "data": "text",
                    "tokenizer_data": ["chat"],
                    "shape": shape,
                    "length": 64,
                    "steps": 30,
                    "batch": 4,
                    "lr": 1e-2,
                    **often,
                }
            },
            "M1": {
                "from": "M0",
                "tune": {"data": "chat", "steps": 30, "batch": 8, "lr": 1e-2, **often},
            },
            "M2": {
                "from": "M1",
                "align": {"data": "pairs", "steps": 20, "batch": 4, "lr": 1e-3, **best},
            },
            "M1-nf4": {"from": "M1", "quantize": "nf4"},
        },
        "evaluate": {
            "tasks": [
                {"name": "gsm8k", "max_new_tokens": 20, "sources": [{"path": "test.jsonl"}]},
                {"name": "mcqa", "sources": [{"path": "quiz.jsonl"}]},
                {"name": "preferences", "data": "pairs"},
                {"name": "wikitext2", "n": 20, "sources": [{"path": "text.jsonl"}]},
            ]
        },
        "run": {"jobs": 2, "checkpoint_every": 7},
    }


def wait_for(condition: Any, process: Any) -> None:
    """Waits until it is so; fails if the process ends before."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def make_place(folder: Path, recipe: Mapping[str, Any] | None = None) -> Place:
    """A place where nothing has been run, with the tiny recipe or another one on its files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder)
    place = Place(folder)
    place.recipe.write_text(yaml.safe_dump(recipe or tiny_recipe(), sort_keys=False))
    return place


def run_once(own: Path, name: str, recipe: Mapping[str, Any]) -> Place:
    """A place where a recipe has been run, which all test processes share.

    `own` is the temporary folder of this one.
    """
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    place = Place(shared / name)
    with FileLock(shared / f"{name}.lock"):
        if not (place.runs / "tiny" / "report.html").exists():
            make_place(place.folder, recipe).zephyr("run", "tiny.yaml")
    return place
