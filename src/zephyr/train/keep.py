"""What `keep` asks for: the weights of the evaluation that was best on the hold-out."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LOWER_IS_BETTER = ("loss",)


class Best:
    """A copy, in the main memory, of the weights that were best so far; a tie keeps the earlier.

    `state` is what a checkpoint has to hold beside the weights, and is written to in place.
    """

    def __init__(self, keep: str, weights: Mapping[str, Tensor]) -> None:
        """`keep` names a metric, as in `best loss`; `weights` are the live ones."""
        self.metric = keep.removeprefix("best ")
        self.weights = weights
        copies = {f"best.{name}": w.detach().cpu().clone() for name, w in weights.items()}
        self.found = torch.tensor([0, math.nan], dtype=torch.float64)
        """[2] the step of the best evaluation, and its value; not a number before the first."""
        self.state = {**copies, "best": self.found}

    @property
    def step(self) -> int:
        return int(self.found[0])

    def see(self, row: Mapping[str, Any]) -> None:
        """Takes an evaluation of the weights as they are now."""
        value, before = row[self.metric], float(self.found[1])
        better = value < before if self.metric in LOWER_IS_BETTER else value > before
        if better or math.isnan(before):
            self.found.copy_(torch.tensor([row["step"], value], dtype=torch.float64))
            for name, weight in self.weights.items():
                self.state[f"best.{name}"].copy_(weight.detach())

    def put_back(self) -> None:
        """Makes the live weights the best ones."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.state[f"best.{name}"])
