"""Answer keys of quizzes: a letter, a place from 0 or from 1, or the option's own text.

A key such as `2` can be read by several conventions, so a source as a whole decides: the one by
which most of its keys can be read. Where two do equally well and give different answers, the
source is refused until its `answer_key` says which is meant.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zephyr.data.readers.parsing import UnreadableRowError
from zephyr.recipe.data import AnswerKey

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
Readings = Mapping[AnswerKey, int]
"""The 0-based index of the right option, by each convention that can read a key."""
Conventions = tuple[tuple[AnswerKey, ...], ...]
"""Groups of conventions: a key is read by the first group that can, whose conventions agree."""

NO_SUCH_OPTION = "the answer is none of the options"
_BARE_KEY = re.compile(
    r"[\s(\[{*\"'`]*(?:(?:option|choice|answer)[\s_:-]*)?[(\[]?"
    r"(?:([A-Za-z])|([0-9]{1,9})(?:\.0+)?)[\s)\]}*\"'`.:,;]*",
    re.IGNORECASE,
)
_ONE_OF_SEVERAL = r"[(\[]?(?:[A-Za-z]|[0-9]{1,2})[)\].]?"
_SEVERAL_KEYS = re.compile(
    rf"{_ONE_OF_SEVERAL}(?:\s*(?:[,;/&+|]|\band\b|\bor\b|\s)\s*{_ONE_OF_SEVERAL})+|[A-Z]{{2,5}}"
)
_LETTER_LABEL = re.compile(r"\s*[(\[]?([A-Za-z])(?:\s?[)\].:]\s*(?=\S)|\s+[-–—]\s+(?=\S\S))")
_NUMBER_LABEL = re.compile(r"\s*[(\[]?([0-9]{1,2})[)\].]\s+(?=\S)")
_NUMBERS = tuple(map(str, range(len(LETTERS) + 1)))


class LabelledOptions(NamedTuple):
    """Options without the labels that they carried in front (`A) `, `2. `), and these labels."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()


def split_labels(options: Sequence[str]) -> LabelledOptions:
    """Takes off the labels in front of options where each option begins with its own.

    Raises:
        UnreadableRowError: they begin with each other's letters: which of them a key means is open.
    """
    for pattern, labels in (
        (_LETTER_LABEL, LETTERS),
        (_NUMBER_LABEL, _NUMBERS[1:]),
        (_NUMBER_LABEL, _NUMBERS),
    ):
        matches = [match for option in options if (match := pattern.match(option))]
        found, own = tuple(match[1].upper() for match in matches), labels[: len(options)]
        if found == own:
            return LabelledOptions(tuple(m.string[m.end() :] for m in matches), own)
        if pattern is _LETTER_LABEL and sorted(found) == sorted(own):
            raise UnreadableRowError("the letters before the options are in another order")
    return LabelledOptions(tuple(options))


def read_key(key: Any, options: LabelledOptions, column_names: Sequence[str] = ()) -> Readings:
    """Reads the key of one question by every convention; `column_names` are those of the options.

    A number that the options carry, or the name of an option's column, is as good as its letter.

    Raises:
        UnreadableRowError: the key is no letter, number or text, or names several options.
    """
    if isinstance(key, list) and len(key) == 1:
        [key] = key
    if isinstance(key, list):
        raise UnreadableRowError("the answer names more than one option")
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise UnreadableRowError("the answer is neither a letter nor a number")
    text = _fold(str(key)) if isinstance(key, str) or abs(key) < 10**9 else ""
    if not text:
        raise UnreadableRowError("the answer is empty" if key == "" else NO_SUCH_OPTION)
    names = [_fold(name) for name in column_names]
    count = len(options.texts)
    if text in names:
        return {"letter": names.index(text)} if names.index(text) < count else {}
    readings: dict[AnswerKey, int] = {}
    match = _BARE_KEY.fullmatch(text)
    if match is not None and match[1]:
        readings["letter"] = LETTERS.index(match[1].upper())
    elif match is not None:
        if options.labels and options.labels[0] != LETTERS[0]:
            number = str(int(match[2]))
            return {"letter": options.labels.index(number)} if number in options.labels else {}
        readings |= {"0-based": int(match[2]), "1-based": int(match[2]) - 1}
    readings = {name: index for name, index in readings.items() if 0 <= index < count}
    if (index := _find_text(text, options)) is not None:
        readings["text"] = index
    if not readings and match is None and _SEVERAL_KEYS.fullmatch(str(key).strip()):
        raise UnreadableRowError("the answer names more than one option")
    return readings


def _find_text(text: str, options: LabelledOptions) -> int | None:
    """The option with this text, which may carry a label in front (`B) Mercury`)."""
    texts = [_fold(option) for option in options.texts]
    indices = [at for at, option in enumerate(texts) if option == text]
    for label in () if indices else (_LETTER_LABEL.match(text), _NUMBER_LABEL.match(text)):
        labels = options.labels or (LETTERS if label and label[1].isalpha() else _NUMBERS[1:])
        if label is not None and label[1].upper() in labels[: len(texts)]:
            at = labels.index(label[1].upper())
            indices += [at] if texts[at] == text[label.end() :] else []
    return indices[0] if len(indices) == 1 else None


def _fold(text: str) -> str:
    """The text without differences of case and of blanks."""
    return " ".join(text.split()).casefold()


def pick_reading(readings: Readings, conventions: Conventions) -> int:
    """The index of the right option by the first conventions that can read the key.

    Raises:
        UnreadableRowError: none can, or they differ.
    """
    if not readings:
        raise UnreadableRowError(NO_SUCH_OPTION)
    for group in conventions:
        if indices := _indices(readings, group):
            if len(indices) > 1:
                raise UnreadableRowError(AMBIGUOUS)
            return indices.pop()
    raise UnreadableRowError(AMBIGUOUS if len(set(readings.values())) > 1 else NO_SUCH_OPTION)


AMBIGUOUS = "the answer can be read as two of the options"


class AmbiguousKeysError(Exception):
    """The keys of a source can be read in two ways equally well; `numbers` are rows, from 0."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self.numbers = numbers


def choose_conventions(source_readings: Sequence[Readings]) -> Conventions:
    """Chooses the conventions of a source: those by which most keys can be read, then others.

    Keys that these can't read (a text among letters, say) are read by the next ones, as long as
    there is only one way. Places count from 0 or from 1, and never from both.

    Raises:
        AmbiguousKeysError: the best ones are several, and give different answers.
    """
    conventions: list[tuple[AnswerKey, ...]] = []
    remaining = dict(enumerate(source_readings))
    while coverage := Counter(name for readings in remaining.values() for name in readings):
        best = tuple(name for name in coverage if coverage[name] == max(coverage.values()))
        split = [n for n, readings in remaining.items() if len(_indices(readings, best)) > 1]
        if not split and set(best) >= _PLACES:
            split = [n for n, readings in remaining.items() if _PLACES & readings.keys()]
        if split and not conventions:
            raise AmbiguousKeysError(split)
        known = () if split else (*best, *(_PLACES if _PLACES & set(best) else ()))
        conventions += [] if split else [best]
        remaining = {
            n: {name: index for name, index in readings.items() if name not in known}
            for n, readings in remaining.items()
            if n not in split and not _indices(readings, () if split else best)
        }
    return tuple(conventions)


_PLACES: frozenset[AnswerKey] = frozenset(("0-based", "1-based"))


def _indices(readings: Readings, conventions: Sequence[AnswerKey]) -> set[int]:
    return {readings[name] for name in conventions if name in readings}
