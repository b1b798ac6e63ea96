"""Lines of a text as its arithmetic is read: words that mean a sign are replaced by it.

Every character remembers the place in the text from which it comes.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_SPOKEN = (
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\\div\b"), "/"),
    (re.compile(r"\\(?=[$%])"), ""),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"(?<=[\d)])\s*\*\*\s*(?=[\d(])"), "^"),
    (re.compile(r"\*\*"), ""),
    (re.compile(r"(?<=[\d%)])\s+plus\s+(?=[$€£(]?[\d.])"), " + "),
    (re.compile(r"(?<=[\d%)])\s+minus\s+(?=[$€£(]?[\d.])"), " - "),
    (re.compile(r"(?<=[\d%)])\s+times\s+(?=[$€£(]?[\d.])"), " * "),
    (re.compile(r"(?<=[\d%)])\s+divided by\s+(?=[$€£(]?[\d.])"), " / "),
    (re.compile(r"(?<=[\d%)])\s+equals\s+(?=[$€£(-]?[\d.])"), " = "),
    (re.compile(r"(?<=%)\s+of\s+(?=[$€£]?[\d.])"), " * "),
)
_BULLET = re.compile(r"^\s*(?:[-*•]\s+|\(?\d+[.)]\s+)")
_MARK = re.compile(r"<<([^<>\n]*)>>")


class Line(NamedTuple):
    """A line, or a part of one, and the place in the text of each of its characters."""

    text: str
    places: Sequence[int]

    def replaced(self, pattern: re.Pattern[str], sign: str) -> "Line":
        """What `pattern.sub` gives; a sign stands where what it replaces began."""
        parts: list[str] = []
        places: list[int] = []
        at = 0
        for match in pattern.finditer(self.text):
            parts += (self.text[at : match.start()], sign)
            places += self.places[at : match.start()]
            places += [self.places[match.start()]] * len(sign)
            at = match.end()
        if not parts:
            return self
        return Line("".join((*parts, self.text[at:])), [*places, *self.places[at:]])


def lines(text: str) -> Iterator[Line]:
    """The lines of a text as they are read: without bullets, their words for signs replaced."""
    start = 0
    for line in text.splitlines(keepends=True):
        whole = Line(line.splitlines()[0], range(start, start + len(line)))
        marks = [
            Line(mark.group(1), whole.places[mark.start(1) : mark.end(1)])
            for mark in _MARK.finditer(whole.text)
        ]
        for part in (whole.replaced(_MARK, ""), *marks):
            plain = part.replaced(_BULLET, "")
            for pattern, sign in _SPOKEN:
                plain = plain.replaced(pattern, sign)
            yield plain
        start += len(line)
