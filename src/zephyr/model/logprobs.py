"""Chunked log-probabilities (fused linear cross-entropy): all logits are never held at once.

Only the hidden states that predict a loss-mask token enter the LM head. The gradient of a token's
log-probability in its own hidden state does not depend on what comes later, so it is computed in
the forward pass, and only scaled in the backward pass: one matmul with the head's weight forward,
one more for the gradient, none when no gradient is needed.

A large vocabulary comes a chunk at a time. Sums of exponentials, and the mean of the head's rows
under them, are kept relative to the highest logit so far (online softmax, Milakov and Gimelshein
2018), so that each chunk of the head is read once, for both matmuls, while it is in the cache.
Where the head is trainable as well, the probabilities are recomputed in the backward pass, unless
one chunk holds them all.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zephyr.model.batching import Batch
from zephyr.model.fp16_linear import Fp16Linear
from zephyr.model.logit_transform import LogitTransform, soft_cap, soft_cap_slope
from zephyr.system.devices import DEVICE_KINDS

MAX_UNCHUNKED_LOGITS = 1 << 23
"""Logits (N x V) up to which the vocabulary is not chunked: 32 MiB in float32."""

LOGITS_PER_CHUNK = {name: kind.logits_per_chunk for name, kind in DEVICE_KINDS.items()}
"""Logits (N x V) of a chunk, by type of device."""


class _ChunkedLogProbs(torch.autograd.Function):
    """hidden [N, H], weight [V, H], bias [V] or None, targets [N] -> log-probabilities [N]."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
    ) -> Tensor:
        hidden_needs_grad, weight_needs_grad, bias_needs_grad, *_ = ctx.needs_input_grad
        head_needs_grad = weight_needs_grad or bias_needs_grad
        if len(targets) * len(weight) <= MAX_UNCHUNKED_LOGITS:
            result = _unchunked_logprobs(hidden, weight, bias, targets, softcap, hidden_needs_grad)
        else:
            head = _ChunkedHead(weight, bias, len(targets))
            result = _online_softmax_logprobs(hidden, head, targets, softcap, hidden_needs_grad)
        rest = (
            (hidden, weight, bias, targets, result.logsumexp, result.logits_grad)
            if head_needs_grad
            else ()
        )
        ctx.softcap = softcap
        ctx.save_for_backward(result.hidden_grad, *rest)
        return result.logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        hidden_grad, *rest = ctx.saved_tensors
        grad_hidden = (
            None if hidden_grad is None else grad.to(hidden_grad.dtype)[:, None] * hidden_grad
        )
        if not rest:
            return grad_hidden, None, None, None, None
        hidden, weight, bias, targets, logsumexp, saved_logits_grad = rest
        grad_weight = torch.empty_like(weight)
        grad_bias = None if bias is None else torch.empty_like(bias)
        for chunk in (
            [slice(None)]
            if saved_logits_grad is not None
            else _vocabulary_chunks(len(targets), weight)
        ):
            logits_grad = saved_logits_grad
            if logits_grad is None:
                logits = soft_cap(_compute_logits(hidden, weight, bias, chunk), ctx.softcap)
                logits_grad = _logit_grad(logits, logsumexp, targets, chunk, ctx.softcap)
            scaled = (logits_grad * grad[:, None]).to(weight.dtype)
            torch.mm(scaled.T, hidden, out=grad_weight[chunk])
            if grad_bias is not None:
                grad_bias[chunk] = scaled.sum(dim=0)
        return grad_hidden, grad_weight, grad_bias, None, None


def chunked_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float | None = None,
) -> Tensor:
    """Log-probabilities [N] in float32 of `targets` [N] after hidden states [N, H].

    `weight` [V, H] and `bias` [V] are the head's; gradients reach all three. Products are made in
    the dtype of the weight, sums over the vocabulary in float32. `softcap` bounds the logits.
    """
    out: Tensor = _ChunkedLogProbs.apply(hidden, weight, bias, targets, softcap)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _Fp16LogProbs(torch.autograd.Function):
    """hidden [N, H], an `Fp16Linear` head, targets [N] -> log-probabilities [N]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, layer: Fp16Linear, targets: Tensor, softcap: float | None
    ) -> Tensor:
        head, needs_grad = _Fp16Head(layer), ctx.needs_input_grad[0]
        rows = max(1, LOGITS_PER_CHUNK["cpu"] // layer.chunks[0].stop)
        parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        results = [
            _online_softmax_logprobs(states, head, row_targets, softcap, needs_grad)
            for states, row_targets in parts
        ]
        hidden_grads = [part.hidden_grad for part in results if part.hidden_grad is not None]
        ctx.save_for_backward(torch.cat(hidden_grads) if hidden_grads else None)
        return torch.cat([part.logprobs for part in results])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (hidden_grad,) = ctx.saved_tensors
        return grads[0][:, None] * hidden_grad, None, None, None


def fp16_logprobs(
    hidden: Tensor, head: Fp16Linear, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """`chunked_logprobs` with the frozen 16-bit weights of an `Fp16Linear` head."""
    out: Tensor = _Fp16LogProbs.apply(hidden, head, targets, softcap)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _LogprobResult(NamedTuple):
    """Log-probabilities [N], and what backward needs: their gradient `hidden_grad` [N, H].

    `logsumexp` [N] is that of the logits; `logits_grad` [N, V] the gradient in the head's output
    (before a soft cap), where this was not chunked.
    """

    logprobs: Tensor
    logsumexp: Tensor
    hidden_grad: Tensor | None
    logits_grad: Tensor | None


def _unchunked_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float | None,
    needs_grad: bool,
) -> _LogprobResult:
    """Log-probabilities of targets [N] from all logits [N, V] at once."""
    logits = soft_cap(_compute_logits(hidden, weight, bias, slice(None)), softcap)
    logsumexp = logits.logsumexp(dim=1)
    logprobs = logits.gather(1, targets[:, None])[:, 0] - logsumexp
    if not needs_grad:
        return _LogprobResult(logprobs, logsumexp, None, None)
    logits_grad = _logit_grad(logits, logsumexp, targets, slice(None), softcap).to(weight.dtype)
    return _LogprobResult(logprobs, logsumexp, logits_grad @ weight, logits_grad)


def _online_softmax_logprobs(
    hidden: Tensor,
    head: "_ChunkedHead | _Fp16Head",
    targets: Tensor,
    softcap: float | None,
    needs_grad: bool,
) -> _LogprobResult:
    """Log-probabilities of targets [N] by online softmax, chunk by chunk of the vocabulary."""
    target_logits = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    running_max = torch.full_like(target_logits, -torch.inf)
    normalizer = torch.zeros_like(target_logits)
    expected_weight = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    for number, chunk in enumerate(head.chunks):
        logits = soft_cap(head.logits(hidden, number), softcap)
        slope = soft_cap_slope(logits, softcap) if softcap and needs_grad else None
        in_chunk = _targets_in_chunk(targets, chunk)
        target_logits[in_chunk] = logits[in_chunk, targets[in_chunk] - chunk.start]
        previous_max, running_max = running_max, torch.maximum(running_max, logits.amax(dim=1))
        rescale = (previous_max - running_max).exp_()
        exp_logits = logits.sub_(running_max[:, None]).exp_()
        normalizer.mul_(rescale).add_(exp_logits.sum(dim=1))
        if slope is not None:
            exp_logits.mul_(slope)
        if needs_grad:
            expected_weight.mul_(rescale[:, None]).add_(head.chunk_input_grad(exp_logits, number))
    hidden_grad = None
    if needs_grad:
        target_weight = head.weight_rows(targets)
        if softcap:
            target_weight = target_weight * soft_cap_slope(target_logits, softcap)[:, None]
        hidden_grad = (target_weight - expected_weight.div_(normalizer[:, None])).to(hidden.dtype)
    normalizer = normalizer.log_().add_(running_max)
    return _LogprobResult(target_logits - normalizer, normalizer, hidden_grad, None)


class _ChunkedHead:
    """An LM head, weight [V, H], chunked by vocabulary for `tokens` tokens."""

    def __init__(self, weight: Tensor, bias: Tensor | None, tokens: int) -> None:
        self.weight, self.bias = weight, bias
        self.chunks = _vocabulary_chunks(tokens, weight)

    def logits(self, hidden: Tensor, number: int) -> Tensor:
        return _compute_logits(hidden, self.weight, self.bias, self.chunks[number])

    def chunk_input_grad(self, exp_logits: Tensor, number: int) -> Tensor:
        return exp_logits.to(self.weight.dtype) @ self.weight[self.chunks[number]]

    def weight_rows(self, ids: Tensor) -> Tensor:
        return self.weight[ids]


class _Fp16Head:
    """An LM head with fp16 weights (`Fp16Linear`), in the chunks of that layer."""

    def __init__(self, layer: Fp16Linear) -> None:
        self.layer, self.chunks = layer, layer.chunks

    def logits(self, hidden: Tensor, number: int) -> Tensor:
        return self.layer.chunk_outputs(hidden, number)

    def chunk_input_grad(self, exp_logits: Tensor, number: int) -> Tensor:
        return self.layer.chunk_input_grad(exp_logits, number)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows [N, H] of the weight, gathered by matmuls with one-hot rows, which are exact."""
        gathered = torch.empty(len(ids), self.layer.in_features)
        for number, chunk in enumerate(self.chunks):
            in_chunk = _targets_in_chunk(ids, chunk)
            if len(in_chunk):
                ones = torch.zeros(len(in_chunk), chunk.stop - chunk.start)
                ones[torch.arange(len(in_chunk)), ids[in_chunk] - chunk.start] = 1
                gathered[in_chunk] = self.chunk_input_grad(ones, number)
        return gathered


def _vocabulary_chunks(tokens: int, weight: Tensor) -> list[slice]:
    """Slices of the vocabulary whose logits for `tokens` tokens make one chunk."""
    vocabulary = len(weight)
    size = max(256, LOGITS_PER_CHUNK[weight.device.type] // max(1, tokens))
    return [slice(start, min(start + size, vocabulary)) for start in range(0, vocabulary, size)]


def _compute_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, chunk: slice) -> Tensor:
    """Logits [N, V] in float32 for a chunk of the vocabulary."""
    return nn.functional.linear(
        hidden, weight[chunk], None if bias is None else bias[chunk]
    ).float()


def _logit_grad(
    logits: Tensor, logsumexp: Tensor, targets: Tensor, chunk: slice, softcap: float | None
) -> Tensor:
    """Gradient of the log-probabilities in the head's output [N, V]: one-hot target - softmax,
    times the slope of the soft cap that gave `logits`.

    Overwrites `logits`.
    """
    slope = soft_cap_slope(logits, softcap) if softcap else None
    grad = logits.sub_(logsumexp[:, None]).exp_().neg_()
    in_chunk = _targets_in_chunk(targets, chunk)
    grad[in_chunk, targets[in_chunk] - (chunk.start or 0)] += 1
    return grad if slope is None else grad.mul_(slope)


def _targets_in_chunk(targets: Tensor, chunk: slice) -> Tensor:
    """Indices of the targets whose logits a chunk of the vocabulary holds."""
    if chunk.start is None:
        return torch.arange(len(targets), device=targets.device)
    in_chunk: Tensor = (targets >= chunk.start) & (targets < chunk.stop)
    return in_chunk.nonzero()[:, 0]


class LogprobNetwork(nn.Module):
    """A causal language model whose `forward(batch)` returns the targets' log-probabilities.

    Network and log-probabilities are one module, so that wrappers (FSDP ...) wrap the whole forward
    pass.
    """

    def __init__(self, causal: nn.Module) -> None:
        super().__init__()
        self.causal = causal
        self.logit_transform = LogitTransform.from_config(causal.config)

    def forward(self, batch: Batch, **past: Any) -> Tensor:
        """Log-probabilities [N] of the batch's loss-mask tokens, in float32.

        `past` is the KV cache of a prefix of all rows, under the network's keyword for it.
        """
        causal: Any = self.causal
        attention_arguments = (
            {} if batch.attention_mask is None else {"attention_mask": batch.attention_mask}
        )
        if batch.position_ids is not None:
            attention_arguments["position_ids"] = batch.position_ids
        states = causal.base_model(
            input_ids=batch.input_ids, use_cache=bool(past), **past, **attention_arguments
        )
        hidden = states.last_hidden_state.flatten(0, 1)[batch.hidden_index]
        hidden = self.logit_transform.scale_hidden(hidden)
        head, softcap = causal.get_output_embeddings(), self.logit_transform.softcap
        if isinstance(head, Fp16Linear):
            return fp16_logprobs(hidden, head, batch.targets, softcap)
        return chunked_logprobs(hidden, head.weight, head.bias, batch.targets, softcap)


def sum_by_completion(logprobs: Tensor, batch: Batch) -> Tensor:
    """Sums log-probabilities [N] by completion: [completions], in the order of the examples."""
    sums = torch.zeros(batch.num_completions, dtype=logprobs.dtype, device=logprobs.device)
    return sums.index_add(0, batch.completion_index, logprobs)


def scatter_sums(sums: Tensor, batch: Batch) -> Tensor:
    """Scatters `sums` of completions to [N] such that `sum_by_completion` gives exactly `sums`.

    One token of each completion has all of its sum; each has a loss-mask token.
    """
    completion_index, flat = (
        batch.completion_index,
        sums.flatten().to(batch.completion_index.device),
    )
    positions = torch.arange(len(completion_index), device=completion_index.device)
    last_positions = torch.full_like(flat, -1, dtype=torch.int64).scatter(
        0, completion_index, positions
    )
    return flat.new_zeros(len(completion_index)).index_copy(0, last_positions, flat)
