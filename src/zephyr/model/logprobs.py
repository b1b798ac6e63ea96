"""Log-probabilities of the supervised tokens of a batch, without ever holding all logits.

Only the hidden states that predict a supervised token meet the vocabulary, a chunk of them at a
time. The derivative of a token's log-probability with respect to its own hidden state does not
depend on what comes later, so it is found in the forward pass while the chunk's probabilities are
at hand, and only scaled in the backward pass: one product with the vocabulary forward, one more for
the gradient, none when no gradient is asked for. Where the head learns as well, the probabilities
are found again in the backward pass, unless one chunk holds them all.
"""

from typing import Any

import torch
from torch import Tensor, nn

from zephyr.model.layout import Batch

CHUNK_ELEMENTS = 1 << 24
"""Logits held at once: 64 MiB in float32."""


class _ChunkedLogProbs(torch.autograd.Function):
    """hidden [N, H], weight [V, H], bias [V] or None, targets [N] -> log-probabilities [N]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        hidden_learns, weight_learns, bias_learns, _ = ctx.needs_input_grad
        head_learns = weight_learns or bias_learns
        out = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        slope = torch.empty_like(hidden) if hidden_learns else None
        chunks = _chunks(len(targets), len(weight))
        kept = None
        for part in chunks:
            logits = _logits(hidden[part], weight, bias)
            total = logits.logsumexp(dim=1)
            goal = targets[part, None]
            out[part] = logits.gather(1, goal)[:, 0] - total
            if slope is not None or (head_learns and len(chunks) == 1):
                residual = _minus_residual(logits, total, goal).to(weight.dtype)
                if slope is not None:
                    slope[part] = residual @ weight
                if head_learns and len(chunks) == 1:
                    kept = residual
        ctx.save_for_backward(
            slope, *((kept, hidden, weight, bias, targets) if head_learns else ())
        )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        slope, *rest = ctx.saved_tensors
        to_hidden = None if slope is None else grad.to(slope.dtype)[:, None] * slope
        if not rest:
            return to_hidden, None, None, None
        kept, hidden, weight, bias, targets = rest
        to_weight = torch.zeros_like(weight)
        to_bias = None if bias is None else torch.zeros_like(bias)
        for part in _chunks(len(targets), len(weight)):
            if kept is not None:
                residual = kept
            else:
                logits = _logits(hidden[part], weight, bias)
                residual = _minus_residual(logits, logits.logsumexp(dim=1), targets[part, None])
            scaled = (residual * grad[part, None]).to(weight.dtype)
            to_weight.addmm_(scaled.T, hidden[part])
            if to_bias is not None:
                to_bias += scaled.sum(dim=0)
        return to_hidden, to_weight, to_bias, None


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """Log-probabilities [N] in float32 of `targets` [N] after hidden states [N, H].

    `weight` [V, H] and `bias` [V] are the head's; gradients reach all three.
    """
    out: Tensor = _ChunkedLogProbs.apply(hidden, weight, bias, targets)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return nn.functional.linear(hidden, weight, bias).float()


def _minus_residual(logits: Tensor, total: Tensor, goal: Tensor) -> Tensor:
    """One at the target minus the probabilities: the slope of log p(target) in the logits.

    Overwrites `logits`.
    """
    slope = logits.sub_(total[:, None]).exp_().neg_()
    return slope.scatter_add_(1, goal, torch.ones_like(goal, dtype=slope.dtype))


class ForkNetwork(nn.Module):
    """A causal language model whose `forward(batch)` returns log-probabilities.

    Network and log-probability function are one module, so that wrappers for several processes see
    the whole of a step.
    """

    def __init__(self, causal: nn.Module) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, batch: Batch) -> Tensor:
        """The log-probability of each supervised token [N], in float32."""
        causal: Any = self.causal
        where = {} if batch.mask is None else {"attention_mask": batch.mask}
        if batch.position_ids is not None:
            where["position_ids"] = batch.position_ids
        states = causal.base_model(input_ids=batch.input_ids, use_cache=False, **where)
        hidden = states.last_hidden_state.flatten(0, 1)[batch.predict]
        head = causal.get_output_embeddings()
        return chunked_logprobs(hidden, head.weight, head.bias, batch.targets)


def sum_by_continuation(logprobs: Tensor, batch: Batch) -> Tensor:
    """Summed log-probabilities [continuations] of the batch, in the order of its forks."""
    sums = torch.zeros(batch.continuations, dtype=logprobs.dtype, device=logprobs.device)
    return sums.index_add(0, batch.owner, logprobs)
