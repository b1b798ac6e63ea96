"""Trackers: programs that show the metrics of a training as they come.

They follow `metrics.jsonl` and are told nothing else, so that they show what it holds. A training
that goes on where it was stopped starts its trackers anew, with all that the file still holds.
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


def refuse_missing(names: Sequence[str]) -> None:
    """
    Raises:
        ZephyrError: the package of a tracker is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ZephyrError(
                f"{name} is not installed",
                where="run.track",
                todo=f"pip install {name}, or take it out of run.track",
            )


@dataclass
class Tracking:
    """Gives the metrics of the run in `folder` to the trackers that are named.

    `project` and `run` are what they call it: the recipe and the model.
    """

    names: Sequence[str]
    folder: Path
    project: str
    run: str
    read: int = 0
    """Bytes of the metrics that the trackers have."""
    trackers: list[Any] = field(default_factory=list)
    ending: ExitStack = field(default_factory=ExitStack)

    def follow(self) -> None:
        """Gives the trackers what was written since the last time."""
        if not self.names:
            return
        if not self.trackers:
            self.trackers = [self._start(name) for name in self.names]
        with (self.folder / "metrics.jsonl").open("rb") as file:
            file.seek(self.read)
            for line in file:
                row = json.loads(line)
                values = {
                    f"{row['split']}/{key}": value
                    for key, value in row.items()
                    if key != "step" and isinstance(value, int | float)
                }
                for tracker in self.trackers:
                    tracker.log(values, step=row["step"])
            self.read = file.tell()

    def close(self) -> None:
        """Gives the trackers the rest, and ends them."""
        with self.ending:
            if self.trackers:
                self.follow()

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
                self._place_mlflow()
                tracker = tracking.MLflowTracker(self.project, run_name=self.run)
            case _:
                tracker = tracking.TrackioTracker(self.project, name=self.run)
        tracker.start()
        self.ending.callback(tracker.finish)
        return tracker

    def _place_mlflow(self) -> None:
        """Lets it write into the run, unless the environment names another place."""
        if "MLFLOW_TRACKING_URI" in os.environ:
            return
        import mlflow

        (self.folder / "mlflow").mkdir()
        mlflow.set_tracking_uri(f"sqlite:///{self.folder}/mlflow/mlflow.db")
        self.ending.callback(mlflow.set_tracking_uri, None)
