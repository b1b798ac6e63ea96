"""The status of each node of a recipe: finished, failed, damaged, unfinished or missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zephyr.report.integrity import integrity_error
from zephyr.runs.store import Run

RunState = Literal["finished", "failed", "damaged", "unfinished", "missing"]


@dataclass(frozen=True)
class NodeStatus:
    """The status of one node of the recipe, with the size and cost of its run.

    `reason` says why the run is not finished. `artifact_bytes` is the size of its artifact (for
    LoRA, only the adapter); `run_bytes` that of its whole folder with checkpoints.
    """

    name: str
    kind: str
    inputs: Mapping[str, str]
    run: Run
    state: RunState
    reason: str | None
    cause: str | None
    """The failed node that blocks it (perhaps itself)."""
    seconds: float | None
    artifact_bytes: int | None
    run_bytes: int | None
    joules: float | None = None
    """Energy used by the machine's processors meanwhile, if they have meters."""


def read_node_status(
    node: Mapping[str, Any], statuses: Mapping[str, NodeStatus], run: Run
) -> NodeStatus:
    """Reads the status of a node from its run; `statuses` holds those of its inputs."""
    name, kind, inputs = node["name"], node["kind"], node["inputs"]
    if error := integrity_error(run):
        return NodeStatus(name, kind, inputs, run, "damaged", error, None, None, None, None)
    if run.is_finished:
        sizes: dict[str, int] = run.read("DONE")["bytes"]
        artifact_bytes = sum(size for path, size in sizes.items() if path.startswith("artifact/"))
        run_bytes, env = sum(sizes.values()), run.read("env.json")
        seconds, joules = env["seconds"], env.get("joules")
        return NodeStatus(
            name,
            kind,
            inputs,
            run,
            "finished",
            None,
            None,
            seconds,
            artifact_bytes,
            run_bytes,
            joules,
        )
    state: RunState
    if run.failure is not None:
        state, cause, reason = "failed", name, f"failed: {_error_line(run.failure)}"
    else:
        state = "unfinished" if run.path.exists() else "missing"
        cause = next((c for used in inputs.values() if (c := statuses[used].cause)), None)
        reason = f"not made: {cause} failed" if cause else _PENDING_REASONS[state]
    return NodeStatus(name, kind, inputs, run, state, reason, cause, None, None, None)


_PENDING_REASONS = {"unfinished": "unfinished", "missing": "not made yet"}


def _error_line(failure: str) -> str:
    """The line of a failure that names the error: the last of a traceback, else the first."""
    lines = failure.strip().splitlines() or ["no reason was kept"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
