"""KL divergence of a quantized model's next-token distributions from its parent's.

The Kullback-Leibler divergence KL(before || after) of the distributions of each next token of the
same text, in nats per token, and the largest change in the log-probability of a token of the text.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zephyr.model.example import TokenIds
from zephyr.model.logit_transform import LogitTransform
from zephyr.model.model import Model

MAX_TOKENS = 2048
"""Tokens of text on which the divergence is measured."""
LOGITS_PER_CHUNK = 1 << 23
"""Logits (N x V) of a chunk: 32 MiB in float32."""


class Divergence(NamedTuple):
    """Mean KL divergence in nats per token, largest change of a logprob, number of tokens."""

    kl: float
    greatest: float
    tokens: int


class Predictions(NamedTuple):
    """Next-token predictions of a model on some texts: hidden states [N, H] and its LM head.

    `targets` [N] are the tokens that follow; `hidden` are scaled as `transform` says.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor
    transform: LogitTransform

    def logprobs(self, rows: slice) -> Tensor:
        """Log-probabilities over the whole vocabulary [N, V]."""
        logits = torch.nn.functional.linear(self.hidden[rows], self.weight, self.bias)
        return self.transform.cap(logits.float()).log_softmax(dim=1)


def select_texts(texts: Iterable[TokenIds], context_length: int) -> list[TokenIds]:
    """The first texts, `MAX_TOKENS` tokens in all, each truncated to the context length."""
    selected: list[TokenIds] = []
    remaining = MAX_TOKENS
    for text in texts:
        truncated = text[: min(context_length, remaining + 1)]
        if len(truncated) > 1:
            selected.append(truncated)
            remaining -= len(truncated) - 1
        if remaining < 1:
            break
    return selected


@torch.inference_mode()
def compute_predictions(model: Model, texts: Sequence[TokenIds]) -> Predictions:
    """Predictions (hidden states [N, H]) of the token after each of the texts' tokens."""
    causal: Any = model.causal
    model.network.eval()
    hidden, targets = [], []
    for text in texts:
        ids = torch.from_numpy(text).long().to(model.device)
        states = causal.base_model(input_ids=ids[None, :-1], use_cache=False)
        hidden.append(states.last_hidden_state[0])
        targets.append(ids[1:])
    head = causal.get_output_embeddings()
    transform = model.network.logit_transform
    states = transform.scale_hidden(torch.cat(hidden))
    return Predictions(states, head.weight, head.bias, torch.cat(targets), transform)


@torch.inference_mode()
def compute_divergence(before: Predictions, after: Predictions) -> Divergence:
    """KL divergence of `after` from `before`, chunked over tokens; both are of the same texts."""
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
