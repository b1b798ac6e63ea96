"""Experiment trackers (TensorBoard, W&B, MLflow, Trackio) that log metrics during training.

They get the rows of `metrics.jsonl` and nothing else. A training that resumes starts its trackers
anew, with all rows that the file still holds.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zephyr.errors import ZephyrError


def check_trackers_installed(tracker_names: Sequence[str]) -> None:
    """Checks that the packages of the experiment trackers are installed.

    Raises:
        ZephyrError: one is not.
    """
    for name in tracker_names:
        if importlib.util.find_spec(name) is None:
            raise ZephyrError(
                f"{name} is not installed",
                where="run.track",
                todo=f"pip install {name}, or take it out of run.track",
            )


@dataclass
class MetricTrackers:
    """Logs the metrics of the run in `folder` to the named experiment trackers.

    `project` and `run` are the names there: those of the recipe and the model.
    """

    tracker_names: Sequence[str]
    folder: Path
    project: str
    run: str
    bytes_read: int = 0
    """Bytes of `metrics.jsonl` that have been logged."""
    trackers: list[Any] = field(default_factory=list)
    exit_stack: ExitStack = field(default_factory=ExitStack)

    def log_new_rows(self) -> None:
        """Logs the metric rows written since the last call."""
        if not self.tracker_names:
            return
        if not self.trackers:
            self.trackers = [self._start(name) for name in self.tracker_names]
        with (self.folder / "metrics.jsonl").open("rb") as file:
            file.seek(self.bytes_read)
            for line in file:
                row = json.loads(line)
                values = {
                    f"{row['split']}/{key}": value
                    for key, value in row.items()
                    if key != "step" and isinstance(value, int | float)
                }
                for tracker in self.trackers:
                    tracker.log(values, step=row["step"])
            self.bytes_read = file.tell()

    def close(self) -> None:
        """Logs the remaining rows, and closes the trackers."""
        with self.exit_stack:
            if self.trackers:
                self.log_new_rows()

    def _start(self, name: str) -> Any:
        from accelerate import tracking

        shutil.rmtree(self.folder / name, ignore_errors=True)
        tracker: Any
        match name:
            case "tensorboard":
                tracker = tracking.TensorBoardTracker(self.run, logging_dir=self.folder / name)
            case "wandb":
                os.environ.setdefault("WANDB_MODE", "offline")
                os.environ.setdefault("WANDB_SILENT", "true")
                tracker = tracking.WandBTracker(self.project, name=self.run, dir=self.folder)
            case "mlflow":
                os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
                self._set_mlflow_uri()
                tracker = tracking.MLflowTracker(self.project, run_name=self.run)
            case _:
                tracker = tracking.TrackioTracker(self.project, name=self.run)
        tracker.start()
        self.exit_stack.callback(tracker.finish)
        return tracker

    def _set_mlflow_uri(self) -> None:
        """Sets MLflow's tracking URI to the run's folder, unless the environment names one."""
        if "MLFLOW_TRACKING_URI" in os.environ:
            return
        import mlflow

        (self.folder / "mlflow").mkdir()
        mlflow.set_tracking_uri(f"sqlite:///{self.folder}/mlflow/mlflow.db")
        self.exit_stack.callback(mlflow.set_tracking_uri, None)
