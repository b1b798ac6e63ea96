"""Text metrics of a generated answer against its reference: BLEU, ROUGE and exact match.

`bleu4` and `rouge` are those of LLaMA-Factory (`train/sft/metric.py`, v0.6.3 to v0.8.2), with which
the published scores that Zephyr is compared with were computed. They are unusual: BLEU counts
characters, and ROUGE-1 and ROUGE-2 compare sets of n-grams of jieba's words. `sacrebleu` and
`google_rouge` are those of most papers on English. All are in [0, 1]; where a metric's
tokenizer can't read the words of a reference, its value is None and not 0.
"""

import logging
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

_STRICT_NUMBER = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED_PATTERNS = (",", r"\$", "(?s).*#### ", r"\.$")
INVALID_NUMBER = "[invalid]"
"""lm-evaluation-harness's fallback for a missing number."""


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


def sacrebleu(reference: str, answer: str) -> float | None:
    """sacreBLEU (Post 2018) of one answer, in [0, 1]; see `SACREBLEU_SIGNATURE`.

    It is sentence BLEU, so that it can be paired by item; n-gram orders longer than the answer do
    not count (effective order). None of a reference in a script without blanks between words, which
    tokenizer 13a takes for one word.
    """
    if _share_of_letters(reference, lambda c: unicodedata.name(c, "").startswith(_UNSPACED)) > 0.5:
        return None
    return float(_sacrebleu_scorer().sentence_score(answer, [reference]).score) / 100


SACREBLEU_SIGNATURE = "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp"


@lru_cache(maxsize=1)
def _sacrebleu_scorer() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts that put no blanks between words, by the names of their characters."""


def google_rouge(reference: str, answer: str) -> RougeScores | None:
    """ROUGE-1, ROUGE-2 and ROUGE-L of the package `rouge-score`, without its stemmer.

    Its tokenizer keeps a to z and digits, and drops every other letter: None of a reference of
    which it drops more than half of the letters.
    """
    if _share_of_letters(reference, lambda c: not c.isascii()) > 0.5:
        return None
    scores = _google_rouge_scorer().score(reference, answer)
    return RougeScores(*(float(scores[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL")))


def _share_of_letters(text: str, is_counted: Callable[[str], bool]) -> float:
    """The share of the letters of a text that are counted; 0 without letters."""
    letters = [character for character in text if character.isalpha()]
    return sum(map(is_counted, letters)) / max(len(letters), 1)


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
