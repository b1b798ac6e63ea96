"""Word and byte perplexity by page, as lm-evaluation-harness's `wikitext` measures it.

Each page of WikiText is detokenized and tokenized by itself; all of its tokens are predicted, the
first after the start token, in windows that do not overlap (rolling log-likelihood). The total is
divided by the words or the bytes of the page before detokenization, so that models with different
tokenizers can be compared. A page begins at a title between single equals signs.

A tokenizer that writes a start token of its own writes it here too, as in lm-evaluation-harness:
then a second one stands after the first and counts among what is predicted; the protocol says so.
"""

import math
import re
from collections.abc import Sequence

from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, sample
from zephyr.evaluate.ranking import start_token_id, tokenize_texts
from zephyr.model.example import Example, make_example
from zephyr.records import Passage, content_hash

_PAGE_TITLE = re.compile(r"^ = [^=\n]+ = \n", re.MULTILINE)
_DETOKENIZATION_RULES = (
    (r"s '", "s'"),
    (r"/' [0-9]/", r"/'[0-9]/"),
    *((f" @{re.escape(sign)}@ ", sign) for sign in "-,."),
    *((f" {re.escape(sign)} ", f"{sign} ") for sign in ":;.!?,"),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (r" ° ", "°"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)
"""Removes the spaces of WikiText's tokenization, in lm-evaluation-harness's order."""


def split_pages(text: str) -> list[str]:
    """Splits WikiText into pages; text before the first title belongs to the first page."""
    starts = [m.start() for m in _PAGE_TITLE.finditer(text)][1:]
    return [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]


def detokenize_page(page: str) -> str:
    """Detokenizes a page of WikiText to ordinary text (lm-eval's `wikitext_detokenizer`)."""
    for pattern, replacement in _DETOKENIZATION_RULES:
        page = re.sub(pattern, replacement, page)
    return page


def evaluate_page_perplexity(
    model: EvalModel, records: Sequence[Passage], settings: EvalSettings
) -> TaskOutput:
    """All tokens of each page; `n` of the pages where that is set."""
    text = "".join(r.text if r.text.endswith("\n") else f"{r.text}\n" for r in records)
    all_pages = split_pages(text.replace("\r\n", "\n"))
    nonblank_pages = [page for page in all_pages if page.strip()]
    selection = sample(
        nonblank_pages, settings.task.n, settings.seed, lambda page: content_hash("page", page)
    )
    examples: list[Example] = []
    page_indices: list[int] = []
    for at, tokens in enumerate(
        tokenize_texts(model, [detokenize_page(page) for page in selection])
    ):
        windows = _window_examples([start_token_id(model), *tokens], model.context_length)
        examples += windows
        page_indices += [at] * len(windows)
    negative_logprobs = [0.0] * len(selection)
    for at, [values] in zip(page_indices, model.logprobs(examples), strict=True):
        negative_logprobs[at] -= sum(values.tolist())
    items = [
        _page_item(records[0].source, page, lost)
        for page, lost in zip(selection, negative_logprobs, strict=True)
    ]
    counts = {
        "pages not drawn": len(nonblank_pages) - len(selection),
        "blank pages": len(all_pages) - len(nonblank_pages),
    }
    second = ("the tokenizer's start token counts",) if model.template.start_ids else ()
    protocol = ("by the page", f"windows of {model.context_length}", *second)
    return TaskOutput(items, {k: v for k, v in counts.items() if v}, protocol, {})


def _window_examples(tokens: list[int], window_tokens: int) -> list[Example]:
    """Window examples that predict every token but the first, at most `window_tokens` each.

    The last one has as many prompt tokens as fit, and predicts only the remaining tokens.
    """
    examples = []
    for start in range(0, len(tokens) - 1, window_tokens):
        end = min(start + window_tokens, len(tokens) - 1)
        first = max(0, end - window_tokens)  # the last window overlaps, and scores only new tokens
        examples.append(make_example(tokens[first : start + 1], tokens[start + 1 : end + 1]))
    return examples


def _page_item(source: str, page: str, negative_logprob: float) -> Item:
    words, size = len(re.split(r"\s+", page)), len(page.encode())
    title = next(line for line in page.splitlines() if line.strip())
    return {
        "id": content_hash("page", page),
        "source": source,
        "group": "",
        "scores": {
            "word_perplexity": negative_logprob,
            "byte_perplexity": negative_logprob,
            "bits_per_byte": negative_logprob / size / math.log(2),
        },
        "weight": {"word_perplexity": words, "byte_perplexity": size, "bits_per_byte": size},
        "detail": {"request": {"page": title.strip()}, "words": words, "bytes": size},
    }
