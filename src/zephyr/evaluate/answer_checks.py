"""Rule-based checks of a tutor's answer, without a judge model: pure functions of texts.

They are heuristics, with known errors. `reveals_answer` looks at numbers, not meanings: a hint that
has the same number as an intermediate result counts as revealing the answer, and one that leaves a
calculation to be done ("it is 6 x 7") does not. `asks_question` looks at question marks.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from zephyr.evaluate.numbers import NUMBER, normalize_latex, normalize_number

_DIGITS = re.compile(rf"(?<![\w.,]){NUMBER}(?!\d|(?:st|nd|rd|th)\b)")
_LABEL_NUMBER = re.compile(
    r"^[ \t]*\(?\d+[.)](?=\s)|\b(?:steps?|parts?|questions?|hints?|number|#)[ ]?\d+\b",
    re.IGNORECASE | re.MULTILINE,
)
_UNITS_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS_WORDS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = {word: value for value, word in enumerate(_UNITS_WORDS)}
_TENS = {word: 10 * value for value, word in enumerate(_TENS_WORDS, 2)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_NUMBER_WORD = "|".join(sorted((*_UNITS, *_TENS, *_SCALES), key=len, reverse=True))
_NUMBER_WORDS = re.compile(
    rf"\b(?:{_NUMBER_WORD})(?:(?:-|\s+and\s+|\s+)(?:{_NUMBER_WORD}))*\b", re.IGNORECASE
)
_QUANTITY_CONTEXT = re.compile(
    r"(?:[=:≈]|####|\b(?:is|are|be|was|were|equals?|makes?|gives?|gets?|leaves?|have|has|had|left))"
    r"(?:\s+(?:exactly|just|about|only|now|then))?\s*[$€£*\\({]*$",
    re.IGNORECASE,
)
_RESULT_CONTEXT = re.compile(
    r"(?:[=≈]|####|\bequals)\s*[$€£*\\({]*$"
    r"|\b(?:answer|result|total|solution)\b[^.!?\n\d]*(?:\bis|\bare|\bbe|:)\s*[$€£*\\({]*$",
    re.IGNORECASE,
)
_MINUS = re.compile(r"(?:(?<![\w)\]%])[-−–]|\b(?:minus|negative)\s+)[$€£]?$", re.IGNORECASE)
_MAX_AMBIGUOUS_WORD = 10
"""Up to this value, a number in words is often no quantity ("one of them", "in two steps")."""

_QUOTATION = re.compile(r"```.*?```|\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»", re.DOTALL)
_QUESTION_MARKS = ("?", "？", "؟")
_SENTENCE_BREAK = re.compile(r"(?<=[.!?؟])[*_)]*\s+|(?<=[。！？])|\n")


def reveals_answer(answer: str, final_number: Decimal, question: str) -> bool:
    """Whether `answer` states the number `final_number`, in digits or in words.

    1,234 and $1234 and 1234.0 and "one thousand two hundred and thirty-four" are the same number
    (`numbers` says how digits are read).
    Numbers of lists, steps and ordinals ("2.", "step 2") don't count. A small number in words
    (up to ten) counts where it is used as a quantity (after "is", "has", "leaves", "=", a colon and
    the like). A number of the question counts only where it is stated as the result:
    after "=", "####" or "equals", or after "the answer (result, total, solution) is". A tutor may
    repeat the question.
    """
    in_question = any(_equals_final(value, final_number) for value, _, _ in _iter_numbers(question))
    text = _strip_annotations(answer)
    for value, start, in_words in _iter_numbers(text):
        if not _equals_final(value, final_number):
            continue
        before = _MINUS.sub("", text[max(0, start - 80) : start])
        if in_question:
            if _RESULT_CONTEXT.search(before):
                return True
        elif not in_words or abs(value) > _MAX_AMBIGUOUS_WORD or _QUANTITY_CONTEXT.search(before):
            return True
    return False


def _equals_final(value: Decimal, final_number: Decimal) -> bool:
    """Whether a number equals the final one; a minus sign counts only if that is negative."""
    return value == final_number or (final_number > 0 and abs(value) == final_number)


def asks_question(answer: str, question: str) -> bool:
    """Whether `answer` has a sentence with a question mark that is the tutor's own.

    Text in double quotation marks or code blocks does not count, nor does a sentence repeated from
    the question. Emphasis characters after the question mark are ignored.
    """
    question_sentences = {
        _normalize_words(sentence) for sentence in _SENTENCE_BREAK.split(question)
    }
    for sentence in _SENTENCE_BREAK.split(_QUOTATION.sub("", answer)):
        sentence_text = sentence.rstrip(" \t*_)]")
        words = _normalize_words(sentence_text)
        if (
            sentence_text.endswith(_QUESTION_MARKS)
            and re.search(r"[^\W\d]", words)
            and words not in question_sentences
        ):
            return True
    return False


def _strip_annotations(text: str) -> str:
    """Removes GSM8K's calculator annotations: `<<6*7=42>>42` says 42 once."""
    return re.sub(r"<<[^<>\n]*>>", "", normalize_latex(text))


def _iter_numbers(text: str) -> Iterator[tuple[Decimal, int, bool]]:
    """Yields every number in a text: its value, its start offset, and whether it is in words."""
    label_spans = [found.span() for found in _LABEL_NUMBER.finditer(text)]
    for found in _DIGITS.finditer(text):
        start = found.start()
        if not any(first <= start < end for first, end in label_spans):
            yield _apply_sign(Decimal(normalize_number(found.group())), text, start), start, False
    for found in _NUMBER_WORDS.finditer(text):
        value = Decimal(_parse_number_words(found.group().lower()))
        yield _apply_sign(value, text, found.start()), found.start(), True


def _apply_sign(value: Decimal, text: str, start: int) -> Decimal:
    return -value if _MINUS.search(text[max(0, start - 12) : start]) else value


def _parse_number_words(words: str) -> int:
    """Parses a number in words: "two hundred and five" is 205."""
    total = group = 0
    for word in re.split(r"[-\s]+", words):
        if word == "hundred":
            group = max(1, group) * 100
        elif word in _SCALES:
            total, group = total + max(1, group) * _SCALES[word], 0
        elif word != "and":
            group += _UNITS.get(word, 0) + _TENS.get(word, 0)
    return total + group


def _normalize_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
