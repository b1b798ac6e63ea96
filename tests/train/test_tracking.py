"""Trackers show what the metrics hold, once, however often a training was stopped."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from zephyr.errors import ZephyrError
from zephyr.train.tracking import MetricTrackers, check_trackers_installed

ROWS: list[dict[str, Any]] = [
    {"step": 0, "split": "holdout", "loss": 3.1},
    {"step": 0, "split": "canary", "stopped": 0.25, "answers": [{"text": "4", "stopped": True}]},
    {"step": 10, "split": "train", "loss": 2.7, "lr": 1 / 3, "tokens": 1234},
    {"step": 20, "split": "train", "loss": 2.2, "lr": 2 / 3, "tokens": 1230},
    {"step": 20, "split": "holdout", "loss": 2.4},
]


def append_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def expected_scalars(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in ("step", "split", "answers"):
                found.setdefault(f"{row['split']}/{key}", []).append(
                    (row["step"], float(np.float32(value)))
                )
    return found


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / "M1"))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_the_metrics_of_a_training_that_was_killed_and_resumed(
    tmp_path: Path,
) -> None:
    """The first process has logged a step that the second, from its checkpoint, logs otherwise."""
    append_rows(tmp_path, [*ROWS[:3], {"step": 20, "split": "train", "loss": 9.9}])
    killed = MetricTrackers(["tensorboard"], tmp_path, "demo", "M1")
    killed.log_new_rows()
    assert read_scalars(tmp_path)["train/loss"][-1] == (20, float(np.float32(9.9)))
    killed.exit_stack.close()
    (tmp_path / "metrics.jsonl").unlink()
    append_rows(tmp_path, ROWS[:3])
    resumed = MetricTrackers(["tensorboard"], tmp_path, "demo", "M1")
    resumed.log_new_rows()
    append_rows(tmp_path, ROWS[3:4])
    resumed.log_new_rows()
    append_rows(tmp_path, ROWS[4:])
    resumed.close()
    assert read_scalars(tmp_path) == expected_scalars(ROWS)


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    quiet = MetricTrackers([], tmp_path, "demo", "M1")
    quiet.log_new_rows()
    quiet.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("wandb_mode", "expected_mode"), [(None, "offline"), ("online", "online")])
def test_wandb_stays_offline_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_mode: str | None, expected_mode: str
) -> None:
    """A stub of the package records its settings and what is logged."""
    from accelerate import PartialState

    PartialState()
    calls: list[Any] = []

    def init(**settings: Any) -> Any:
        calls.append((settings, os.environ["WANDB_MODE"]))
        return SimpleNamespace(
            log=lambda values, step: calls.append((values, step)),
            finish=lambda: calls.append("finished"),
        )

    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    if wandb_mode:
        monkeypatch.setenv("WANDB_MODE", wandb_mode)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    append_rows(tmp_path, ROWS[:1])
    tracking = MetricTrackers(["wandb"], tmp_path, "demo", "M1")
    tracking.log_new_rows()
    tracking.close()
    assert calls == [
        ({"project": "demo", "name": "M1", "dir": tmp_path}, expected_mode),
        ({"holdout/loss": 3.1}, 0),
        "finished",
    ]


def test_a_tracker_that_is_not_installed_is_named() -> None:
    check_trackers_installed(["tensorboard"])
    with pytest.raises(ZephyrError) as caught:
        check_trackers_installed(["tensorboard", "notthere"])
    assert str(caught.value).splitlines() == [
        "notthere is not installed",
        "  where:   run.track",
        "  to do:   pip install notthere, or take it out of run.track",
    ]
