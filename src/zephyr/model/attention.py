"""Single-query attention for decode steps: one new token attends to the KV cache.

On a CPU torch's own SDPA kernel, made for many queries, takes four times as long in bfloat16 for
one, and half as long again in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION_NAME = "one_token"


def single_query_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of query [B, heads, 1, D] to key [B, kv_heads, T, D], value [B, kv_heads, T, E].

    Gives [B, 1, heads, E]; heads is a multiple of kv_heads (grouped-query attention); the mask is
    [B, 1, 1, T]. Values may have another width than keys (MLA). The softmax is in float32. The
    output of a row that is all masked has no meaning, but is finite.
    """
    rows, heads, _, head_dim = query.shape
    kv_heads, kv_length = key.shape[1], key.shape[2]
    grouped_query = query.reshape(rows * kv_heads, heads // kv_heads, head_dim)
    scores = torch.bmm(key.flatten(0, 1), grouped_query.transpose(1, 2))
    scores = scores.view(rows, kv_heads, kv_length, heads // kv_heads).transpose(2, 3).float()
    scores.mul_(head_dim**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=3).to(value.dtype).flatten(0, 1)
    attended = torch.bmm(weights, value.flatten(0, 1))
    return attended.view(rows, 1, heads, value.shape[3]), None


def _attention_forward(
    module: Any, query: Tensor, *rest: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention registered with transformers: SDPA for many queries, else single-query."""
    has_many_queries = query.shape[2] > 1
    output: tuple[Tensor, None] = (
        sdpa_attention_forward if has_many_queries else single_query_attention
    )(module, query, *rest, **kwargs)
    return output


AttentionInterface.register(IMPLEMENTATION_NAME, _attention_forward)
AttentionMaskInterface.register(IMPLEMENTATION_NAME, sdpa_mask)


@contextmanager
def use_single_query_attention(causal: Any) -> Iterator[None]:
    """Lets a network on a CPU decode with `single_query_attention` in place of torch's SDPA."""
    config = causal.config
    original = config._attn_implementation
    is_supported = original == "sdpa" and next(causal.parameters()).device.type == "cpu"
    if not is_supported:
        yield
        return
    config._attn_implementation = IMPLEMENTATION_NAME
    try:
        yield
    finally:
        config._attn_implementation = original
