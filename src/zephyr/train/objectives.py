"""Objectives: from log-probabilities to a loss, as a sum and a weight.

A batch may be cut into several forwards: each gives a sum, and the weight of the whole batch is
known before the first of them, so that the gradient does not depend on the cut. Statistics are
(sum, weight) pairs for the same reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from zephyr.model.fork import Fork
from zephyr.model.layout import Batch
from zephyr.model.logprobs import sum_by_continuation


class Terms(NamedTuple):
    """The summed loss of one forward, and statistics summed over its examples."""

    loss: Tensor
    stats: dict[str, float]


class Objective(Protocol):
    """What a network is trained for."""

    def weight(self, forks: Sequence[Fork]) -> int:
        """What the summed loss of these examples is divided by."""

    def terms(self, logprobs: Tensor, batch: Batch, members: Sequence[int]) -> Terms:
        """`members` are the numbers of the batch's forks among all examples of the split."""


@dataclass(frozen=True)
class TokenLoss:
    """Mean negative log-likelihood of supervised tokens: `language` and `sft`."""

    def weight(self, forks: Sequence[Fork]) -> int:
        return sum(f.supervised for f in forks)

    def terms(self, logprobs: Tensor, batch: Batch, members: Sequence[int]) -> Terms:
        return Terms(-logprobs.sum(), {})


@dataclass(frozen=True)
class Dpo:
    """Direct preference optimization, -log sigmoid(beta x difference of log-ratios).

    Rafailov et al. 2023, equation 7. `reference` [examples, 2] holds the summed log-probabilities
    of the chosen and the rejected answer under the model as it was before its first step.
    """

    beta: float
    reference: NDArray[np.float32]

    def weight(self, forks: Sequence[Fork]) -> int:
        return len(forks)

    def terms(self, logprobs: Tensor, batch: Batch, members: Sequence[int]) -> Terms:
        policy = sum_by_continuation(logprobs, batch).view(-1, 2)
        reference = torch.from_numpy(self.reference[np.asarray(members)]).to(policy.device)
        rewards = self.beta * (policy - reference)
        margin = rewards[:, 0] - rewards[:, 1]
        with torch.no_grad():
            wins = (margin > 0).float() + (margin == 0).float() / 2
            columns = {
                "accuracy": wins,
                "margin": margin,
                "chosen_reward": rewards[:, 0],
                "rejected_reward": rewards[:, 1],
                "chosen_logprob": policy[:, 0],
                "rejected_logprob": policy[:, 1],
            }
            stats = {name: float(column.sum()) for name, column in columns.items()}
        return Terms(-logsigmoid(margin).sum(), stats)
