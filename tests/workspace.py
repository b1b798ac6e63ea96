"""A workspace with a tiny recipe on its own files, and ways to run it."""

import hashlib
import json
import os
import re
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

from tests.command_process import CommandProcess

NODE_STATE = re.compile(r"^(\S+) .* (\w+) +[0-9a-f]{20} ", re.MULTILINE)
"""A line of `zephyr plan`: the node and its state."""
WORDS = ["force", "mass", "energy", "speed", "charge", "power", "work", "heat"]


class CommandOutput(NamedTuple):
    """The exit code of a command, and its output."""

    code: int
    out: str
    err: str


Command = Callable[..., CommandOutput]


@dataclass(frozen=True)
class Workspace:
    """A workspace: a folder with a recipe, its data files and its runs."""

    folder: Path

    def copy(self, folder: Path) -> "Workspace":
        """Copies the workspace, so that a test may change it."""
        shutil.copytree(self.folder, folder)
        return Workspace(folder)

    @property
    def recipe_path(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def start_command(self, *arguments: str) -> CommandProcess:
        """Starts the command line in a process that has imported everything already."""
        return CommandProcess(arguments, self.folder, self._env)

    def start_fresh_interpreter(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the command line in an interpreter of its own, as a user does."""
        return subprocess.Popen(
            [sys.executable, "-m", "zephyr", *arguments],
            cwd=self.folder,
            env={**os.environ, **self._env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def _env(self) -> dict[str, str]:
        return {"ZEPHYR_RUNS": str(self.runs), "OMP_NUM_THREADS": "1"}

    def kill(
        self, process: subprocess.Popen[str] | CommandProcess, *, whole_process_group: bool = True
    ) -> str:
        """SIGKILL to a command's process group, or to its process alone; returns its output."""
        if whole_process_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        return process.communicate()[0]

    def run_command(self, *arguments: str, code: int = 0) -> str:
        """Runs the command line to its end and returns its output."""
        process = self.start_command(*arguments)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == code, output
        return output

    def nodes_by_name(self) -> dict[str, Any]:
        nodes_file = json.loads((self.runs / "tiny" / "nodes.json").read_text())
        return {n["name"]: n for n in nodes_file["nodes"]}

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each node."""
        return {name: node["fingerprint"] for name, node in self.nodes_by_name().items()}

    def run_folder(self, name: str) -> Path:
        return self.runs / "objects" / self.nodes_by_name()[name]["fingerprint"]


NONDETERMINISTIC_KEYS = {
    "seconds",
    "joules",
    "tokens_per_second",
    "started",
    "told",
    "metrics_bytes",
    "sum",
}
"""Keys whose values depend on time, or on how often a run was interrupted."""


def collect_run_contents(workspace: Workspace) -> dict[str, Any]:
    """The contents of all runs of a workspace that must not depend on how they were made.

    That is the hash of each file; of JSON files with timings, the other keys.
    """
    contents: dict[str, Any] = {"nodes": workspace.fingerprints()}
    for name in workspace.nodes_by_name():
        run = workspace.run_folder(name)
        for path in sorted(run.rglob("*")):
            if path.is_file():
                contents[f"{name}/{path.relative_to(run)}"] = _comparable_content(path)
    return contents


def _comparable_content(path: Path) -> Any:
    if path.name == "DONE":
        return sorted(json.loads(path.read_text())["bytes"])
    if path.name in ("env.json", "state.json", "metrics.jsonl"):
        rows = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return [_drop_nondeterministic_keys(json.loads(row)) for row in rows]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _drop_nondeterministic_keys(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _drop_nondeterministic_keys(value) if isinstance(value, dict) else value
        for key, value in row.items()
        if key not in NONDETERMINISTIC_KEYS
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


def make_workspace(folder: Path, recipe: Mapping[str, Any] | None = None) -> Workspace:
    """Makes a workspace with the tiny recipe, or another one on its files, and no runs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder)
    workspace = Workspace(folder)
    workspace.recipe_path.write_text(yaml.safe_dump(recipe or tiny_recipe(), sort_keys=False))
    return workspace


def run_once(worker_folder: Path, name: str, recipe: Mapping[str, Any]) -> Workspace:
    """A workspace in which a recipe has been run, shared by all test processes.

    `worker_folder` is the temporary folder of this test process.
    """
    shared = worker_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else worker_folder
    workspace = Workspace(shared / name)
    with FileLock(shared / f"{name}.lock"):
        if not (workspace.runs / "tiny" / "report.html").exists():
            make_workspace(workspace.folder, recipe).run_command("run", "tiny.yaml")
    return workspace
