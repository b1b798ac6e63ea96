"""Twenty kills at random moments, twenty identical ends."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.workspace import Workspace, collect_run_contents, make_workspace

KILLS = 20
FREQUENT_CHECKPOINTS = (
    "--set",
    "run.checkpoint_every=1",
    "--set",
    "models.M1.tune.evaluate_every=2",
)
"""A checkpoint after each step, and many hold-out evaluations: kills meet them, too."""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]


class KillTime(NamedTuple):
    """When a run is to be killed: so many seconds after it has come so far."""

    progress: int
    seconds: float


class UninterruptedRun(NamedTuple):
    """A workspace whose run was not killed, and how far it had come at which time."""

    workspace: Workspace
    progress_log: list[tuple[float, int]]
    seconds: float

    def kill_time(self, at: float) -> KillTime:
        """The moment at a share of the run's time, given so that it does not depend on the load."""
        seconds = at * self.seconds
        then, progress = max(row for row in self.progress_log if row[0] <= seconds)
        return KillTime(progress, seconds - then)


def count_progress(workspace: Workspace) -> int:
    """Grows with each node that is begun and each row that is logged."""
    runs = list((workspace.runs / "objects").glob("*"))
    logs = [run / "metrics.jsonl" for run in runs]
    return len(runs) + sum(log.read_bytes().count(b"\n") for log in logs if log.exists())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> UninterruptedRun:
    workspace = make_workspace(tmp_path_factory.mktemp("whole"))
    start = time.monotonic()
    process = workspace.start_fresh_interpreter("run", "tiny.yaml", *FREQUENT_CHECKPOINTS)
    progress_log = [(0.0, 0)]
    while process.poll() is None:
        with suppress(FileNotFoundError):  # a run has just got its last name
            now = count_progress(workspace)
            if now > progress_log[-1][1]:
                progress_log.append((time.monotonic() - start, now))
        time.sleep(0.005)
    seconds = time.monotonic() - start
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return UninterruptedRun(workspace, progress_log, seconds)


@pytest.fixture(scope="module")
def kill_counts() -> Iterator[Counter[str]]:
    """What was under way when it was killed."""
    counts: Counter[str] = Counter()
    yield counts
    print("\n" + "\n".join(f"{count:3} kills met {what}" for what, count in counts.most_common()))


@pytest.mark.parametrize("number", range(KILLS))
def test_the_end_is_the_same(
    uninterrupted: UninterruptedRun, tmp_path: Path, number: int, kill_counts: Counter[str]
) -> None:
    """The first kill is early in the run, the last late: each falls into its twentieth of it."""
    workspace = make_workspace(tmp_path / "killed")
    kill_time = uninterrupted.kill_time((number + random.Random(number).random()) / KILLS)
    process = workspace.start_fresh_interpreter("run", "tiny.yaml", *FREQUENT_CHECKPOINTS)
    wait_for_kill_time(workspace, process, kill_time)
    workspace.kill(process, whole_process_group=number % 4 != 3)
    kill_counts.update(unfinished_work(workspace))
    workspace.run_command("run", "tiny.yaml", *FREQUENT_CHECKPOINTS)
    assert collect_run_contents(workspace) == collect_run_contents(uninterrupted.workspace)


def wait_for_kill_time(workspace: Workspace, process: Any, kill_time: KillTime) -> None:
    """Until the moment; where a quiet time is shorter than it was, until something happens."""
    reached_at = None
    while process.poll() is None:
        with suppress(FileNotFoundError):
            now = count_progress(workspace)
            if now > kill_time.progress:
                return
            if now == kill_time.progress:
                reached_at = reached_at or time.monotonic()
                if time.monotonic() - reached_at >= kill_time.seconds:
                    return
        time.sleep(0.005)


def unfinished_work(workspace: Workspace) -> list[str]:
    """What each unfinished run was at, as far as its files tell."""
    if not (workspace.runs / "tiny" / "nodes.json").exists():
        return ["the start"]
    kinds = {node["fingerprint"]: node["kind"] for node in workspace.nodes_by_name().values()}
    parts = list((workspace.runs / "objects").glob("*.part"))
    return [f"{kinds[path.stem]}, {current_step(path)}" for path in parts] or ["no run"]


def current_step(run: Path) -> str:
    if (run / "DONE").exists():
        return "its last name"
    if (run / "checkpoints" / "writing").exists():
        return "a checkpoint half written"
    if list(run.rglob("*.tmp")):
        return "a file half written"
    if any((run / "artifact" / name).exists() for name in ("adapter", "weights", "items.jsonl")):
        return "what it made half written"
    if (run / "checkpoints").exists():
        return "its steps"
    return "before its steps"
