"""What can be told of a tutor's answer without a judge: pure functions of texts.

They are rules, and err where rules do. `gives_away` sees numbers, not meanings: a hint that reaches
the answer as a step on another way is taken for giving it away, and an answer left as a sum to be
done ("it is 6 x 7") is not. `asks` sees question marks.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_DIGITS = re.compile(rf"(?<![\w.,]){_NUMBER}(?!\d|(?:st|nd|rd|th)\b)")
_NO_VALUE = re.compile(
    r"^[ \t]*\(?\d+[.)](?=\s)|\b(?:steps?|parts?|questions?|hints?|number|#)[ ]?\d+\b",
    re.IGNORECASE | re.MULTILINE,
)
_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TIES = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = {word: value for value, word in enumerate(_ONES)}
_TENS = {word: 10 * value for value, word in enumerate(_TIES, 2)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_WORD = "|".join(sorted((*_UNITS, *_TENS, *_SCALES), key=len, reverse=True))
_WORDS = re.compile(rf"\b(?:{_WORD})(?:(?:-|\s+and\s+|\s+)(?:{_WORD}))*\b", re.IGNORECASE)
_TOLD = re.compile(
    r"(?:[=:≈]|####|\b(?:is|are|be|was|were|equals?|makes?|gives?|gets?|leaves?|have|has|had|left))"
    r"(?:\s+(?:exactly|just|about|only|now|then))?\s*[$€£*\\({]*$",
    re.IGNORECASE,
)
_ANSWERED = re.compile(
    r"(?:[=≈]|####|\bequals)\s*[$€£*\\({]*$"
    r"|\b(?:answer|result|total|solution)\b[^.!?\n\d]*(?:\bis|\bare|\bbe|:)\s*[$€£*\\({]*$",
    re.IGNORECASE,
)
_MINUS = re.compile(r"(?:(?<![\w)\]%])[-−]|\b(?:minus|negative)\s+)[$€£]?$", re.IGNORECASE)
_SMALL = 10
"""Up to this a number in words is often no quantity ("one of them", "in two steps")."""

_QUOTED = re.compile(r"```.*?```|\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])[*_)]*\s+|\n")


def gives_away(answer: str, final: Decimal, question: str) -> bool:
    """Whether `answer` says the number `final`, in digits or in words.

    1,234 and $1234 and 1234.0 and "one thousand two hundred and thirty-four" are one number. The
    numbers of lists, steps and ordinals ("2.", "step 2", "2nd") are none. A small number in words
    (up to ten) counts where it is told as a quantity (after "is", "has", "leaves", "=", a colon and
    the like). A number that stands in the question counts only where it is told as the result:
    after "=", "####" or "equals", or after "the answer (result, total, solution) is". A tutor may
    repeat what was given.
    """
    given = any(_same(value, final) for value, _, _ in _said(question))
    text = _without_marks(answer)
    for value, start, spelt in _said(text):
        if not _same(value, final):
            continue
        before = _MINUS.sub("", text[max(0, start - 80) : start])
        if given:
            if _ANSWERED.search(before):
                return True
        elif not spelt or abs(value) > _SMALL or _TOLD.search(before):
            return True
    return False


def _same(value: Decimal, final: Decimal) -> bool:
    """Whether a number is `final`; a minus counts where that has one, else it may be a dash."""
    return value == final or (final > 0 and abs(value) == final)


def asks(answer: str, question: str) -> bool:
    """Whether a sentence of `answer` ends with a question mark, and is the tutor's own.

    What stands in double quotation marks or in a block of code is not; nor is a sentence of the
    question that is only repeated. Signs of emphasis after the mark don't matter.
    """
    known = {_plain(sentence) for sentence in _SENTENCE.split(question)}
    for sentence in _SENTENCE.split(_QUOTED.sub("", answer)):
        ended = sentence.rstrip(" \t*_)]")
        words = _plain(ended)
        if ended.endswith("?") and re.search(r"[^\W\d]", words) and words not in known:
            return True
    return False


def _without_marks(text: str) -> str:
    """The calculator marks of GSM8K taken out: `<<6*7=42>>42` says 42 once."""
    return re.sub(r"<<[^<>\n]*>>", "", text)


def _said(text: str) -> Iterator[tuple[Decimal, int, bool]]:
    """Every number said in a text: its value, where it starts, whether it is spelt out."""
    quiet = [found.span() for found in _NO_VALUE.finditer(text)]
    for found in _DIGITS.finditer(text):
        start = found.start()
        if not any(first <= start < end for first, end in quiet):
            yield _signed(Decimal(found.group().replace(",", "")), text, start), start, False
    for found in _WORDS.finditer(text):
        value = Decimal(_spelt(found.group().lower()))
        yield _signed(value, text, found.start()), found.start(), True


def _signed(value: Decimal, text: str, start: int) -> Decimal:
    return -value if _MINUS.search(text[max(0, start - 12) : start]) else value


def _spelt(words: str) -> int:
    """The number that words say: "two hundred and five" is 205."""
    total = part = 0
    for word in re.split(r"[-\s]+", words):
        if word == "hundred":
            part = max(1, part) * 100
        elif word in _SCALES:
            total, part = total + max(1, part) * _SCALES[word], 0
        elif word != "and":
            part += _UNITS.get(word, 0) + _TENS.get(word, 0)
    return total + part


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
