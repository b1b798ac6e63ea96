"""Probes a model that was loaded: its batch layout, and whether its log-probabilities are right."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from zephyr.errors import ZephyrError
from zephyr.model.attention_config import attention_windows, has_full_attention
from zephyr.model.batching import Layout
from zephyr.model.decoding import DecodeBatch, DecodeRow
from zephyr.model.example import TokenIds, make_example, to_token_ids
from zephyr.model.model import Model
from zephyr.model.precision import rounding_tolerance
from zephyr.model.prefix_cache import MIN_PREFIX_TOKENS
from zephyr.model.tokenizer import describe_error

MAX_PROBE_TOKENS = 256
"""Longest text of the probe: a longer window is known by the config alone."""


def probe_layout(model: Model) -> tuple[Layout, bool]:
    """Probes the batch layout and prefix sharing against the library's own forward.

    `tree` needs full causal SDPA attention and position ids (no sliding window, no ALiBi), and must
    give the logprobs of `rows`; `rows` must give those of the library's logits. Prefix caching is
    used where it gives those of `tree`. One text reaches beyond the windows of the config, up to
    `MAX_PROBE_TOKENS`.
    """
    config = model.causal.config.get_text_config()
    vocabulary = config.vocab_size
    ids = (np.arange(24) * 7 + 3) % vocabulary
    windows = [
        w for w in attention_windows(config, model.context_length) if w < MAX_PROBE_TOKENS - 8
    ]
    reach = min(max([MIN_PREFIX_TOKENS, *windows]) + 8, model.context_length)
    long_text = (np.arange(reach) * 5 + 1) % vocabulary
    examples = [
        make_example(ids[:5], ids[5:9], ids[9:12]),
        make_example(ids[12:14], ids[14:17], ids[3:6], ids[17:19]),
        make_example(ids[20:21], ids[:8]),
        make_example(long_text[:-4], long_text[-4:]),
    ]
    rows_logprobs = _concatenate_logprobs(model.logprobs(examples))
    reference_logprobs = _concatenate_logprobs(
        [[_reference_logprobs(model, e.prompt, c.ids) for c in e.completions] for e in examples]
    )
    allowed = rounding_tolerance(model.network)
    if (difference := float(np.abs(rows_logprobs - reference_logprobs).mean())) > allowed:
        raise ZephyrError(
            "log-probabilities of this architecture are not computed right here",
            found=f"{type(model.causal).__name__} differs from its own logits by {difference:.2g}",
            todo="use another base model, and report the architecture",
        )
    if (
        config._attn_implementation != "sdpa"
        or not has_full_attention(config, model.context_length)
        or config.to_dict().get("alibi")
    ):
        return "rows", False
    tree_model = replace(model, layout="tree")
    try:
        tree_logprobs = _concatenate_logprobs(tree_model.logprobs(examples))
    except (ValueError, RuntimeError, TypeError):
        return "rows", False  # BLOOM and others refuse such a mask outright
    if float(np.abs(tree_logprobs - rows_logprobs).mean()) > allowed:
        return "rows", False
    if model.context_length < MIN_PREFIX_TOKENS + 6:
        return "tree", False
    long_prefix = (np.arange(MIN_PREFIX_TOKENS) * 5 + 1) % vocabulary
    prefix_examples = [
        make_example(np.concatenate([long_prefix, ids[n : n + 3]]), ids[9:12]) for n in (1, 4, 6)
    ]
    unshared_logprobs = _concatenate_logprobs(tree_model.logprobs(prefix_examples))
    shared_logprobs = _concatenate_logprobs(
        replace(tree_model, shares_prefixes=True).logprobs(prefix_examples)
    )
    return "tree", float(np.abs(shared_logprobs - unshared_logprobs).mean()) <= allowed


def check_generation(model: Model) -> None:
    """Checks greedy decoding: each token must be the likeliest by the network's own logits.

    Two prompts of different lengths are decoded in one batch.

    Raises:
        ZephyrError: the network can't be decoded here, or gives other tokens.
    """
    vocabulary = model.causal.config.get_text_config().vocab_size
    ids = to_token_ids(((np.arange(24) * 7 + 3) % vocabulary).tolist())
    rows = [DecodeRow(ids[:11]), DecodeRow(ids[11:17])]
    try:
        batch: DecodeBatch[DecodeRow] = DecodeBatch(model.causal)
        batch.add(rows)
        for _ in range(PROBE_NEW_TOKENS - 1):
            batch.step()
    except ZephyrError:
        raise
    except Exception as error:  # whatever the library raises
        raise ZephyrError(
            "this network can't generate text here",
            found=f"{type(model.causal).__name__}: {describe_error(error)}",
            todo=_WITHOUT_GENERATION,
        ) from error
    shortfalls = [_greedy_shortfall(model, row) for row in rows]
    if (shortfall := max(shortfalls)) > (allowed := rounding_tolerance(model.network)):
        raise ZephyrError(
            "this network does not generate its likeliest tokens here",
            found=f"{type(model.causal).__name__}: a token {shortfall:.2g} nats less likely",
            allowed=f"at most {allowed:g}",
            todo=_WITHOUT_GENERATION,
        )


PROBE_NEW_TOKENS = 4
_WITHOUT_GENERATION = "train it and ask it tasks that are ranked, or use another base model"


@torch.inference_mode()
def _greedy_shortfall(model: Model, row: DecodeRow) -> float:
    """By how many nats the tokens of a row are less likely than the likeliest, at most."""
    tokens = torch.tensor([*row.prompt.tolist(), *row.output_ids], device=model.device)
    logits = model.causal(tokens[None, :-1]).logits[0, len(row.prompt) - 1 :].float()
    chosen = logits.gather(1, tokens[len(row.prompt) :, None])[:, 0]
    return float((logits.amax(dim=1) - chosen).max())


@torch.inference_mode()
def _reference_logprobs(
    model: Model, prompt: TokenIds, completion: TokenIds
) -> NDArray[np.float32]:
    """Log-probabilities [T] of a completion from the library's own logits, for the probe."""
    input_ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))[None]
    logits = model.causal(input_ids.to(model.device)).logits[0].float().log_softmax(dim=-1).cpu()
    positions = torch.arange(len(prompt), input_ids.shape[1])
    values: NDArray[np.float32] = logits[positions - 1, input_ids[0, positions]].numpy()
    return values


def _concatenate_logprobs(results: list[list[NDArray[np.float32]]]) -> NDArray[np.float32]:
    return np.concatenate([part for parts in results for part in parts])
