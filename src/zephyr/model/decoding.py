"""Continuous batching: prefill and decode steps of prompts that are answered together.

Requests may join the batch at any decode step, and leave it when they are finished. Rows are padded
on the left, and the attention mask covers the padding. The tokens of a request do not depend on the
other rows: each samples from a random generator of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from zephyr.model.attention import use_single_query_attention
from zephyr.model.example import TokenIds
from zephyr.model.kv_cache import PreallocatedCache, cache_argument_name, forward_parameters
from zephyr.model.logit_transform import LogitTransform


class SamplingParams(NamedTuple):
    """Sampling parameters: greedy at temperature 0, else temperature and top-p sampling.

    `top_p` keeps the smallest set of likeliest tokens whose probability reaches it.
    """

    temperature: float = 0.0
    top_p: float = 1.0


GREEDY = SamplingParams()

MIN_TEMPERATURE = 1e-4
"""Below this temperature the likeliest token is taken: logits over it would leave float32."""


class TokenLogprob(NamedTuple):
    """The log-probability (natural) of a chosen token, and the likeliest tokens with theirs."""

    logprob: float
    top_logprobs: list[tuple[int, float]]


@dataclass(eq=False)
class DecodeRow:
    """One request of a decode batch: its prompt, sampling params, seed and output tokens so far.

    Where `top_logprobs` is given, the log-probability of each chosen token is recorded with those
    of that many of the likeliest tokens. They are the model's own, whatever the temperature.
    """

    prompt: TokenIds
    sampling: SamplingParams = GREEDY
    seed: int = 0
    top_logprobs: int | None = None
    output_ids: list[int] = field(default_factory=list)
    output_logprobs: list[TokenLogprob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def cached_length(self) -> int:
        """Tokens that the KV cache holds once the last one has been chosen."""
        return len(self.prompt) + len(self.output_ids) - 1


R = TypeVar("R", bound=DecodeRow)


class Prefill(Generic[R]):
    """Chunked prefill of some prompts, before their rows join a decode batch."""

    def __init__(self, rows: Sequence[R]) -> None:
        self.rows = list(rows)
        lengths = torch.tensor([len(row.prompt) for row in rows])
        self.width = int(lengths.max())
        self.num_prefilled = 0
        """Columns of the left-padded `tokens`, `positions` and `mask` [B, T] prefilled so far."""
        self.tokens = torch.zeros((len(rows), self.width), dtype=torch.int64)
        for row, token_row in zip(rows, self.tokens, strict=True):
            token_row[self.width - len(row.prompt) :] = torch.from_numpy(row.prompt)
        self.positions = (torch.arange(self.width) - (self.width - lengths)[:, None]).clamp(min=0)
        self.mask = _left_padding_mask(lengths)
        self.cache: PreallocatedCache | None = None  # of the network that first gets a chunk


class DecodeBatch(Generic[R]):
    """A decode batch (continuous batching): rows join by `add`, get a token at each `step`."""

    def __init__(self, causal: Any) -> None:
        self.causal = causal
        self.rows: list[R] = []
        self._cache: PreallocatedCache | None = None
        self._takes_position_ids = "position_ids" in forward_parameters(causal)
        self._cache_argument = cache_argument_name(causal)
        self._device = next(causal.parameters()).device
        self._logit_transform = LogitTransform.from_config(causal.config)

    def add(self, rows: Sequence[R]) -> None:
        """Prefills the prompts of new rows, and chooses the first token of each."""
        self.prefill_chunk(Prefill(rows))

    @torch.inference_mode()
    def prefill_chunk(self, prefill: Prefill[R], max_columns: int | None = None) -> bool:
        """Chunked prefill: `max_columns` further columns, or all; says if that was the last chunk.

        After the last chunk the rows have joined the batch, each with its first token.
        """
        if prefill.cache is None:
            prefill.cache = PreallocatedCache(self.causal.config)
        begin = prefill.num_prefilled
        end = prefill.width if max_columns is None else min(begin + max_columns, prefill.width)
        columns = slice(begin, end)
        states = self._forward(
            prefill.rows,
            prefill.tokens[:, columns],
            prefill.positions[:, columns],
            prefill.mask[:, :end],
            prefill.cache,
        )
        prefill.num_prefilled = end
        if end < prefill.width:
            return False
        self._append_next_tokens(states, prefill.rows)
        if self.rows:
            assert self._cache is not None
            self._cache.append_rows(prefill.cache)
        else:
            self._cache = prefill.cache
        self.rows += prefill.rows
        return True

    @torch.inference_mode()
    def step(self) -> None:
        """One decode step: chooses the next token of every row."""
        assert self._cache is not None, "nothing has been added"
        lengths = torch.tensor([row.cached_length for row in self.rows])
        self._cache.keep_last_columns(int(lengths.max()))
        tokens = torch.tensor([[row.output_ids[-1]] for row in self.rows])
        mask = _left_padding_mask(lengths + 1)
        states = self._forward(self.rows, tokens, lengths[:, None], mask, self._cache)
        self._append_next_tokens(states, self.rows)

    @torch.inference_mode()
    def remove(self, row: R) -> None:
        """Removes a finished or cancelled row from the batch; the rest goes on."""
        index = self.rows.index(row)
        last = self.rows.pop()
        if last is not row:
            self.rows[index] = last
        if self.rows:
            assert self._cache is not None
            self._cache.remove_row(index)
        else:
            self._cache = None

    def _forward(
        self,
        rows: Sequence[R],
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: PreallocatedCache,
    ) -> Tensor:
        """Forward pass of `tokens` [B, T]: their hidden states [B, T, H]; extends the KV cache."""
        position_arguments = (
            {"position_ids": positions.to(self._device)} if self._takes_position_ids else {}
        )
        with use_single_query_attention(self.causal):
            states: Tensor = self.causal.base_model(
                input_ids=tokens.to(self._device),
                attention_mask=mask.to(self._device, torch.int64),
                use_cache=True,
                **{self._cache_argument: cache},
                **position_arguments,
            ).last_hidden_state
        return states

    def _append_next_tokens(self, states: Tensor, rows: Sequence[DecodeRow]) -> None:
        """Appends the next token of each row, greedy or sampled, from hidden states [B, T, H]."""
        last_states = self._logit_transform.scale_hidden(states[:, -1].contiguous())
        logits = self._logit_transform.cap(self.causal.get_output_embeddings()(last_states))
        greedy_tokens = logits.argmax(dim=1).tolist()
        for row, row_logits, greedy_token in zip(rows, logits, greedy_tokens, strict=True):
            is_sampled = row.sampling.temperature > MIN_TEMPERATURE
            row.output_ids.append(
                _sample_token(row_logits.float().cpu(), row) if is_sampled else greedy_token
            )
            if row.top_logprobs is not None:
                row.output_logprobs.append(
                    _token_logprob(row_logits.float().cpu(), row.output_ids[-1], row.top_logprobs)
                )


def _left_padding_mask(lengths: Tensor) -> Tensor:
    """The attention mask [B, T] of left-padded rows: True in the last `lengths` [B] columns."""
    width = int(lengths.max())
    return torch.arange(width) >= (width - lengths)[:, None]


TOP_P_CANDIDATES = 1024
"""Likeliest tokens among which `top_p` is nearly always reached; else the vocabulary is sorted."""


def _sample_token(logits: Tensor, row: DecodeRow) -> int:
    """Samples a token from logits [V]: temperature, softmax, top-p, inverse transform."""
    probs = (logits.double() / row.sampling.temperature).softmax(dim=0)
    if row.sampling.top_p >= 1:
        return _sample_index(probs, row.generator)
    order = probs.topk(min(TOP_P_CANDIDATES, len(probs))).indices
    if probs[order].sum() < row.sampling.top_p:
        order = probs.argsort(descending=True, stable=True)
    kept_probs = probs[order]
    kept_probs[kept_probs.cumsum(dim=0) - kept_probs >= row.sampling.top_p] = 0
    return int(order[_sample_index(kept_probs, row.generator)])


def _sample_index(weights: Tensor, generator: torch.Generator) -> int:
    """Samples an index in proportion to `weights` [V] (inverse transform sampling)."""
    cumulative = weights.cumsum(dim=0)
    threshold = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, threshold, right=True)), len(weights) - 1)


def _token_logprob(logits: Tensor, chosen: int, top_logprobs: int) -> TokenLogprob:
    """The `TokenLogprob` of a chosen token, with its `top_logprobs` likeliest tokens."""
    logprobs = logits.log_softmax(dim=0)
    values, tokens = logprobs.topk(min(top_logprobs, len(logprobs)))
    top_tokens = list(zip(tokens.tolist(), values.tolist(), strict=True))
    return TokenLogprob(float(logprobs[chosen]), top_tokens)
