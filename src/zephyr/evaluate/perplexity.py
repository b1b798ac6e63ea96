"""WikiText perplexity by the protocol of GPTQ, with which quantized models are compared.

The texts are joined by a blank line, tokenized once, and split into windows that don't overlap
(Frantar et al. 2023; IST-DASLab/gptq). In each window the first token is context and all others are
predicted. All windows are equally long, so that the exponential of the summed loss over the number
of predictions equals GPTQ's mean of window means. Token perplexity is comparable only between
models that share a tokenizer.

Where the tokenizer writes a start token, each window begins with it, and the protocol says so:
GPTQ's own script has it in the first window alone, and models such as Gemma's predict nonsense
without it.
"""

from collections.abc import Sequence

import numpy as np

from zephyr.errors import ZephyrError
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, sample
from zephyr.model.example import TokenIds, make_example, to_token_ids
from zephyr.records import Passage, content_hash

WINDOW_TOKENS = 2048
STRIDE_TOKENS = 512


def evaluate_window_perplexity(
    model: EvalModel, records: Sequence[Passage], settings: EvalSettings
) -> TaskOutput:
    """The windows of min(2,048, context) tokens of all texts; `n` of them where that is set.

    A text shorter than that is one window, and the protocol says its length. Where the tokenizer
    writes a start token, each window begins with it, and the protocol says so.
    """
    start_ids, tokens = _encode_records(model, records)
    full_tokens = min(WINDOW_TOKENS, model.context_length) - len(start_ids)
    is_short = len(tokens) < full_tokens
    text_tokens = min(full_tokens, len(tokens))
    windows = [
        np.concatenate([start_ids, tokens[at : at + text_tokens]])
        for at in range(0, len(tokens) - text_tokens + 1, text_tokens)
    ]
    starts = range(0, len(windows) * text_tokens, text_tokens)
    rows = [
        (start, window, _window_id(start, window))
        for start, window in zip(starts, windows, strict=True)
    ]
    selection = sample(rows, settings.task.n, settings.seed, lambda row: row[2])
    window_tokens, known = len(start_ids) + text_tokens, max(1, len(start_ids))
    logprobs = model.logprobs(
        [make_example(window[:known], window[known:]) for _, window, _ in selection]
    )
    items: list[Item] = [
        {
            "id": name,
            "source": records[0].source,
            "group": "",
            "scores": {"perplexity": -sum(loss.tolist())},
            "weight": {"perplexity": window_tokens - known},
            "detail": {"request": {"first_token": start, "tokens": window_tokens}},
        }
        for (start, _, name), [loss] in zip(selection, logprobs, strict=True)
    ]
    counts = {
        "tail tokens": len(tokens) - len(windows) * text_tokens,
        "windows not drawn": len(windows) - len(selection),
        "text shorter than one window": int(is_short),
    }
    protocol = f"windows of {window_tokens}" + (" (the whole text)" if is_short else "")
    return TaskOutput(
        items,
        {k: v for k, v in counts.items() if v},
        (protocol, *_start_label(start_ids)),
        {},
    )


def evaluate_strided_perplexity(
    model: EvalModel, records: Sequence[Passage], settings: EvalSettings
) -> TaskOutput:
    """Windows that overlap: each begins 512 tokens after the last, and only what is new counts.

    The guide of Hugging Face's library (perplexity of fixed-length models): every token beyond the
    first 2,048 (or the context) sees at least all but 512 of a window. Where a window is shorter
    than 1,024 tokens, half of it is new. `n` of the windows, where that is set. Where the tokenizer
    writes a start token, each window begins with it, and the protocol says so.
    """
    start_ids, tokens = _encode_records(model, records)
    window_tokens = min(WINDOW_TOKENS, model.context_length, len(start_ids) + len(tokens))
    text_tokens = window_tokens - len(start_ids)
    stride = min(STRIDE_TOKENS, max(1, window_tokens // 2))
    ends = [*range(text_tokens, len(tokens), stride), len(tokens)]
    starts = [0 if len(start_ids) else 1, *ends[:-1]]
    rows = [
        (
            first,
            np.concatenate([start_ids, tokens[max(0, end - text_tokens) : end]]),
            end - first,
        )
        for first, end in zip(starts, ends, strict=True)
    ]
    rows_with_id = [
        (first, window, new, _window_id(first, window)) for first, window, new in rows if new
    ]
    selection = sample(rows_with_id, settings.task.n, settings.seed, lambda row: row[3])
    logprobs = model.logprobs(
        [make_example(window[:-new], window[-new:]) for _, window, new, _ in selection]
    )
    items: list[Item] = [
        {
            "id": name,
            "source": records[0].source,
            "group": "",
            "scores": {"perplexity": -sum(loss.tolist())},
            "weight": {"perplexity": new},
            "detail": {"request": {"first_token": first, "tokens": new, "window": len(window)}},
        }
        for (first, window, new, name), [loss] in zip(selection, logprobs, strict=True)
    ]
    counts = {"windows not drawn": len(rows_with_id) - len(selection)}
    protocol = f"windows of {window_tokens}, stride {stride}"
    return TaskOutput(
        items,
        {k: v for k, v in counts.items() if v},
        (protocol, *_start_label(start_ids)),
        {},
    )


def _start_label(start_ids: TokenIds) -> tuple[str, ...]:
    """The part of the protocol that says where the start token stands, if there is one."""
    return ("each after the start token",) if len(start_ids) else ()


def _encode_records(model: EvalModel, records: Sequence[Passage]) -> tuple[TokenIds, TokenIds]:
    """The ids before each window, and those [T] of all texts joined by a blank line.

    Raises:
        ZephyrError: there are fewer than two tokens.
    """
    text = "\n\n".join(record.text for record in records)
    # with a max_length the tokenizer does not warn about a text that is split into windows
    options = {"add_special_tokens": False, "truncation": False, "max_length": 10**9}
    tokens = to_token_ids(model.tokenizer([text], **options)["input_ids"][0])
    start_ids = to_token_ids(model.template.start_ids)
    if len(tokens) < 2:
        raise ZephyrError(
            "there is nothing to predict in this text",
            found=f"{len(tokens)} tokens",
            allowed="at least 2",
        )
    return start_ids, tokens


def _window_id(start: int, window: TokenIds) -> str:
    """The item id of a window: equal for two models exactly where their tokens are equal."""
    return content_hash("window", start, window.tolist())
