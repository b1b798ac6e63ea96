"""Objectives: from log-probabilities to a loss, as a sum and a weight.

A batch may be cut into several forwards: each gives a sum, and the weight of the whole batch is
known before the first of them, so that the gradient does not depend on the cut. Statistics are
(sum, weight) pairs for the same reason, and a mean over tokens is taken within an answer, never
over the answers of a batch.
"""

import math
from collections.abc import Callable, Sequence
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
from zephyr.recipe.training import Align


class Terms(NamedTuple):
    """The summed loss of one forward, and statistics summed over its examples."""

    loss: Tensor
    stats: dict[str, float]


class Objective(Protocol):
    """What a network is trained for."""

    @property
    def start(self) -> float | None:
        """The loss of an example where policy and reference are the same model.

        None where that depends on the model.
        """

    def weight(self, forks: Sequence[Fork]) -> int:
        """What the summed loss of these examples is divided by."""

    def terms(self, logprobs: Tensor, batch: Batch, members: Sequence[int]) -> Terms:
        """`members` are the numbers of the batch's forks among all examples of the split."""


@dataclass(frozen=True)
class TokenLoss:
    """Mean negative log-likelihood of supervised tokens: `language` and `sft`."""

    @property
    def start(self) -> None:
        return None

    def weight(self, forks: Sequence[Fork]) -> int:
        return sum(f.supervised for f in forks)

    def terms(self, logprobs: Tensor, batch: Batch, members: Sequence[int]) -> Terms:
        return Terms(-logprobs.sum(), {})


class Pairs(NamedTuple):
    """Chosen and rejected answers [pairs, 2]: summed log-probabilities and supervised tokens."""

    policy: Tensor
    reference: Tensor | None
    """None where the loss compares with nothing."""
    tokens: Tensor

    def log_ratio(self, *, per_token: bool) -> Tensor:
        """The log-probability over that of the reference, summed or as a mean over tokens."""
        assert self.reference is not None, "the recipe says which losses have a reference"
        ratio = self.policy - self.reference
        return ratio / self.tokens if per_token else ratio

    @property
    def mean(self) -> Tensor:
        """The mean log-probability of a token."""
        return self.policy / self.tokens


class Judged(NamedTuple):
    """The loss [pairs] and the rewards [pairs, 2] of a forward."""

    loss: Tensor
    rewards: Tensor

    @property
    def margin(self) -> Tensor:
        """How much more the chosen answer is rewarded than the rejected one [pairs]."""
        return _lead(self.rewards)


def _lead(sides: Tensor) -> Tensor:
    return sides[:, 0] - sides[:, 1]


def dpo(pairs: Pairs, spec: Align) -> Judged:
    """Direct preference optimization, -log sigmoid(margin); reward: beta x log-ratio.

    Rafailov et al. 2023, equation 7. `length_normalized` divides log-ratios by the answer's tokens
    (Lambert et al. 2024, Tulu 3). With `label_smoothing` e a pair counts 1 - e as it is and e the
    other way round (Mitchell 2023, conservative DPO).
    """
    rewards = spec.beta * pairs.log_ratio(per_token=spec.length_normalized)
    margin = _lead(rewards)
    loss = -(1 - spec.label_smoothing) * logsigmoid(margin)
    return Judged(loss - spec.label_smoothing * logsigmoid(-margin), rewards)


def ipo(pairs: Pairs, spec: Align) -> Judged:
    """Identity preference optimization, (difference of log-ratios - 1 / (2 beta))^2.

    Azar et al. 2023, equation 17, whose tau is beta. Reward: beta x log-ratio, as DPO's; the margin
    aimed at is one half. `length_normalized` takes log-ratios as means over the answer's tokens.
    """
    ratio = pairs.log_ratio(per_token=spec.length_normalized)
    return Judged((_lead(ratio) - 1 / (2 * spec.beta)) ** 2, spec.beta * ratio)


def simpo(pairs: Pairs, spec: Align) -> Judged:
    """Simple preference optimization, -log sigmoid(margin - gamma), without a reference.

    Meng et al. 2024, equation 6. Reward (equation 4): beta x mean log-probability of a token.
    """
    assert spec.gamma is not None, "the recipe asks for it"
    rewards = spec.beta * pairs.mean
    return Judged(-logsigmoid(_lead(rewards) - spec.gamma), rewards)


def orpo(pairs: Pairs, spec: Align) -> Judged:
    """Odds ratio preference optimization: SFT - beta x log sigmoid(log odds ratio), no reference.

    Hong et al. 2024, equations 6 and 7, whose lambda is beta. The probability P of an answer is the
    geometric mean of its tokens' (equation 3), its odds P / (1 - P) (equation 4), and SFT the mean
    negative log-likelihood of the chosen answer's tokens. The paper names no reward: it is beta x
    log odds here, so that the margin is beta x log odds ratio. P is kept `CERTAIN` below 1.
    """
    mean = pairs.mean
    below = mean.clamp(max=-CERTAIN)
    odds = below - torch.log(-torch.expm1(below))
    return Judged(-mean[:, 0] - spec.beta * logsigmoid(_lead(odds)), spec.beta * odds)


CERTAIN = 1e-6
"""How far below 1 a probability stays where odds are taken: in float32, 1 has endless odds."""

_LOSSES: dict[str, Callable[[Pairs, Align], Judged]] = {
    "dpo": dpo,
    "ipo": ipo,
    "simpo": simpo,
    "orpo": orpo,
}


@dataclass(frozen=True)
class Preference:
    """The loss of a recipe's `align`, as a mean over pairs, and what became of the rewards.

    `sft_weight` adds the mean negative log-likelihood of a token of the chosen answer (Pang et al.
    2024, equation 1), taken for each pair by itself. `reference` [examples, 2] holds the summed
    log-probabilities of the chosen and the rejected answer under the model as it was before its
    first step; None where the loss has none.
    """

    spec: Align
    reference: NDArray[np.float32] | None

    @property
    def start(self) -> float | None:
        if self.spec.sft_weight:
            return None
        return {"dpo": math.log(2), "ipo": 1 / (4 * self.spec.beta**2)}.get(self.spec.loss)

    def weight(self, forks: Sequence[Fork]) -> int:
        return len(forks)

    def terms(self, logprobs: Tensor, batch: Batch, members: Sequence[int]) -> Terms:
        pairs = self._pairs(logprobs, batch, members)
        judged = _LOSSES[self.spec.loss](pairs, self.spec)
        loss = judged.loss.sum()
        if self.spec.sft_weight:
            loss = loss - self.spec.sft_weight * pairs.mean[:, 0].sum()
        with torch.no_grad():
            margin = judged.margin
            columns = {
                "accuracy": (margin > 0).float() + (margin == 0).float() / 2,
                "margin": margin,
                "chosen_reward": judged.rewards[:, 0],
                "rejected_reward": judged.rewards[:, 1],
                "chosen_logprob": pairs.policy[:, 0],
                "rejected_logprob": pairs.policy[:, 1],
            }
            stats = {name: float(column.sum()) for name, column in columns.items()}
        return Terms(loss, stats)

    def _pairs(self, logprobs: Tensor, batch: Batch, members: Sequence[int]) -> Pairs:
        policy = sum_by_continuation(logprobs, batch).view(-1, 2)
        tokens = torch.bincount(batch.owner, minlength=batch.continuations).view(-1, 2)
        if self.reference is None:
            return Pairs(policy, None, tokens)
        reference = torch.from_numpy(self.reference[np.asarray(members)]).to(policy.device)
        return Pairs(policy, reference, tokens)
