"""Log-probabilities of the supervised tokens of a batch, without ever holding all logits.

Only the hidden states that predict a supervised token meet the vocabulary. The derivative of a
token's log-probability with respect to its own hidden state does not depend on what comes later, so
it is found in the forward pass, and only scaled in the backward pass: one product with the
vocabulary forward, one more for the gradient, none when no gradient is asked for.

A large vocabulary comes a chunk at a time. Sums of exponentials, and the mean of the head's rows
under them, are kept relative to the highest logit so far (online softmax, Milakov and Gimelshein
2018), so that each chunk of the head is read once, for both products, while it is in the cache.
Where the head learns as well, the probabilities are found again in the backward pass, unless one
chunk holds them all.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zephyr.model.half import HalfLinear
from zephyr.model.layout import Batch

WHOLE_ELEMENTS = 1 << 23
"""Logits up to which the vocabulary is taken as a whole: 32 MiB in float32."""

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits of a chunk: on a processor, what its caches hold."""


class _ChunkedLogProbs(torch.autograd.Function):
    """hidden [N, H], weight [V, H], bias [V] or None, targets [N] -> log-probabilities [N]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        hidden_learns, weight_learns, bias_learns, _ = ctx.needs_input_grad
        head_learns = weight_learns or bias_learns
        if len(targets) * len(weight) <= WHOLE_ELEMENTS:
            found = _whole(hidden, weight, bias, targets, hidden_learns)
        else:
            found = _streamed(hidden, _Head(weight, bias, len(targets)), targets, hidden_learns)
        rest = (hidden, weight, bias, targets, found.total, found.residual) if head_learns else ()
        ctx.save_for_backward(found.slope, *rest)
        return found.logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        slope, *rest = ctx.saved_tensors
        to_hidden = None if slope is None else grad.to(slope.dtype)[:, None] * slope
        if not rest:
            return to_hidden, None, None, None
        hidden, weight, bias, targets, total, kept = rest
        to_weight = torch.empty_like(weight)
        to_bias = None if bias is None else torch.empty_like(bias)
        for part in [slice(None)] if kept is not None else _chunks(len(targets), weight):
            residual = kept
            if residual is None:
                residual = _residual(_logits(hidden, weight, bias, part), total, targets, part)
            scaled = (residual * grad[:, None]).to(weight.dtype)
            torch.mm(scaled.T, hidden, out=to_weight[part])
            if to_bias is not None:
                to_bias[part] = scaled.sum(dim=0)
        return to_hidden, to_weight, to_bias, None


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """Log-probabilities [N] in float32 of `targets` [N] after hidden states [N, H].

    `weight` [V, H] and `bias` [V] are the head's; gradients reach all three. Products are made in
    the dtype of the weight, sums over the vocabulary in float32.
    """
    out: Tensor = _ChunkedLogProbs.apply(hidden, weight, bias, targets)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _HalfLogProbs(torch.autograd.Function):
    """hidden [N, H], a head that is held in 16 bits, targets [N] -> log-probabilities [N]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: HalfLinear, targets: Tensor) -> Tensor:
        head, sloping = _HalfHead(layer), ctx.needs_input_grad[0]
        rows = max(1, CHUNK_ELEMENTS["cpu"] // layer.parts[0].stop)
        parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        found = [_streamed(states, head, wanted, sloping) for states, wanted in parts]
        slopes = [part.slope for part in found if part.slope is not None]
        ctx.save_for_backward(torch.cat(slopes) if slopes else None)
        return torch.cat([part.logprobs for part in found])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grads[0][:, None] * slope, None, None


def half_logprobs(hidden: Tensor, head: HalfLinear, targets: Tensor) -> Tensor:
    """`chunked_logprobs` with the weights of a frozen head that is held in 16 bits."""
    out: Tensor = _HalfLogProbs.apply(hidden, head, targets)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _Found(NamedTuple):
    """All [N]; `slope` [N, H] is that of the log-probabilities in the hidden states, if asked for.

    `residual` [N, V] is their slope in the logits, where these were taken as a whole.
    """

    logprobs: Tensor
    total: Tensor
    slope: Tensor | None
    residual: Tensor | None


def _whole(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, sloping: bool
) -> _Found:
    logits = _logits(hidden, weight, bias, slice(None))
    total = logits.logsumexp(dim=1)
    logprobs = logits.gather(1, targets[:, None])[:, 0] - total
    if not sloping:
        return _Found(logprobs, total, None, None)
    residual = _residual(logits, total, targets, slice(None)).to(weight.dtype)
    return _Found(logprobs, total, residual @ weight, residual)


def _streamed(hidden: Tensor, head: "_Head | _HalfHead", targets: Tensor, sloping: bool) -> _Found:
    goal = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    highest = torch.full_like(goal, -torch.inf)
    total = torch.zeros_like(goal)
    mean = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    for number, part in enumerate(head.parts):
        logits = head.logits(hidden, number)
        here = _within(targets, part)
        goal[here] = logits[here, targets[here] - part.start]
        before, highest = highest, torch.maximum(highest, logits.amax(dim=1))
        shrunk = (before - highest).exp_()
        powers = logits.sub_(highest[:, None]).exp_()
        total.mul_(shrunk).add_(powers.sum(dim=1))
        if sloping:
            mean.mul_(shrunk[:, None]).add_(head.back(powers, number))
    slope = None
    if sloping:
        slope = (head.rows(targets) - mean.div_(total[:, None])).to(hidden.dtype)
    total = total.log_().add_(highest)
    return _Found(goal - total, total, slope, None)


class _Head:
    """A head [V, H] in chunks of its vocabulary that suit so many tokens."""

    def __init__(self, weight: Tensor, bias: Tensor | None, tokens: int) -> None:
        self.weight, self.bias = weight, bias
        self.parts = _chunks(tokens, weight)

    def logits(self, hidden: Tensor, number: int) -> Tensor:
        return _logits(hidden, self.weight, self.bias, self.parts[number])

    def back(self, powers: Tensor, number: int) -> Tensor:
        return powers.to(self.weight.dtype) @ self.weight[self.parts[number]]

    def rows(self, ids: Tensor) -> Tensor:
        return self.weight[ids]


class _HalfHead:
    """A head that is held in 16 bits, in the pieces in which it lies."""

    def __init__(self, layer: HalfLinear) -> None:
        self.layer, self.parts = layer, layer.parts

    def logits(self, hidden: Tensor, number: int) -> Tensor:
        return self.layer.outputs(hidden, number)

    def back(self, powers: Tensor, number: int) -> Tensor:
        return self.layer.back(powers, number)

    def rows(self, ids: Tensor) -> Tensor:
        """By products with ones, which give the very weights."""
        found = torch.empty(len(ids), self.layer.in_features)
        for number, part in enumerate(self.parts):
            here = _within(ids, part)
            if len(here):
                ones = torch.zeros(len(here), part.stop - part.start)
                ones[torch.arange(len(here)), ids[here] - part.start] = 1
                found[here] = self.back(ones, number)
        return found


def _chunks(tokens: int, weight: Tensor) -> list[slice]:
    vocabulary = len(weight)
    size = max(256, CHUNK_ELEMENTS[weight.device.type] // max(1, tokens))
    return [slice(at, min(at + size, vocabulary)) for at in range(0, vocabulary, size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, part: slice) -> Tensor:
    return nn.functional.linear(hidden, weight[part], None if bias is None else bias[part]).float()


def _residual(logits: Tensor, total: Tensor, targets: Tensor, part: slice) -> Tensor:
    """One at the target minus the probabilities: the slope of log p(target) in the logits.

    Overwrites `logits`.
    """
    slope = logits.sub_(total[:, None]).exp_().neg_()
    here = _within(targets, part)
    slope[here, targets[here] - (part.start or 0)] += 1
    return slope


def _within(targets: Tensor, part: slice) -> Tensor:
    """The numbers of the targets whose logits a chunk of the vocabulary holds."""
    if part.start is None:
        return torch.arange(len(targets), device=targets.device)
    here: Tensor = (targets >= part.start) & (targets < part.stop)
    return here.nonzero()[:, 0]


class ForkNetwork(nn.Module):
    """A causal language model whose `forward(batch)` returns log-probabilities.

    Network and log-probability function are one module, so that wrappers for several processes see
    the whole of a step.
    """

    def __init__(self, causal: nn.Module) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, batch: Batch, **past: Any) -> Tensor:
        """The log-probability of each supervised token [N], in float32.

        `past` is a cache of what stands before all rows, under the name that the network gives it.
        """
        causal: Any = self.causal
        where = {} if batch.mask is None else {"attention_mask": batch.mask}
        if batch.position_ids is not None:
            where["position_ids"] = batch.position_ids
        states = causal.base_model(input_ids=batch.input_ids, use_cache=bool(past), **past, **where)
        hidden = states.last_hidden_state.flatten(0, 1)[batch.predict]
        head = causal.get_output_embeddings()
        if isinstance(head, HalfLinear):
            return half_logprobs(hidden, head, batch.targets)
        return chunked_logprobs(hidden, head.weight, head.bias, batch.targets)


def sum_by_continuation(logprobs: Tensor, batch: Batch) -> Tensor:
    """Summed log-probabilities [continuations] of the batch, in the order of its forks."""
    sums = torch.zeros(batch.continuations, dtype=logprobs.dtype, device=logprobs.device)
    return sums.index_add(0, batch.owner, logprobs)


def spread(sums: Tensor, batch: Batch) -> Tensor:
    """Log-probabilities [N] that `sum_by_continuation` sums to exactly `sums` [continuations].

    One token of each continuation has all of its sum; each has a supervised one.
    """
    owner, flat = batch.owner, sums.flatten().to(batch.owner.device)
    places = torch.arange(len(owner), device=owner.device)
    one = torch.full_like(flat, -1, dtype=torch.int64).scatter(0, owner, places)
    return flat.new_zeros(len(owner)).index_copy(0, one, flat)
