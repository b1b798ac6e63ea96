"""Attention of one new token to all before it, as two products for each head.

On a processor torch's own kernel, made for many queries, takes four times as long in bfloat16 for
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

NAME = "one_token"


def one_token(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [rows, H, 1, D], key and value [rows, K, columns, D], mask [rows, 1, 1, columns].

    Gives [rows, 1, H, D]; H is a multiple of K. The softmax is in float32. What is given to a row
    that sees nothing has no meaning, but is finite.
    """
    rows, heads, _, width = query.shape
    groups, columns = key.shape[1], key.shape[2]
    asked = query.reshape(rows * groups, heads // groups, width)
    scores = torch.bmm(key.flatten(0, 1), asked.transpose(1, 2))
    scores = scores.view(rows, groups, columns, heads // groups).transpose(2, 3).float()
    scores.mul_(width**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=3).to(value.dtype).flatten(0, 1)
    seen = torch.bmm(weights, value.flatten(0, 1))
    return seen.view(rows, 1, heads, width), None


def _attend(module: Any, query: Tensor, *rest: Any, **kwargs: Any) -> tuple[Tensor, None]:
    several = query.shape[2] > 1
    found: tuple[Tensor, None] = (sdpa_attention_forward if several else one_token)(
        module, query, *rest, **kwargs
    )
    return found


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def by_one_token(causal: Any) -> Iterator[None]:
    """Lets a network on a processor attend in this way where it would by torch's kernel."""
    config = causal.config
    usual = config._attn_implementation
    fits = usual == "sdpa" and next(causal.parameters()).device.type == "cpu"
    if not fits:
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
