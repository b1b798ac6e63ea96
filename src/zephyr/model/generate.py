"""Batched decoding with a key-value cache.

Prompts of a batch end at the same place (padding on the left) and rows that have finished leave
the batch. Sampling draws from a generator of its own for each prompt, so what one prompt gets does
not depend on its neighbours.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zephyr.model.fork import Ids, ids


class Generation(NamedTuple):
    """An answer: its ids and text without the end token, and whether it ended by itself."""

    ids: Ids
    text: str
    stopped: bool


class Sampling(NamedTuple):
    """How the next token is chosen: greedily at temperature 0, else drawn by `seed`.

    `top_p` keeps the smallest set of likeliest tokens whose probability reaches it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()


class Answer(NamedTuple):
    """Generated ids without the stop token, and whether there was one."""

    ids: Ids
    stopped: bool


@torch.inference_mode()
def decode(
    causal: Any,
    prompts: Sequence[Ids],
    *,
    stops: frozenset[int],
    limits: Sequence[int],
    sampling: Sampling = GREEDY,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """One answer for each prompt, decoded as one batch; `limits` bounds the tokens of each.

    `on_token(row, id)` is called for each token as it is chosen, end tokens left out.
    """
    device = next(causal.parameters()).device
    width = max(map(len, prompts))
    tokens = torch.zeros((len(prompts), width), dtype=torch.int64)
    mask = torch.zeros((len(prompts), width), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, width - len(prompt) :] = 1
    tokens, mask = tokens.to(device), mask.to(device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    takes = inspect.signature(causal.forward).parameters
    memory = "cache" if "cache" in takes else "past_key_values"  # its name before transformers 5.24
    draws = [torch.Generator().manual_seed(sampling.seed + row) for row in range(len(prompts))]

    rows = list(range(len(prompts)))
    written: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    cache = None
    while rows:
        where = {"position_ids": positions} if "position_ids" in takes else {}
        out = causal(
            input_ids=tokens,
            attention_mask=mask,
            use_cache=True,
            logits_to_keep=1,
            **{memory: cache},
            **where,
        )
        cache = out[memory]
        chosen = _choose(out.logits[:, -1].float(), sampling, [draws[r] for r in rows])
        keep = []
        for at, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            if token in stops:
                stopped[row] = True
                continue
            written[row].append(token)
            if len(written[row]) < limits[row]:
                keep.append(at)
            if on_token is not None:
                on_token(row, token)
        if not keep:
            break
        if len(keep) < len(rows):
            left = torch.tensor(keep, device=device)
            cache.batch_select_indices(left)
            mask, positions = mask[left], positions[left]
            rows = [rows[at] for at in keep]
            chosen = [chosen[at] for at in keep]
        tokens = torch.tensor(chosen, device=device)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [Answer(ids(w), s) for w, s in zip(written, stopped, strict=True)]


def _choose(logits: Tensor, sampling: Sampling, draws: Sequence[torch.Generator]) -> list[int]:
    """The next token of each row of logits [rows, V]."""
    if sampling.temperature == 0:
        return logits.argmax(dim=1).tolist()
    probs = (logits / sampling.temperature).softmax(dim=1).cpu()
    ordered, order = probs.sort(dim=1, descending=True, stable=True)
    ordered[ordered.cumsum(dim=1) - ordered >= sampling.top_p] = 0
    return [
        int(order[row, torch.multinomial(ordered[row], 1, generator=draw)])
        for row, draw in enumerate(draws)
    ]
