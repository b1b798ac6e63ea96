"""Objectives against values derived by hand."""

import math

import numpy as np
import pytest
import torch

from zephyr.model.fork import fork
from zephyr.model.layout import lay_out
from zephyr.train.objectives import Dpo, TokenLoss

FORKS = [fork([1, 2], [3], [4, 5]), fork([1], [6, 7], [8])]
LOGPROBS = torch.tensor([-1.0, -2.0, -0.5, -3.0, -0.25, -4.0], requires_grad=True)
"""Continuation sums: -1 and -2.5 for the first fork, -3.25 and -4 for the second."""


def test_token_loss_sums_what_is_supervised() -> None:
    batch = lay_out(FORKS, "rows")
    terms = TokenLoss().terms(LOGPROBS, batch, [0, 1])
    assert float(terms.loss.detach()) == 10.75
    assert TokenLoss().weight(FORKS) == 6


def test_dpo_by_hand() -> None:
    """Margins: 0.5 ((-1 + 2) - (-2.5 + 2)) = 0.75, and 0.5 ((-3.25 + 3) - (-4 + 5)) = -0.625."""
    reference = np.array([[-2, -2], [-3, -5]], dtype=np.float32)
    batch = lay_out(FORKS, "rows")
    terms = Dpo(0.5, reference).terms(LOGPROBS, batch, [0, 1])
    expected = math.log1p(math.exp(-0.75)) + math.log1p(math.exp(0.625))
    assert float(terms.loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert terms.stats["accuracy"] == 1
    assert terms.stats["margin"] == pytest.approx(0.125)
    assert terms.stats["chosen_logprob"] == -4.25
    (slope,) = torch.autograd.grad(terms.loss, LOGPROBS)
    first = -0.5 / (1 + math.exp(0.75))
    assert slope[:3].tolist() == pytest.approx([first, -first, -first], rel=1e-6)


def test_dpo_against_itself_is_ln_2_and_ties_count_one_half() -> None:
    batch = lay_out(FORKS, "rows")
    reference = np.array([[-1, -2.5], [-3.25, -4]], dtype=np.float32)
    terms = Dpo(0.1, reference).terms(LOGPROBS, batch, [0, 1])
    assert float(terms.loss.detach()) / 2 == pytest.approx(math.log(2), rel=1e-6)
    assert terms.stats["accuracy"] == 1.0


def test_members_choose_the_rows_of_the_reference() -> None:
    reference = np.array([[0, 0], [-1, -2.5]], dtype=np.float32)
    batch = lay_out(FORKS[:1], "rows")
    terms = Dpo(0.1, reference).terms(LOGPROBS[:3], batch, [1])
    assert float(terms.loss.detach()) == pytest.approx(math.log(2), rel=1e-6)
