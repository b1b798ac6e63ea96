"""How near a written answer comes to its reference: pure functions of two texts.

BLEU-4 and ROUGE are those of LLaMA-Factory (`train/sft/metric.py`, v0.6.3 to v0.8.2), by which the
figures that Zephyr is compared with were made. They are unusual, and kept so: BLEU counts
characters, and ROUGE-1 and ROUGE-2 compare sets of n-grams of jieba's words. All lie in [0, 1].
"""

import logging
import re
import tempfile
import warnings
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

MARK = "####"
"""What GSM8K writes before the final answer."""

_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_ANYWHERE = re.compile(rf"(?<![\w)\]])-?\$?{_NUMBER}|{_NUMBER}")
_AFTER_MARK = re.compile(rf"[ \t]*((?:-?\$?|\$-){_NUMBER})")


class Rouge(NamedTuple):
    """F-scores over sets of words, sets of word pairs, and the longest common subsequence."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815  # the name in the field


def bleu4(reference: str, answer: str) -> float:
    """BLEU over 1- to 4-grams of characters; an n-gram order without a match is smoothed.

    nltk's `sentence_bleu` with method 3: the k-th order without a match counts 1 / (2^k x its
    number of n-grams). No common character gives 0.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method3
    return float(sentence_bleu([list(reference)], list(answer), smoothing_function=smoothing))


def rouge(reference: str, answer: str) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L of `rouge_chinese` over jieba's words; 0 for a blank text."""
    from rouge_chinese import Rouge as Scorer

    expected, given = (" ".join(_jieba().cut(text)) for text in (reference, answer))
    if not expected.split() or not given.split():
        return Rouge(0.0, 0.0, 0.0)
    found = Scorer().get_scores(given, expected)[0]
    return Rouge(*(float(found[name]["f"]) for name in ("rouge-1", "rouge-2", "rouge-l")))


@lru_cache(maxsize=1)
def _jieba() -> Any:
    """jieba's segmenter, its dictionary read afresh.

    jieba would trust a cache of that dictionary in the temporary folder that all users share, and
    say so on the terminal. Its import warns of escapes in its own patterns (once, when Python
    compiles them), which nobody here can mend.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        segmenter.tmp_dir = folder
        segmenter.initialize()
    return segmenter


def marked_number(text: str) -> Decimal | None:
    """The number right after the last `####`, or None. Commas and a dollar sign don't count.

    As lm-eval's strict match for GSM8K, but for the last mark instead of the first.
    """
    _, mark, rest = text.rpartition(MARK)
    found = _AFTER_MARK.match(rest) if mark else None
    return _decimal(found.group(1)) if found else None


def last_number(text: str) -> Decimal | None:
    """The last number in a text, or None: what lm-eval calls flexible extraction.

    A minus after a word, a number or a bracket is a subtraction or a range, not a sign.
    """
    found = [match.group() for match in _ANYWHERE.finditer(text)]
    return _decimal(found[-1]) if found else None


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("$", ""))
