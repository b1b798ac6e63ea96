"""Best checkpoint (`keep`; HF's load_best_model_at_end): weights of the best evaluation."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LOWER_IS_BETTER = ("loss",)


class BestCheckpoint:
    """In-memory copy of the best weights so far, by a hold-out metric; a tie keeps the earlier.

    `state` holds the tensors to be saved in training checkpoints too; it is updated in place.
    """

    def __init__(self, keep: str, weights: Mapping[str, Tensor]) -> None:
        """`keep` names a metric, as in `best loss`; `weights` are those being trained."""
        self.metric = keep.removeprefix("best ")
        self.weights = weights
        copies = {f"best.{name}": w.detach().cpu().clone() for name, w in weights.items()}
        self.best_step_and_value = torch.tensor([0, math.nan], dtype=torch.float64)
        """[2]: step and metric of the best evaluation; the metric is NaN before the first."""
        self.state = {**copies, "best": self.best_step_and_value}

    @property
    def step(self) -> int:
        return int(self.best_step_and_value[0])

    def update(self, row: Mapping[str, Any]) -> None:
        """Copies the current weights if the metric of this evaluation row is the best yet."""
        value, best_value = row[self.metric], float(self.best_step_and_value[1])
        is_better = value < best_value if self.metric in LOWER_IS_BETTER else value > best_value
        if is_better or math.isnan(best_value):
            self.best_step_and_value.copy_(torch.tensor([row["step"], value], dtype=torch.float64))
            for name, weight in self.weights.items():
                self.state[f"best.{name}"].copy_(weight.detach())

    def restore(self) -> None:
        """Restores the best weights: copies them into those being trained."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.state[f"best.{name}"])
