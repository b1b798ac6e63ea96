"""Perplexity by the protocol of GPTQ (Frantar et al. 2023; IST-DASLab/gptq), on which quantized
models are compared.

The texts are joined by a blank line, encoded once, and cut into windows that don't overlap. In each
the first token is given and all others are predicted. All windows are equally long, so that the
exponential of the summed loss over the number of predictions equals GPTQ's mean of window means.
Token perplexity compares models that share a tokenizer, and no others.
"""

from collections.abc import Sequence

from zephyr.errors import ZephyrError
from zephyr.evaluate.asking import Asked, Item, Model, Settings, sample
from zephyr.model.fork import Ids, fork, ids
from zephyr.records import Passage, content_hash

WINDOW = 2048
STRIDE = 512


def ask_windows(model: Model, records: Sequence[Passage], settings: Settings) -> Asked:
    """The windows of min(2,048, context) tokens of all texts; `n` of them where that is set.

    A text shorter than that is one window, and the protocol says its length.
    """
    tokens = _encoded(model, records)
    width = min(WINDOW, model.context)
    short = len(tokens) < width
    width = min(width, len(tokens))
    windows = [tokens[at : at + width] for at in range(0, len(tokens) - width + 1, width)]
    starts = range(0, len(windows) * width, width)
    rows = [
        (start, window, _id(start, window)) for start, window in zip(starts, windows, strict=True)
    ]
    drawn = sample(rows, settings.task.n, settings.seed, lambda row: row[2])
    losses = model.logprobs([fork(window[:1], window[1:]) for _, window, _ in drawn])
    items: list[Item] = [
        {
            "id": name,
            "source": records[0].source,
            "group": "",
            "scores": {"perplexity": -sum(loss.tolist())},
            "weight": {"perplexity": width - 1},
            "detail": {"request": {"first_token": start, "tokens": width}},
        }
        for (start, _, name), [loss] in zip(drawn, losses, strict=True)
    ]
    counts = {
        "tail tokens": len(tokens) - len(windows) * width,
        "windows not drawn": len(windows) - len(drawn),
        "text shorter than one window": int(short),
    }
    said = f"windows of {width}" + (" (the whole text)" if short else "")
    return Asked(items, {k: v for k, v in counts.items() if v}, (said,), {})


def ask_strided(model: Model, records: Sequence[Passage], settings: Settings) -> Asked:
    """Windows that overlap: each begins 512 tokens after the last, and only what is new counts.

    The guide of Hugging Face's library (perplexity of fixed-length models): every token beyond the
    first 2,048 (or the context) sees at least all but 512 of a window. Where a window is shorter
    than 1,024 tokens, half of it is new. `n` of the windows, where that is set.
    """
    tokens = _encoded(model, records)
    width = min(WINDOW, model.context, len(tokens))
    stride = min(STRIDE, max(1, width // 2))
    ends = [*range(width, len(tokens), stride), len(tokens)]
    starts = [1, *ends[:-1]]
    rows = [
        (first, tokens[max(0, end - width) : end], end - first)
        for first, end in zip(starts, ends, strict=True)
    ]
    named = [(first, window, new, _id(first, window)) for first, window, new in rows if new]
    drawn = sample(named, settings.task.n, settings.seed, lambda row: row[3])
    losses = model.logprobs([fork(window[:-new], window[-new:]) for _, window, new, _ in drawn])
    items: list[Item] = [
        {
            "id": name,
            "source": records[0].source,
            "group": "",
            "scores": {"perplexity": -sum(loss.tolist())},
            "weight": {"perplexity": new},
            "detail": {"request": {"first_token": first, "tokens": new, "window": len(window)}},
        }
        for (first, window, new, name), [loss] in zip(drawn, losses, strict=True)
    ]
    counts = {"windows not drawn": len(named) - len(drawn)}
    said = f"windows of {width}, stride {stride}"
    return Asked(items, {k: v for k, v in counts.items() if v}, (said,), {})


def _encoded(model: Model, records: Sequence[Passage]) -> Ids:
    """The tokens of all texts, joined by a blank line.

    Raises:
        ZephyrError: there are fewer than two.
    """
    text = "\n\n".join(record.text for record in records)
    # a limit of length keeps the tokenizer from warning of a text that is never read at once
    tokens = ids(model.tokenizer([text], truncation=False, max_length=10**9)["input_ids"][0])
    if len(tokens) < 2:
        raise ZephyrError(
            "there is nothing to predict in this text",
            found=f"{len(tokens)} tokens",
            allowed="at least 2",
        )
    return tokens


def _id(start: int, window: Ids) -> str:
    """Equal for two models just where their tokenizers see the same window."""
    return content_hash("window", start, window.tolist())
