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
from tests.place import Place, make_place, tiny_recipe, wait_for
from tests.train.session import CHECKS, together, trained
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
WHOLE = ["language", "dpo", "divided", "divided dpo"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have made all checks."""
    folder = tmp_path_factory.mktemp("session")
    together(folder)
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def result(session: Path, check: str, rank: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((session / f"{check}-{rank}.json").read_text())
    return value


@pytest.mark.parametrize("check", WHOLE)
def test_two_processes_give_the_losses_and_weights_of_one(
    session: Path, tmp_path: Path, check: str
) -> None:
    """13 examples in steps of 4: in the last step one process has nothing to do."""
    options: dict[str, Any] = {k: v for k, v in CHECKS[check].items() if k != "divides"}
    alone = trained(tmp_path, **options)
    for one, two in zip(rows(tmp_path), rows(session / check), strict=True):
        assert two == {
            key: value if key == "split" else pytest.approx(value, rel=1e-5, abs=1e-5)
            for key, value in one.items()
        }
    one, two = (load_file(f / "weights.safetensors") for f in (tmp_path, session / check))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    found = [made["reference"] for made in (result(session, check, 0), alone)]
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("check", WHOLE)
def test_both_processes_end_with_the_same_bits(session: Path, check: str) -> None:
    assert result(session, check, 0) == result(session, check, 1)


@pytest.mark.parametrize(
    ("cut", "whole"),
    [("cut", "language"), ("damaged", "language"), ("divided cut", "divided")],
)
def test_stopped_and_resumed_is_bit_equal(session: Path, cut: str, whole: str) -> None:
    digests = {result(session, *made)["digest"] for made in ((cut, 0), (cut, 1), (whole, 0))}
    assert len(digests) == 1
    assert rows(session / cut) == rows(session / whole)


def test_a_damaged_checkpoint_is_told_once_and_set_aside(session: Path) -> None:
    told = [result(session, "damaged", rank)["told"] for rank in range(2)]
    assert [len(texts) for texts in told] == [1, 0]
    assert "step-00000003" in told[0][0]


def test_what_fails_in_one_process_is_told_by_the_first(session: Path) -> None:
    told = result(session, "failing", 0)["error"]
    assert told.startswith("another process of this training has failed")
    assert "process 1: the disk is full" in told


def test_shares_are_whole_and_even() -> None:
    sizes = [7, 5, 4, 4, 3, 1]
    parts = balance_by_size(sizes, 3)
    assert sorted(i for part in parts for i in part) == list(range(6))
    assert [sum(sizes[i] for i in part) for part in parts] == [8, 8, 8]
    assert balance_by_size(sizes, 1) == [list(range(6))]


@pytest.mark.parametrize("divides", [False, True])
def test_every_fork_counts_in_one_process(divides: bool) -> None:
    """Three processes and two forks, or forwards of uneven number: who has none counts nothing."""
    for count in (2, 9):
        forks = tiny.examples(count=count)
        made = [
            list(micro_batches(forks, 60, "tree", ProcessGroup(rank, 3, divides)))
            for rank in range(3)
        ]
        counted = [i for cuts in made for cut, counts in cuts if counts for i in cut]
        assert sorted(counted) == list(range(count))
        assert all(made)
        assert len({len(cuts) for cuts in made}) == 1 or not divides


def test_a_training_is_not_resumed_with_fewer_processes(tmp_path: Path) -> None:
    run = Run(tmp_path)
    begun = load_or_create_environment(run, current_environment(1, 2, shard=True))
    assert (begun["processes"], begun["shard"]) == (2, True)
    assert load_or_create_environment(run, current_environment(1, 4, shard=False)) == begun
    with pytest.raises(ZephyrError, match="--processes 2"):
        load_or_create_environment(run, current_environment(1, 1, shard=False))


def test_no_best_weights_are_kept_of_divided_ones(tmp_path: Path) -> None:
    spec = Pretrain(data="d", length=8, evaluate_every=1, steps=2, keep="best loss")
    recipe = Recipe(name="r", data={}, models={"M0": ModelSpec(pretrain=spec)})
    context = Context(recipe, tmp_path, tmp_path, 256, group=ProcessGroup(0, 2, is_sharded=True))
    split = ExampleSplit(tiny.examples(count=2), TokenLoss())
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


def test_killed_processes_leave_none_and_torchrun_goes_on(finished: Place, tmp_path: Path) -> None:
    """SIGKILL of a follower, then of the engine; the end has the losses of one process."""
    place = make_place(tmp_path / "killed")
    recipe = tiny_recipe() | {"evaluate": {}}
    del recipe["models"]["M1-nf4"], recipe["models"]["M2"]
    place.recipe.write_text(yaml.safe_dump(recipe))
    mark = finished.nodes()["M0"]["fingerprint"]
    part = place.runs / "objects" / f"{mark}.part"

    for victim in ("follower", "engine"):
        process = place.start("run", "tiny.yaml", "--processes", "2")
        step = max((int(p.name[-8:]) for p in part.glob("checkpoints/step-*")), default=0)
        wait_for((part / f"checkpoints/step-{step + 7:08d}").exists, process)
        workers = children(process.pid)
        if victim == "follower":
            os.kill(workers[0], signal.SIGKILL)
            printed, _ = process.communicate(timeout=60)
            assert process.returncode == 2, printed
            assert "the process that helped to make M0 ended with code -9" in printed
            assert "Not tried: M1" in printed
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
        cwd=place.folder,
        env={**os.environ, "ZEPHYR_RUNS": str(place.runs), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert json.loads((place.run("M1") / "env.json").read_text())["processes"] == 2
    for name in ("M0", "M1"):
        for one, two in zip(rows(finished.run(name)), rows(place.run(name)), strict=True):
            assert two["split"] == one["split"]
            if one["split"] != "canary":
                assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


def children(pid: int) -> list[int]:
    """The workers that a process has started, in order: followers come before their leader."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
