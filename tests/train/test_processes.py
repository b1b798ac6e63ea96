"""Two processes train as one does, go on where they stopped, and end when one of them ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import tiny
from tests.train.two_ranks import CHECKS, run_both_ranks, train_tiny_model
from tests.workspace import Workspace, make_workspace, tiny_recipe, wait_for
from zephyr.distributed.process_group import ProcessGroup, balance_by_size
from zephyr.engine.environment import current_environment, load_or_create_environment
from zephyr.errors import ZephyrError
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Pretrain
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run
from zephyr.train.loop import ExampleSplit
from zephyr.train.micro_batches import micro_batches
from zephyr.train.objectives import TokenLoss
from zephyr.train.stages import _train

TIMES = {"seconds", "tokens_per_second"}
UNINTERRUPTED_CHECKS = ["sft", "dpo", "sharded", "sharded dpo"]


@pytest.fixture(scope="module")
def checks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of all checks by two processes."""
    folder = tmp_path_factory.mktemp("session")
    run_both_ranks(folder)
    return folder


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def read_result(checks_folder: Path, check: str, rank: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((checks_folder / f"{check}-{rank}.json").read_text())
    return value


@pytest.mark.parametrize("check", UNINTERRUPTED_CHECKS)
def test_two_processes_give_the_losses_and_weights_of_one(
    checks_folder: Path, tmp_path: Path, check: str
) -> None:
    """13 examples in steps of 4: in the last step one process has nothing to do."""
    options: dict[str, Any] = {k: v for k, v in CHECKS[check].items() if k != "is_sharded"}
    alone = train_tiny_model(tmp_path, **options)
    for one, two in zip(read_metrics(tmp_path), read_metrics(checks_folder / check), strict=True):
        assert two == {
            key: value if key == "split" else pytest.approx(value, rel=1e-5, abs=1e-5)
            for key, value in one.items()
        }
    one, two = (load_file(f / "weights.safetensors") for f in (tmp_path, checks_folder / check))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    found = [made["reference"] for made in (read_result(checks_folder, check, 0), alone)]
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("check", UNINTERRUPTED_CHECKS)
def test_both_processes_end_with_the_same_bits(checks_folder: Path, check: str) -> None:
    assert read_result(checks_folder, check, 0) == read_result(checks_folder, check, 1)


@pytest.mark.parametrize(
    ("interrupted", "uninterrupted"),
    [("interrupted", "sft"), ("corrupted", "sft"), ("sharded interrupted", "sharded")],
)
def test_stopped_and_resumed_is_bit_equal(
    checks_folder: Path, interrupted: str, uninterrupted: str
) -> None:
    digests = {
        read_result(checks_folder, *made)["digest"]
        for made in ((interrupted, 0), (interrupted, 1), (uninterrupted, 0))
    }
    assert len(digests) == 1
    assert read_metrics(checks_folder / interrupted) == read_metrics(checks_folder / uninterrupted)


def test_a_corrupted_checkpoint_is_reported_once_and_set_aside(checks_folder: Path) -> None:
    messages = [read_result(checks_folder, "corrupted", rank)["messages"] for rank in range(2)]
    assert [len(texts) for texts in messages] == [1, 0]
    assert "step-00000003" in messages[0][0]


def test_an_error_of_one_process_is_reported_by_the_first(checks_folder: Path) -> None:
    error = read_result(checks_folder, "failing", 0)["error"]
    assert error.startswith("another process of this training has failed")
    assert "process 1: the disk is full" in error


def test_balanced_parts_are_complete_and_even() -> None:
    sizes = [7, 5, 4, 4, 3, 1]
    parts = balance_by_size(sizes, 3)
    assert sorted(i for part in parts for i in part) == list(range(6))
    assert [sum(sizes[i] for i in part) for part in parts] == [8, 8, 8]
    assert balance_by_size(sizes, 1) == [list(range(6))]


@pytest.mark.parametrize("is_sharded", [False, True])
def test_every_example_counts_in_one_process(is_sharded: bool) -> None:
    """Three processes with two examples, or uneven numbers of micro-batches: none counts twice."""
    for count in (2, 9):
        examples = tiny.random_examples(count=count)
        batches_by_rank = [
            list(micro_batches(examples, 60, "tree", ProcessGroup(rank, 3, is_sharded)))
            for rank in range(3)
        ]
        counted = [
            i
            for batches in batches_by_rank
            for indices, counts in batches
            if counts
            for i in indices
        ]
        assert sorted(counted) == list(range(count))
        assert all(batches_by_rank)
        assert len({len(batches) for batches in batches_by_rank}) == 1 or not is_sharded


def test_a_training_is_not_resumed_with_fewer_processes(tmp_path: Path) -> None:
    run = Run(tmp_path)
    environment = load_or_create_environment(run, current_environment(1, 2, shard=True))
    assert (environment["processes"], environment["shard"]) == (2, True)
    assert load_or_create_environment(run, current_environment(1, 4, shard=False)) == environment
    with pytest.raises(ZephyrError, match="--processes 2"):
        load_or_create_environment(run, current_environment(1, 1, shard=False))


def test_no_best_weights_are_kept_of_sharded_ones(tmp_path: Path) -> None:
    spec = Pretrain(data="d", length=8, evaluate_every=1, steps=2, keep="best loss")
    recipe = Recipe(name="r", data={}, models={"M0": ModelSpec(pretrain=spec)})
    context = Context(recipe, tmp_path, tmp_path, 256, group=ProcessGroup(0, 2, is_sharded=True))
    split = ExampleSplit(tiny.random_examples(count=2), TokenLoss())
    with pytest.raises(ZephyrError, match="no copy is kept of weights that are divided"):
        _train(
            tiny.make_model("qwen2"),
            split,
            split,
            None,
            spec,
            Node("M0", "pretrain", {"seed": 1}, {}),
            Run(tmp_path),
            context,
        )


def test_killed_processes_leave_none_and_torchrun_goes_on(
    finished_workspace: Workspace, tmp_path: Path
) -> None:
    """SIGKILL of a rank worker, then of the engine; the end has the losses of one process."""
    workspace = make_workspace(tmp_path / "killed")
    recipe = tiny_recipe() | {"evaluate": {}}
    del recipe["models"]["M1-nf4"], recipe["models"]["M2"]
    workspace.recipe_path.write_text(yaml.safe_dump(recipe))
    fingerprint = finished_workspace.nodes_by_name()["M0"]["fingerprint"]
    partial_run = workspace.runs / "objects" / f"{fingerprint}.part"

    for victim in ("rank worker", "engine"):
        process = workspace.start_command("run", "tiny.yaml", "--processes", "2")
        step = max((int(p.name[-8:]) for p in partial_run.glob("checkpoints/step-*")), default=0)
        wait_for((partial_run / f"checkpoints/step-{step + 7:08d}").exists, process)
        workers = child_pids(process.pid)
        if victim == "rank worker":
            os.kill(workers[0], signal.SIGKILL)
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 2, output
            assert "the process that helped to make M0 ended with code -9" in output
            assert "Not tried: M1" in output
        else:
            process.kill()
            process.communicate(timeout=60)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, "-m", "zephyr", "run", "tiny.yaml"],
        cwd=workspace.folder,
        env={**os.environ, "ZEPHYR_RUNS": str(workspace.runs), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert json.loads((workspace.run_folder("M1") / "env.json").read_text())["processes"] == 2
    for name in ("M0", "M1"):
        for one, two in zip(
            read_metrics(finished_workspace.run_folder(name)),
            read_metrics(workspace.run_folder(name)),
            strict=True,
        ):
            assert two["split"] == one["split"]
            if one["split"] != "canary":
                assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


def child_pids(pid: int) -> list[int]:
    """The workers that a process has started, in order: rank workers before that of rank 0."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
