"""Corrupted answers, derived from right ones: the same everywhere, for any list of texts."""

import re
from collections.abc import Sequence
from random import Random


def corrupt_answers(answers: Sequence[str]) -> list[str]:
    """Each of `answers` corrupted in one of eight ways, in turn."""
    return [
        _CORRUPTIONS[at % len(_CORRUPTIONS)](answer, answers[(at + 1) % len(answers)], Random(at))
        for at, answer in enumerate(answers)
    ]


def _replace_answer(answer: str, other: str, random: Random) -> str:
    return other


def _truncate(answer: str, other: str, random: Random) -> str:
    return answer[: random.randrange(len(answer) + 1)]


def _shuffle_sentences(answer: str, other: str, random: Random) -> str:
    sentences = re.split(r"(?<=[.\n])", answer)
    random.shuffle(sentences)
    return "".join(sentences)


def _change_digits(answer: str, other: str, random: Random) -> str:
    return re.sub(r"\d", lambda found: random.choice((found[0], str(random.randrange(10)))), answer)


def _change_whitespace(answer: str, other: str, random: Random) -> str:
    return re.sub(" ", lambda found: random.choice((" ", "  ", "\n", "\n\n")), answer) + " \n"


def _replace_by_junk(answer: str, other: str, random: Random) -> str:
    return random.choice(("", " ", "\n\n", "?", "答案是 5。"))


def _perturb_words(answer: str, other: str, random: Random) -> str:
    words = answer.split(" ")
    return " ".join(random.choice((w, w, w, w.upper(), f"{w} {w}", "")) for w in words)


def _remove_answer_mark(answer: str, other: str, random: Random) -> str:
    return answer.replace("#### ", "So the answer is $") + "."


_CORRUPTIONS = (
    _replace_answer,
    _truncate,
    _shuffle_sentences,
    _change_digits,
    _change_whitespace,
    _replace_by_junk,
    _perturb_words,
    _remove_answer_mark,
)
