"""How far a model's predictions have moved from another's, on the same text.

The Kullback-Leibler divergence KL(before || after) of the distributions of each next token, in nats
per token, and the greatest change of the log-probability of a token that stands there.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zephyr.model.fork import Ids
from zephyr.model.model import Model

MOST = 2048
"""Tokens that are looked at."""
ELEMENTS = 1 << 23
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

    def logprobs(self, part: slice) -> Tensor:
        """Of all tokens of the vocabulary [n, V]."""
        logits = torch.nn.functional.linear(self.hidden[part], self.weight, self.bias)
        return logits.float().log_softmax(dim=1)


def some(texts: Iterable[Ids], context: int) -> list[Ids]:
    """The first texts, `MOST` tokens in all, each cut to the context of the model."""
    chosen: list[Ids] = []
    room = MOST
    for text in texts:
        cut = text[: min(context, room + 1)]
        if len(cut) > 1:
            chosen.append(cut)
            room -= len(cut) - 1
        if room < 1:
            break
    return chosen


@torch.inference_mode()
def predictions(model: Model, texts: Sequence[Ids]) -> Predictions:
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
def divergence(before: Predictions, after: Predictions) -> Divergence:
    """How far `after` has moved from `before`; both are of the same texts."""
    count = len(before.targets)
    step = max(1, ELEMENTS // len(before.weight))
    total, greatest = 0.0, 0.0
    for start in range(0, count, step):
        part = slice(start, start + step)
        old, new = before.logprobs(part), after.logprobs(part)
        total += float((old.exp() * (old - new)).sum(dtype=torch.float64))
        at = before.targets[part, None]
        moved = (old.gather(1, at) - new.gather(1, at)).abs()
        greatest = max(greatest, float(moved.max()))
    return Divergence(max(0.0, total / count), greatest, count)  # below zero it is rounding
