"""Objectives against values derived by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from zephyr.model.batching import collate
from zephyr.model.example import make_example
from zephyr.recipe.training import Align
from zephyr.train.objectives import LossTerms, PreferenceLoss, TokenLoss

EXAMPLES = [make_example([1, 2], [3], [4, 5]), make_example([1], [6, 7], [8])]
LOGPROBS = torch.tensor([-1.0, -2.0, -0.5, -3.0, -0.25, -4.0], requires_grad=True)
"""Answers' sums: -1 and -2.5 for the first example, -3.25 and -4 for the second."""

REFERENCE_LOGPROBS = np.array([[-2, -2], [-3, -5]], dtype=np.float32)
"""Log-ratios: 1 and -0.5, then -0.25 and 1; by token 1 and -0.25, then -0.125 and 1."""


def preference_terms(
    reference: np.ndarray | None = REFERENCE_LOGPROBS, **settings: Any
) -> LossTerms:
    spec = Align(data="pairs", **settings)
    return PreferenceLoss(spec, reference).compute_loss(LOGPROBS, collate(EXAMPLES, "rows"), [0, 1])


def preference_loss(**settings: Any) -> float:
    reference_free = settings.get("loss") in ("simpo", "orpo")
    return float(
        preference_terms(None if reference_free else REFERENCE_LOGPROBS, **settings).loss.detach()
    )


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log1p(math.exp(x))


def test_token_loss_sums_what_is_supervised() -> None:
    batch = collate(EXAMPLES, "rows")
    terms = TokenLoss().compute_loss(LOGPROBS, batch, [0, 1])
    assert float(terms.loss.detach()) == 10.75
    assert TokenLoss().loss_denominator(EXAMPLES) == 6


def test_dpo_by_hand() -> None:
    """Margins: 0.5 (1 + 0.5) = 0.75, and 0.5 (-0.25 - 1) = -0.625."""
    terms = preference_terms(beta=0.5)
    assert float(terms.loss.detach()) == pytest.approx(softplus(-0.75) + softplus(0.625), rel=1e-6)
    assert terms.stats == {
        "accuracy": 1,
        "margin": pytest.approx(0.125),
        "chosen_reward": pytest.approx(0.375),
        "rejected_reward": pytest.approx(0.25),
        "chosen_logprob": -4.25,
        "rejected_logprob": -6.5,
    }
    (gradient,) = torch.autograd.grad(terms.loss, LOGPROBS)
    first = -0.5 / (1 + math.exp(0.75))
    assert gradient[:3].tolist() == pytest.approx([first, -first, -first], rel=1e-6)


def test_label_smoothed_dpo_by_hand() -> None:
    """The margins of DPO, each counted 0.9 as it is and 0.1 the other way round."""
    expected = 0.9 * softplus(-0.75) + 0.1 * softplus(0.75)
    expected += 0.9 * softplus(0.625) + 0.1 * softplus(-0.625)
    assert preference_loss(beta=0.5, label_smoothing=0.1) == pytest.approx(expected, rel=1e-6)


def test_length_normalized_dpo_by_hand() -> None:
    """Margins: 0.5 (1 + 0.25) = 0.625, and 0.5 (-0.125 - 1) = -0.5625."""
    terms = preference_terms(beta=0.5, length_normalized=True)
    assert float(terms.loss.detach()) == pytest.approx(
        softplus(-0.625) + softplus(0.5625), rel=1e-6
    )
    assert terms.stats["chosen_reward"] == pytest.approx(0.4375)


def test_dpo_with_an_sft_term_by_hand() -> None:
    """The chosen answers' means are -1 and -1.625; each pair's own tokens share its weight."""
    terms = preference_terms(beta=0.5, sft_weight=0.2)
    plain = preference_terms(beta=0.5)
    assert float((terms.loss - plain.loss).detach()) == pytest.approx(0.2 * 2.625, rel=1e-6)
    (gradient,) = torch.autograd.grad(terms.loss - plain.loss, LOGPROBS)
    assert gradient.tolist() == pytest.approx([-0.2, 0, 0, -0.1, -0.1, 0], abs=1e-6)


def test_ipo_by_hand() -> None:
    """Differences of log-ratios, 1.5 and -1.25, are to be 1 / (2 beta) = 1."""
    assert preference_loss(loss="ipo", beta=0.5) == pytest.approx(0.5**2 + 2.25**2, rel=1e-6)
    normalized = preference_loss(loss="ipo", beta=0.5, length_normalized=True)
    assert normalized == pytest.approx(0.25**2 + 2.125**2, rel=1e-6)


def test_simpo_by_hand() -> None:
    """Means: -1 and -1.25, then -1.625 and -4; margins 0.5 and 4.75, of which gamma is taken."""
    terms = preference_terms(None, loss="simpo", beta=2, gamma=0.5)
    expected = math.log(2) + softplus(-4.25)
    assert float(terms.loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert terms.stats["margin"] == pytest.approx(5.25)
    assert terms.stats["chosen_reward"] == pytest.approx(-5.25)


def test_orpo_by_hand() -> None:
    """Odds e^-m / (1 - e^-m) = 1 / (e^m - 1), and -log sigmoid(log r) = log(1 + 1 / r)."""
    ratios = [math.expm1(1.25) / math.expm1(1), math.expm1(4) / math.expm1(1.625)]
    expected = 1 + 1.625 + 0.3 * sum(math.log(1 + 1 / ratio) for ratio in ratios)
    terms = preference_terms(None, loss="orpo", beta=0.3)
    assert float(terms.loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert terms.stats["margin"] == pytest.approx(0.3 * sum(map(math.log, ratios)), rel=1e-5)


def test_the_odds_of_a_certain_answer_are_finite() -> None:
    certain_logprobs = torch.zeros(6, requires_grad=True)
    spec = Align(data="pairs", loss="orpo")
    terms = PreferenceLoss(spec, None).compute_loss(
        certain_logprobs, collate(EXAMPLES, "rows"), [0, 1]
    )
    (gradient,) = torch.autograd.grad(terms.loss, certain_logprobs)
    assert torch.isfinite(gradient).all()
    assert math.isfinite(terms.stats["chosen_reward"])


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"length_normalized": True}])
def test_dpo_against_itself_is_ln_2_and_ties_count_one_half(settings: dict[str, Any]) -> None:
    policy_logprobs = np.array([[-1, -2.5], [-3.25, -4]], dtype=np.float32)
    terms = preference_terms(policy_logprobs, **settings)
    assert float(terms.loss.detach()) / 2 == pytest.approx(math.log(2), rel=1e-6)
    assert terms.stats["accuracy"] == 1.0


def test_batch_indices_choose_the_rows_of_the_reference() -> None:
    reference = np.array([[0, 0], [-1, -2.5]], dtype=np.float32)
    batch = collate(EXAMPLES[:1], "rows")
    terms = PreferenceLoss(Align(data="pairs"), reference).compute_loss(LOGPROBS[:3], batch, [1])
    assert float(terms.loss.detach()) == pytest.approx(math.log(2), rel=1e-6)
