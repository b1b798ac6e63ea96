"""Imperfect answers, made of right ones: the same ones everywhere, for any list of texts."""

import re
from collections.abc import Sequence
from random import Random


def imperfect(answers: Sequence[str]) -> list[str]:
    """An answer for each of `answers`, spoilt in one of eight ways, in turn."""
    return [
        _WAYS[at % len(_WAYS)](answer, answers[(at + 1) % len(answers)], Random(at))
        for at, answer in enumerate(answers)
    ]


def _other(answer: str, other: str, random: Random) -> str:
    return other


def _cut(answer: str, other: str, random: Random) -> str:
    return answer[: random.randrange(len(answer) + 1)]


def _shuffled(answer: str, other: str, random: Random) -> str:
    sentences = re.split(r"(?<=[.\n])", answer)
    random.shuffle(sentences)
    return "".join(sentences)


def _other_numbers(answer: str, other: str, random: Random) -> str:
    return re.sub(r"\d", lambda found: random.choice((found[0], str(random.randrange(10)))), answer)


def _blanks(answer: str, other: str, random: Random) -> str:
    return re.sub(" ", lambda found: random.choice((" ", "  ", "\n", "\n\n")), answer) + " \n"


def _nothing(answer: str, other: str, random: Random) -> str:
    return random.choice(("", " ", "\n\n", "?", "答案是 5。"))


def _words(answer: str, other: str, random: Random) -> str:
    words = answer.split(" ")
    return " ".join(random.choice((w, w, w, w.upper(), f"{w} {w}", "")) for w in words)


def _without_mark(answer: str, other: str, random: Random) -> str:
    return answer.replace("#### ", "So the answer is $") + "."


_WAYS = (_other, _cut, _shuffled, _other_numbers, _blanks, _nothing, _words, _without_mark)
