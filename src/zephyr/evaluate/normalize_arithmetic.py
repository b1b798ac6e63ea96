"""Normalizes arithmetic in a text: words for operators ("plus", "times") become symbols.

Every character keeps its offset in the original text.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zephyr.evaluate.numbers import LATEX_SEPARATOR

_WORD_REPLACEMENTS = (
    (LATEX_SEPARATOR, ","),
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
_CALCULATOR_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")


class LineWithOffsets(NamedTuple):
    """A line, or part of one, with the offset of each character in the original text."""

    text: str
    offsets: Sequence[int]

    def replace_pattern(self, pattern: re.Pattern[str], replacement: str) -> "LineWithOffsets":
        """Like `pattern.sub`, but keeps offsets: a replacement gets that of the replaced text."""
        parts: list[str] = []
        offsets: list[int] = []
        position = 0
        for match in pattern.finditer(self.text):
            parts += (self.text[position : match.start()], replacement)
            offsets += self.offsets[position : match.start()]
            offsets += [self.offsets[match.start()]] * len(replacement)
            position = match.end()
        if not parts:
            return self
        return LineWithOffsets(
            "".join((*parts, self.text[position:])), [*offsets, *self.offsets[position:]]
        )


def normalize_lines(text: str) -> Iterator[LineWithOffsets]:
    """Yields the normalized lines of a text: no bullets, words for operators replaced."""
    start = 0
    for line in text.splitlines(keepends=True):
        full_line = LineWithOffsets(line.splitlines()[0], range(start, start + len(line)))
        annotations = [
            LineWithOffsets(mark.group(1), full_line.offsets[mark.start(1) : mark.end(1)])
            for mark in _CALCULATOR_ANNOTATION.finditer(full_line.text)
        ]
        for part in (full_line.replace_pattern(_CALCULATOR_ANNOTATION, ""), *annotations):
            result = part.replace_pattern(_BULLET, "")
            for pattern, replacement in _WORD_REPLACEMENTS:
                result = result.replace_pattern(pattern, replacement)
            yield result
        start += len(line)
