"""Equations of a text that do not hold, with their places as a browser counts them."""

from typing import TypedDict

from zephyr.evaluate.sums import wrong_places


class Mark(TypedDict):
    """A piece of a text; `start` and `end` count UTF-16 code units."""

    text: str
    start: int
    end: int


def marks(text: str) -> list[Mark]:
    """Every equation of a text that is wrong (see `evaluate.sums`), in order."""
    found: list[Mark] = []
    for start, end in wrong_places(text):
        begins = _units(text[:start])
        said = text[start:end]
        found.append({"text": said, "start": begins, "end": begins + _units(said)})
    return found


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)
