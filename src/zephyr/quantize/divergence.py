"""KL divergence of a model's next-token predictions from another's, on the same text.

The Kullback-Leibler divergence KL(before || after) of the distributions of each next token, in nats
per token, and the greatest change of the log-probability of a token that stands there.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zephyr.model.example import TokenIds
from zephyr.model.model import Model

MAX_TOKENS = 2048
"""Tokens of text that are compared."""
LOGITS_PER_CHUNK = 1 << 23
"""Logits at a time: 32 MiB in float32."""


class Divergence(NamedTuple):
    """Mean divergence in nats per token, the greatest change of a log-probability, and tokens."""

    kl: float
    greatest: float
    tokens: int


class Predictions(NamedTuple):
    """What a model predicts after each token of some texts: hidden states [N, H] and its head.

    `targets` [N] are the tokens that follow.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor

    def logprobs(self, rows: slice) -> Tensor:
        """Log-probabilities over the whole vocabulary [N, V]."""
        logits = torch.nn.functional.linear(self.hidden[rows], self.weight, self.bias)
        return logits.float().log_softmax(dim=1)


def select_texts(texts: Iterable[TokenIds], context: int) -> list[TokenIds]:
    """The first texts, `MAX_TOKENS` tokens in all, each truncated to the context length."""
    selected: list[TokenIds] = []
    remaining = MAX_TOKENS
    for text in texts:
        truncated = text[: min(context, remaining + 1)]
        if len(truncated) > 1:
            selected.append(truncated)
            remaining -= len(truncated) - 1
        if remaining < 1:
            break
    return selected


@torch.inference_mode()
def compute_predictions(model: Model, texts: Sequence[TokenIds]) -> Predictions:
    """What the model predicts after every token of each text but the last."""
    causal: Any = model.causal
    model.network.eval()
    hidden, targets = [], []
    for text in texts:
        ids = torch.from_numpy(text).long().to(model.device)
        states = causal.base_model(input_ids=ids[None, :-1], use_cache=False)
        hidden.append(states.last_hidden_state[0])
        targets.append(ids[1:])
    head = causal.get_output_embeddings()
    return Predictions(torch.cat(hidden), head.weight, head.bias, torch.cat(targets))


@torch.inference_mode()
def compute_divergence(before: Predictions, after: Predictions) -> Divergence:
    """The KL divergence of `after` from `before`; both are of the same texts."""
    count = len(before.targets)
    step = max(1, LOGITS_PER_CHUNK // len(before.weight))
    total, greatest = 0.0, 0.0
    for start in range(0, count, step):
        rows = slice(start, start + step)
        old, new = before.logprobs(rows), after.logprobs(rows)
        total += float((old.exp() * (old - new)).sum(dtype=torch.float64))
        targets = before.targets[rows, None]
        change = (old.gather(1, targets) - new.gather(1, targets)).abs()
        greatest = max(greatest, float(change.max()))
    return Divergence(max(0.0, total / count), greatest, count)  # below zero it is rounding
