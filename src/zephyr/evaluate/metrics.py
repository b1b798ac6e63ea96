"""How near a written answer comes to its reference: pure functions of two texts.

`bleu4` and `rouge` are those of LLaMA-Factory (`train/sft/metric.py`, v0.6.3 to v0.8.2), by which
the figures that Zephyr is compared with were made. They are unusual, and kept so: BLEU counts
characters, and ROUGE-1 and ROUGE-2 compare sets of n-grams of jieba's words. `sacrebleu` and
`google_rouge` are those of most papers on English. All lie in [0, 1].
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

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (",", r"\$", "(?s).*#### ", r"\.$")
INVALID = "[invalid]"
"""What the harness puts in the place of a number that is not there."""

_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_ANYWHERE = re.compile(rf"(?<![\w)\]])-?\$?{_NUMBER}|{_NUMBER}")
_AFTER_MARK = re.compile(rf"[ \t]*((?:-?\$?|\$-){_NUMBER})")


class Rouge(NamedTuple):
    """F-scores of words, of pairs of words, and of the longest common subsequence of words."""

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


def sacrebleu(reference: str, answer: str) -> float:
    """BLEU of one answer by sacreBLEU (Post 2018), in [0, 1]; `SACREBLEU` is its signature.

    Of a single sentence, so that it can be paired by item; orders of n-grams that a short answer
    cannot have do not count.
    """
    return float(_sacrebleu().sentence_score(answer, [reference]).score) / 100


SACREBLEU = "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp"


@lru_cache(maxsize=1)
def _sacrebleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


def google_rouge(reference: str, answer: str) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L of the package `rouge-score`, without its stemmer."""
    found = _google_rouge().score(reference, answer)
    return Rouge(*(float(found[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL")))


@lru_cache(maxsize=1)
def _google_rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)


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


def strict_match(reference: str, answer: str) -> bool:
    """lm-evaluation-harness's `exact_match,strict-match` of GSM8K (version 3).

    What stands after the first `#### ` of the answer, its digits, commas, full stops and minus,
    against what stands after that of the reference.
    """
    found = _STRICT.findall(answer)
    return _plain(found[0].strip() if found else INVALID) == _plain(reference)


def flexible_match(reference: str, answer: str) -> bool:
    """lm-evaluation-harness's `exact_match,flexible-extract` of GSM8K: the last number of all."""
    found = _FLEXIBLE.findall(answer)
    last = next(filter(None, found[-1])) if found else INVALID
    return _plain(last.strip()) == _plain(reference)


def _plain(text: str) -> str:
    for pattern in _IGNORED:
        text = re.sub(pattern, "", text)
    return text.lower()


def marked_number(text: str) -> Decimal | None:
    """The number right after the last `####`, or None. Commas and a dollar sign don't count.

    Unlike `strict_match`, it is the last mark that counts, and 7.0 is 7.
    """
    _, mark, rest = text.rpartition(MARK)
    found = _AFTER_MARK.match(rest) if mark else None
    return _decimal(found.group(1)) if found else None


def last_number(text: str) -> Decimal | None:
    """The last number in a text, or None.

    A minus after a word, a number or a bracket is a subtraction or a range, not a sign.
    """
    found = [match.group() for match in _ANYWHERE.finditer(text)]
    return _decimal(found[-1]) if found else None


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("$", ""))
