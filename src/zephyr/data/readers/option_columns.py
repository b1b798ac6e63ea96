"""Columns of quizzes as teachers name them: a question, its options in columns or a list, a key."""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

_QUESTION_NAMES = ("question", "questiontext", "stem", "prompt", "query")
_KEY_NAMES = (
    *("answer", "correct", "correctanswer", "rightanswer", "key", "answerkey", "solution"),
    *("correctoption", "correctchoice", "correctletter", "answerindex", "correctindex"),
    *("correctanswerindex", "answerletter", "label"),
)
_LIST_NAMES = ("choices", "options")
_SUBJECT_NAMES = ("subject", "topic", "category")
_OPTION_PREFIXES = "option|opt|choice|answer|ans|response|alternative|alt|"
_OPTION_NAME = re.compile(rf"({_OPTION_PREFIXES})(?:([a-z])|([0-9]{{1,2}}))")


class QuizColumns(NamedTuple):
    """The columns of a quiz by their names in the file; one of `options` where it holds a list."""

    question: str
    options: tuple[str, ...]
    key: str
    subject: str | None


def find_quiz_columns(columns: Collection[str]) -> QuizColumns | None:
    """Finds the columns of a quiz by their usual names, whatever their case and signs.

    None where one is missing, or where several columns could be the question, options or key.
    """
    by_name: dict[str, list[str]] = {}
    for column in sorted(columns):
        by_name.setdefault(re.sub(r"[\W_]+", "", column).casefold(), []).append(column)
    if any(len(same) > 1 for name, same in by_name.items() if name):
        return None
    names = {name: same[0] for name, same in by_name.items()}
    options = _find_options(names)
    question, key = _find_one(names, _QUESTION_NAMES), _find_one(names, _KEY_NAMES)
    if not options or question is None or key is None:
        return None
    return QuizColumns(question, options, key, _find_one(names, _SUBJECT_NAMES))


def _find_one(names: dict[str, str], wanted: Iterable[str]) -> str | None:
    found = [names[name] for name in wanted if name in names]
    return found[0] if len(found) == 1 else None


def _find_options(names: dict[str, str]) -> tuple[str, ...]:
    """The columns of the options in order, or the one column of their list; empty if unclear."""
    families: dict[tuple[str, bool], dict[int, str]] = {}
    for name, column in names.items():
        if match := _OPTION_NAME.fullmatch(name):
            place = ord(match[2]) - ord("a") if match[2] else int(match[3])
            families.setdefault((match[1], bool(match[2])), {})[place] = column
    found: list[tuple[str, ...]] = [(names[name],) for name in _LIST_NAMES if name in names]
    for (prefix, is_letter), by_place in families.items():
        first = 0 if is_letter or 0 in by_place else 1
        run: list[str] = []
        while first + len(run) in by_place:
            run.append(by_place[first + len(run)])
        if len(run) >= 2 and (not prefix or len(run) == len(by_place)):
            found.append(tuple(run))
    return found[0] if len(found) == 1 else ()
