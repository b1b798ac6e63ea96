"""Marks wrong equations in an answer: spans in UTF-16 code units, as browsers count."""

from typing import TypedDict

from zephyr.evaluate.equations import find_wrong_equations


class EquationMark(TypedDict):
    """A span of a text; `start` and `end` count UTF-16 code units."""

    text: str
    start: int
    end: int


def mark_equations(text: str) -> list[EquationMark]:
    """Finds all wrong equations of a text (see `evaluate.equations`), in order."""
    wrong_equations: list[EquationMark] = []
    for start, end in find_wrong_equations(text):
        start_units = _utf16_length(text[:start])
        equation = text[start:end]
        wrong_equations.append(
            {"text": equation, "start": start_units, "end": start_units + _utf16_length(equation)}
        )
    return wrong_equations


def _utf16_length(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)
