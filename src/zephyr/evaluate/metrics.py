"""Text metrics of a generated answer against its reference: BLEU, ROUGE and exact match.

`bleu4` and `rouge` are those of LLaMA-Factory (`train/sft/metric.py`, v0.6.3 to v0.8.2), with which
the published scores that Zephyr is compared with were computed. They are unusual: BLEU counts
characters, and ROUGE-1 and ROUGE-2 compare sets of n-grams of jieba's words. `sacrebleu` and
`google_rouge` are those of most papers on English. All are in [0, 1].
"""

import logging
import re
import tempfile
import warnings
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

FINAL_ANSWER_MARK = "####"
"""GSM8K's marker before the final answer."""

_STRICT_NUMBER = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED_PATTERNS = (",", r"\$", "(?s).*#### ", r"\.$")
INVALID_NUMBER = "[invalid]"
"""lm-evaluation-harness's fallback for a missing number."""

_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_NUMBER_ANYWHERE = re.compile(rf"(?<![\w)\]])-?\$?{_NUMBER}|{_NUMBER}")
_NUMBER_AFTER_MARK = re.compile(rf"[ \t]*((?:-?\$?|\$-){_NUMBER})")


class RougeScores(NamedTuple):
    """ROUGE F-scores: of words, of word bigrams, and of the longest common subsequence."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815  # the name in the field


def bleu4(reference: str, answer: str) -> float:
    """LLaMA-Factory's BLEU-4 over characters, smoothed (nltk's method 3).

    nltk's `sentence_bleu`: the k-th n-gram order without a match counts 1 / (2^k x its number of
    n-grams). Without a common character it is 0.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method3
    return float(sentence_bleu([list(reference)], list(answer), smoothing_function=smoothing))


def rouge(reference: str, answer: str) -> RougeScores:
    """LLaMA-Factory's ROUGE-1, -2 and -L (`rouge_chinese`, jieba's words); 0 for blank text."""
    from rouge_chinese import Rouge as Scorer

    reference_words, answer_words = (
        " ".join(_load_jieba().cut(text)) for text in (reference, answer)
    )
    if not reference_words.split() or not answer_words.split():
        return RougeScores(0.0, 0.0, 0.0)
    scores = Scorer().get_scores(answer_words, reference_words)[0]
    return RougeScores(*(float(scores[name]["f"]) for name in ("rouge-1", "rouge-2", "rouge-l")))


def sacrebleu(reference: str, answer: str) -> float:
    """sacreBLEU (Post 2018) of one answer, in [0, 1]; see `SACREBLEU_SIGNATURE`.

    It is sentence BLEU, so that it can be paired by item; n-gram orders longer than the answer do
    not count (effective order).
    """
    return float(_sacrebleu_scorer().sentence_score(answer, [reference]).score) / 100


SACREBLEU_SIGNATURE = "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp"


@lru_cache(maxsize=1)
def _sacrebleu_scorer() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


def google_rouge(reference: str, answer: str) -> RougeScores:
    """ROUGE-1, ROUGE-2 and ROUGE-L of the package `rouge-score`, without its stemmer."""
    scores = _google_rouge_scorer().score(reference, answer)
    return RougeScores(*(float(scores[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL")))


@lru_cache(maxsize=1)
def _google_rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)


@lru_cache(maxsize=1)
def _load_jieba() -> Any:
    """Loads jieba's word segmenter, with its dictionary read afresh.

    jieba would trust a cached dictionary in the temporary folder, which all users share, and print
    that on the terminal. Its import warns of invalid escapes in its own patterns, which we can't
    fix.
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

    Compares the number (digits, commas, full stops, minus) after the first `#### ` of the answer
    with that of the reference.
    """
    matches = _STRICT_NUMBER.findall(answer)
    return _normalize_number(
        matches[0].strip() if matches else INVALID_NUMBER
    ) == _normalize_number(reference)


def flexible_match(reference: str, answer: str) -> bool:
    """lm-evaluation-harness's `exact_match,flexible-extract` of GSM8K: the last number."""
    matches = _FLEXIBLE_NUMBER.findall(answer)
    last = next(filter(None, matches[-1])) if matches else INVALID_NUMBER
    return _normalize_number(last.strip()) == _normalize_number(reference)


def _normalize_number(text: str) -> str:
    for pattern in _IGNORED_PATTERNS:
        text = re.sub(pattern, "", text)
    return text.lower()


def number_after_mark(text: str) -> Decimal | None:
    """The number right after the last `####`, or None; commas and dollar signs don't count.

    Unlike `strict_match`, it is the last mark that counts, and 7.0 is 7.
    """
    _, mark, rest = text.rpartition(FINAL_ANSWER_MARK)
    match = _NUMBER_AFTER_MARK.match(rest) if mark else None
    return _parse_decimal(match.group(1)) if match else None


def last_number(text: str) -> Decimal | None:
    """The last number in a text, or None.

    A minus after a word, a number or a bracket is a subtraction or a range, not a sign.
    """
    numbers = [match.group() for match in _NUMBER_ANYWHERE.finditer(text)]
    return _parse_decimal(numbers[-1]) if numbers else None


def _parse_decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("$", ""))
