"""Perplexity by the page, as lm-evaluation-harness's `wikitext` measures it.

Each page of WikiText is put into plain writing and encoded by itself; all of its tokens are
predicted, the first after the start token, in windows that do not overlap. The sum is divided by
the words or the bytes of the page as it stood before, so that models with different tokenizers can
be compared. A page begins at a title between single equals signs.
"""

import math
import re
from collections.abc import Sequence

from zephyr.evaluate.asking import Asked, Item, Model, Settings, sample
from zephyr.evaluate.ranking import encode, start_token
from zephyr.model.fork import Fork, fork
from zephyr.records import Passage, content_hash

_TITLE = re.compile(r"^ = [^=\n]+ = \n", re.MULTILINE)
_PLAIN = (
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
"""Spaces that WikiText's tokens have and writing has not, in the harness's order."""


def pages(text: str) -> list[str]:
    """The pages of a text; what stands before the first title belongs to the first."""
    starts = [m.start() for m in _TITLE.finditer(text)][1:]
    return [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]


def plain(page: str) -> str:
    """A page as people would write it."""
    for pattern, written in _PLAIN:
        page = re.sub(pattern, written, page)
    return page


def ask_pages(model: Model, records: Sequence[Passage], settings: Settings) -> Asked:
    """All tokens of each page; `n` of the pages where that is set."""
    text = "".join(r.text if r.text.endswith("\n") else f"{r.text}\n" for r in records)
    made = pages(text.replace("\r\n", "\n"))
    found = [page for page in made if page.strip()]
    drawn = sample(found, settings.task.n, settings.seed, lambda page: content_hash("page", page))
    forks: list[Fork] = []
    owners: list[int] = []
    for at, tokens in enumerate(encode(model, [plain(page) for page in drawn])):
        windows = _windows([start_token(model), *tokens], model.context)
        forks += windows
        owners += [at] * len(windows)
    sums = [0.0] * len(drawn)
    for at, [values] in zip(owners, model.logprobs(forks), strict=True):
        sums[at] -= sum(values.tolist())
    items = [_item(records[0].source, page, lost) for page, lost in zip(drawn, sums, strict=True)]
    counts = {
        "pages not drawn": len(found) - len(drawn),
        "blank pages": len(made) - len(found),
    }
    said = ("by the page", f"windows of {model.context}")
    return Asked(items, {k: v for k, v in counts.items() if v}, said, {})


def _windows(tokens: list[int], width: int) -> list[Fork]:
    """Forks that predict every token but the first, `width` of them in each but the last.

    The last has as many before it as fit, and predicts the rest alone.
    """
    made = []
    for start in range(0, len(tokens) - 1, width):
        end = min(start + width, len(tokens) - 1)
        first = max(0, end - width)  # the last window reaches back, and scores only what is new
        made.append(fork(tokens[first : start + 1], tokens[start + 1 : end + 1]))
    return made


def _item(source: str, page: str, lost: float) -> Item:
    words, size = len(re.split(r"\s+", page)), len(page.encode())
    title = next(line for line in page.splitlines() if line.strip())
    return {
        "id": content_hash("page", page),
        "source": source,
        "group": "",
        "scores": {
            "word_perplexity": lost,
            "byte_perplexity": lost,
            "bits_per_byte": lost / size / math.log(2),
        },
        "weight": {"word_perplexity": words, "byte_perplexity": size, "bits_per_byte": size},
        "detail": {"request": {"page": title.strip()}, "words": words, "bytes": size},
    }
