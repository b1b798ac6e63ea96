"""Training objectives (SFT cross-entropy, DPO, IPO, SimPO, ORPO loss): sum and denominator.

A batch may be split into several micro-batches (gradient accumulation): each gives a sum, and the
loss denominator of the whole batch is known before the first, so that the split changes no
gradient. Statistics are (sum, denominator) pairs for the same reason, and a mean over tokens is
taken within a completion, never over the completions of a batch.
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

from zephyr.model.batching import Batch
from zephyr.model.example import Example
from zephyr.model.logprobs import sum_by_completion
from zephyr.recipe.training import Align


class LossTerms(NamedTuple):
    """The summed loss of a micro-batch (scalar), and statistics summed over its examples."""

    loss: Tensor
    stats: dict[str, float]


class Objective(Protocol):
    """A training objective: the loss of a micro-batch from log-probabilities [N]."""

    @property
    def initial_loss(self) -> float | None:
        """Loss of an example before the first step, where policy equals reference model.

        None where that depends on the model.
        """

    def loss_denominator(self, examples: Sequence[Example]) -> int:
        """Loss denominator: the loss tokens or pairs that the summed loss is divided by."""

    def compute_loss(self, logprobs: Tensor, batch: Batch, indices: Sequence[int]) -> LossTerms:
        """Summed loss of a micro-batch from logprobs [N]; `indices` are of its split's examples."""


@dataclass(frozen=True)
class TokenLoss:
    """SFT and language-modeling loss: token cross-entropy over the loss mask."""

    @property
    def initial_loss(self) -> None:
        return None

    def loss_denominator(self, examples: Sequence[Example]) -> int:
        return sum(e.num_loss_tokens for e in examples)

    def compute_loss(self, logprobs: Tensor, batch: Batch, indices: Sequence[int]) -> LossTerms:
        return LossTerms(-logprobs.sum(), {})


class PairLogprobs(NamedTuple):
    """Chosen and rejected completions [B, 2]: summed log-probabilities and token counts."""

    policy_logprobs: Tensor
    reference_logprobs: Tensor | None
    """None where the loss needs no reference model."""
    token_counts: Tensor

    def log_ratio(self, *, per_token: bool) -> Tensor:
        """Log-ratio [B, 2] of policy to reference, summed over tokens or as their mean."""
        assert self.reference_logprobs is not None, "the recipe says which losses have a reference"
        ratio = self.policy_logprobs - self.reference_logprobs
        return ratio / self.token_counts if per_token else ratio

    @property
    def mean_logprobs(self) -> Tensor:
        """Mean log-probability [B, 2] per token of each completion."""
        return self.policy_logprobs / self.token_counts


class PairLosses(NamedTuple):
    """Per-pair losses [B] and implicit rewards [B, 2] of a micro-batch."""

    loss: Tensor
    rewards: Tensor

    @property
    def margin(self) -> Tensor:
        """Reward margin: chosen minus rejected reward [B]."""
        return _chosen_minus_rejected(self.rewards)


def _chosen_minus_rejected(sides: Tensor) -> Tensor:
    """Chosen minus rejected: [B, 2] gives [B]."""
    return sides[:, 0] - sides[:, 1]


def dpo_loss(pairs: PairLogprobs, spec: Align) -> PairLosses:
    """DPO loss (direct preference optimization), -log sigmoid(margin); reward: beta x log-ratio.

    Rafailov et al. 2023, equation 7. `length_normalized` divides log-ratios by the answer's tokens
    (Lambert et al. 2024, Tulu 3). With `label_smoothing` e a pair counts 1 - e as it is and e the
    other way round (Mitchell 2023, conservative DPO).
    """
    rewards = spec.beta * pairs.log_ratio(per_token=spec.length_normalized)
    margin = _chosen_minus_rejected(rewards)
    loss = -(1 - spec.label_smoothing) * logsigmoid(margin)
    return PairLosses(loss - spec.label_smoothing * logsigmoid(-margin), rewards)


def ipo_loss(pairs: PairLogprobs, spec: Align) -> PairLosses:
    """IPO loss (identity preference optimization), (log-ratio difference - 1 / (2 beta))^2.

    Azar et al. 2023, equation 17, whose tau is beta. Reward: beta x log-ratio, as DPO's; the margin
    aimed at is one half. `length_normalized` takes log-ratios as means over the answer's tokens.
    """
    ratio = pairs.log_ratio(per_token=spec.length_normalized)
    return PairLosses((_chosen_minus_rejected(ratio) - 1 / (2 * spec.beta)) ** 2, spec.beta * ratio)


def simpo_loss(pairs: PairLogprobs, spec: Align) -> PairLosses:
    """SimPO loss (simple preference optimization), -log sigmoid(margin - gamma), no reference.

    Meng et al. 2024, equation 6. Reward (equation 4): beta x mean log-probability of a token.
    """
    assert spec.gamma is not None, "the recipe asks for it"
    rewards = spec.beta * pairs.mean_logprobs
    return PairLosses(-logsigmoid(_chosen_minus_rejected(rewards) - spec.gamma), rewards)


def orpo_loss(pairs: PairLogprobs, spec: Align) -> PairLosses:
    """ORPO loss (odds ratio preference optimization): SFT - beta x log sigmoid(log odds ratio).

    Hong et al. 2024, equations 6 and 7, whose lambda is beta; no reference. The probability P of an
    answer is the geometric mean of its tokens' (equation 3), its odds P / (1 - P) (equation 4), and
    SFT the mean negative log-likelihood of the chosen answer's tokens. The paper names no reward:
    it is beta x log odds here, so that the margin is beta x log odds ratio. P is kept
    `ODDS_EPSILON` below 1.
    """
    mean_logprobs = pairs.mean_logprobs
    clamped = mean_logprobs.clamp(max=-ODDS_EPSILON)
    log_odds = clamped - torch.log(-torch.expm1(clamped))
    return PairLosses(
        -mean_logprobs[:, 0] - spec.beta * logsigmoid(_chosen_minus_rejected(log_odds)),
        spec.beta * log_odds,
    )


ODDS_EPSILON = 1e-6
"""How far below 1 a probability stays where odds are taken: in float32, odds of 1 are infinite."""

_LOSSES: dict[str, Callable[[PairLogprobs, Align], PairLosses]] = {
    "dpo": dpo_loss,
    "ipo": ipo_loss,
    "simpo": simpo_loss,
    "orpo": orpo_loss,
}


@dataclass(frozen=True)
class PreferenceLoss:
    """Preference loss (DPO, IPO, SimPO or ORPO) as a mean over pairs, and reward statistics.

    `sft_weight` adds the mean negative log-likelihood of a token of the chosen answer (Pang et al.
    2024, equation 1), taken for each pair by itself. `reference_logprobs` [B, 2] are the summed
    log-probabilities of the chosen and the rejected answer under the reference model; None where
    the loss needs none.
    """

    spec: Align
    reference_logprobs: NDArray[np.float32] | None

    @property
    def initial_loss(self) -> float | None:
        if self.spec.sft_weight:
            return None
        return {"dpo": math.log(2), "ipo": 1 / (4 * self.spec.beta**2)}.get(self.spec.loss)

    def loss_denominator(self, examples: Sequence[Example]) -> int:
        return len(examples)

    def compute_loss(self, logprobs: Tensor, batch: Batch, indices: Sequence[int]) -> LossTerms:
        pairs = self._pair_logprobs(logprobs, batch, indices)
        losses = _LOSSES[self.spec.loss](pairs, self.spec)
        loss = losses.loss.sum()
        if self.spec.sft_weight:
            loss = loss - self.spec.sft_weight * pairs.mean_logprobs[:, 0].sum()
        with torch.no_grad():
            margin = losses.margin
            columns = {
                "accuracy": (margin > 0).float() + (margin == 0).float() / 2,
                "margin": margin,
                "chosen_reward": losses.rewards[:, 0],
                "rejected_reward": losses.rewards[:, 1],
                "chosen_logprob": pairs.policy_logprobs[:, 0],
                "rejected_logprob": pairs.policy_logprobs[:, 1],
            }
            stats = {name: float(column.sum()) for name, column in columns.items()}
        return LossTerms(loss, stats)

    def _pair_logprobs(
        self, logprobs: Tensor, batch: Batch, indices: Sequence[int]
    ) -> PairLogprobs:
        """Policy and reference log-probabilities and token counts [B, 2] from logprobs [N]."""
        policy_logprobs = sum_by_completion(logprobs, batch).view(-1, 2)
        token_counts = torch.bincount(batch.completion_index, minlength=batch.num_completions).view(
            -1, 2
        )
        if self.reference_logprobs is None:
            return PairLogprobs(policy_logprobs, None, token_counts)
        reference_logprobs = torch.from_numpy(self.reference_logprobs[np.asarray(indices)]).to(
            policy_logprobs.device
        )
        return PairLogprobs(policy_logprobs, reference_logprobs, token_counts)
