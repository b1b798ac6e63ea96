"""The whole pipeline on a user's own files: table, reuse, kills, Ctrl-C."""

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.workspace import Command, Workspace, collect_run_contents, make_workspace, wait_for


def test_every_cell_is_filled_or_explained(finished_workspace: Workspace) -> None:
    table = json.loads((finished_workspace.runs / "tiny" / "table.json").read_text())
    cells = [cell for row in table["models"] for cell in row["cells"]]
    assert len(table["models"]) == 4
    assert cells
    for cell in cells:
        assert (cell["value"] is None) == bool(cell["empty"]), cell
    empty = {
        (row["model"], c["metric"]) for row in table["models"] for c in row["cells"] if c["empty"]
    }
    assert {model for model, _ in empty} == {"M0"}
    assert all(metric.startswith("reward") for _, metric in empty)
    for name in ("table.md", "table.csv", "report.html"):
        assert (finished_workspace.runs / "tiny" / name).stat().st_size > 500
    figures = finished_workspace.runs / "tiny" / "figures"
    assert (
        {p.stem for p in figures.glob("*.png")} == {p.stem for p in figures.glob("*.svg")} != set()
    )


def test_the_tiny_model_learns(finished_workspace: Workspace) -> None:
    rows = [
        json.loads(r)
        for r in (finished_workspace.run_folder("M1") / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [r["loss"] for r in rows if r["split"] == "train"]
    assert losses[-1] < losses[0] - 1


def test_dpo_starts_at_ln_2_where_m1_stands(finished_workspace: Workspace) -> None:
    """Policy and reference are the same network, so that every reward is zero."""
    rows = [
        json.loads(r)
        for r in (finished_workspace.run_folder("M2") / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [r["loss"] for r in rows if r["split"] == "train"]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < 0.3


def test_an_alignment_is_evaluated_from_its_start_and_its_best_checkpoint_is_kept(
    finished_workspace: Workspace,
) -> None:
    run = finished_workspace.run_folder("M2")
    rows = [json.loads(r) for r in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = {r["step"]: r for r in rows if r["split"] == "holdout"}
    assert (
        list(evaluations)
        == [r["step"] for r in rows if r["split"] == "canary"]
        == [0, 5, 10, 15, 20]
    )
    start = evaluations[0]
    assert start["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert (start["accuracy"], start["margin"], start["chosen_reward"]) == (0.5, 0, 0)
    best = max(evaluations, key=lambda step: evaluations[step]["accuracy"])
    assert json.loads((run / "env.json").read_text())["kept_step"] == best
    prompts = json.loads((run / "artifact" / "canary.json").read_text())
    assert len(prompts) == len(set(prompts)) == 8
    assert all(text.endswith("Assistant:") for text in prompts)


def test_a_second_run_makes_nothing_and_beta_touches_m2_alone(
    finished_workspace: Workspace, tmp_path: Path, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "copy")
    shutil.copytree(finished_workspace.folder, workspace.folder)
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setenv("ZEPHYR_RUNS", str(workspace.runs))
    before = {p.name: p.stat().st_mtime_ns for p in (workspace.runs / "objects").iterdir()}
    started = time.monotonic()
    assert "0 to make" in zephyr("run", "tiny.yaml").out
    assert time.monotonic() - started < 30
    assert {p.name: p.stat().st_mtime_ns for p in (workspace.runs / "objects").iterdir()} == before

    change = ("--set", "models.M2.align.beta=0.5")
    why = zephyr("why", "M2", "-r", "tiny.yaml", *change).out
    assert "M2 is stale" in why
    assert "beta: (not set) -> 0.5" in why
    printed = zephyr("run", "tiny.yaml", *change).out
    made_nodes = {line.split()[2] for line in printed.splitlines() if line.startswith("[")}
    assert made_nodes == {"M2", "M2/gsm8k", "M2/mcqa", "M2/preferences", "M2/wikitext2"}


def test_killed_at_three_points_the_end_is_the_same(
    finished_workspace: Workspace, tmp_path: Path
) -> None:
    """SIGKILL in pretraining, in fine-tuning (the engine alone) and in alignment, then to the end.

    `make soak` kills at twenty other moments.
    """
    workspace = make_workspace(tmp_path / "killed")
    for name in ("M0", "M1", "M2"):
        fingerprint = finished_workspace.fingerprints()[name]
        part = workspace.runs / "objects" / f"{fingerprint}.part"
        process = workspace.start_command("run", "tiny.yaml")
        wait_for(lambda: list(part.glob("checkpoints/step-*")), process)  # noqa: B023  # used at once
        workspace.kill(process, whole_process_group=name != "M1")
        assert not (workspace.runs / "objects" / fingerprint).exists()
    workspace.run_command("run", "tiny.yaml")
    assert collect_run_contents(workspace) == collect_run_contents(finished_workspace)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(
    finished_workspace: Workspace, tmp_path: Path
) -> None:
    workspace = make_workspace(tmp_path / "stopped")
    fingerprint = finished_workspace.nodes_by_name()["M0"]["fingerprint"]
    part = workspace.runs / "objects" / f"{fingerprint}.part"
    process = workspace.start_command("run", "tiny.yaml")
    wait_for(lambda: any(part.glob("checkpoints/step-*")), process)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "to go on: zephyr run tiny.yaml" in printed
    assert "Traceback" not in printed
    assert list(part.glob("checkpoints/step-*"))


def test_a_second_process_is_refused_while_one_runs(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "busy")
    process = workspace.start_command("run", "tiny.yaml")
    wait_for((workspace.runs / "lock.json").exists, process)
    output = workspace.run_command("run", "tiny.yaml", code=2)
    assert "another process is running in this store" in output
    workspace.kill(process)
