"""Questions with four short options: meanings, units, fields and small sums."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from zephyr.data.embedded import arithmetic, glossary
from zephyr.data.embedded.glossary import FIELDS, FORMULAS, MEASURED, TERMS


class Quiz(NamedTuple):
    """A question, the right option, three wrong ones, and what it is about."""

    question: str
    right: str
    wrong: tuple[str, ...]
    subject: str

    def options(self, random: Random) -> tuple[list[str], int]:
        """All options in a random order, and where the right one stands."""
        shuffled = random.sample([self.right, *self.wrong], 1 + len(self.wrong))
        return shuffled, shuffled.index(self.right)


def meaning(random: Random) -> Quiz:
    term = random.choice(TERMS)
    asked = random.choice(
        (
            "Which word means {meaning}?",
            "What do we call {meaning}?",
            "What is {meaning} called?",
            "Name this: {meaning}.",
            "In {field}, what is the word for {meaning}?",
            "Which term stands for {meaning}?",
            "Find the word: {meaning}.",
        )
    ).format(meaning=term.meaning, field=term.field)
    return Quiz(asked, term.name, _names(glossary.others(random, term, 3)), term.field)


def unit(random: Random) -> Quiz:
    term = random.choice(MEASURED)
    asked = random.choice(
        (
            "Which unit goes with {name}?",
            "Which unit measures {name}?",
            "In which unit do we measure {name}?",
            "Which of these is a unit of {name}?",
            "{name} is measured in which unit?",
            "To give {name} we need a unit. Which one?",
        )
    ).format(name=term.name)
    wrong = random.sample([t.unit for t in MEASURED if t != term], 3)
    return Quiz(glossary.capital(asked), term.unit, tuple(wrong), "physics")


def measured_by(random: Random) -> Quiz:
    term = random.choice(MEASURED)
    asked = random.choice(
        (
            "What is measured in {unit}?",
            "Which quantity has the unit {one}?",
            "What do {unit} measure?",
            "The {one} is a unit of what?",
            "Which quantity is given in {unit}?",
        )
    ).format(unit=glossary.plural(term.unit), one=term.unit)
    wrong = random.sample([t for t in MEASURED if t != term], 3)
    return Quiz(asked, term.name, _names(wrong), "physics")


def field(random: Random) -> Quiz:
    term = random.choice(TERMS)
    asked = random.choice(
        (
            "To which field does {said} belong?",
            "In which field do we speak of {said}?",
            "Which field studies {said}?",
            "Who would speak of {said}: a book on which field?",
            "Name the field of {said}.",
        )
    ).format(said=term.said)
    wrong = [*(f for f in FIELDS if f != term.field), "history"]
    return Quiz(asked, term.field, tuple(wrong), term.field)


def formula(random: Random) -> Quiz:
    made = random.choice(FORMULAS)
    asked = random.choice(
        (
            "What is {left} times {right}?",
            "Which quantity is {left} times {right}?",
            "What do we get from {left} times {right}?",
        )
    ).format(left=made.left, right=made.right)
    results = sorted({f.result for f in FORMULAS if f.result != made.result})
    return Quiz(asked, made.result, tuple(random.sample(results, 3)), "physics")


def small_sum(random: Random) -> Quiz:
    sum_ = arithmetic.draw(random, "+-x", most=9)
    asked = random.choice(
        (
            "Which number is {sum}?",
            "What does {sum} make?",
            "Find the result of {sum}.",
            "Which of these is equal to {sum}?",
            "How many are {sum}?",
        )
    ).format(sum=sum_.asked)
    near = [n for n in range(sum_.result - 3, sum_.result + 4) if n >= 0 and n != sum_.result]
    wrong = [str(n) for n in random.sample(near, 3)]
    return Quiz(asked, str(sum_.result), tuple(wrong), "elementary_mathematics")


Maker = Callable[[Random], Quiz]
EASY: tuple[Maker, ...] = (unit, measured_by, field)
HARD: tuple[Maker, ...] = (meaning, formula)
ALL: tuple[Maker, ...] = (meaning, meaning, unit, measured_by, field, formula, small_sum, small_sum)


def of(makers: tuple[Maker, ...]) -> Maker:
    """A maker that takes one of several each time."""
    return lambda random: random.choice(makers)(random)


def _names(terms: list[glossary.Term]) -> tuple[str, ...]:
    return tuple(term.name for term in terms)
