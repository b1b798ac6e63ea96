"""Multiple-choice questions with four short options: definitions, units, fields, arithmetic."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from zephyr.data.embedded import arithmetic, glossary
from zephyr.data.embedded.glossary import FIELDS, FORMULAS, TERMS, TERMS_WITH_UNITS


class QuizQuestion(NamedTuple):
    """A multiple-choice question, the right option, three wrong ones, and its subject."""

    question: str
    right: str
    wrong: tuple[str, ...]
    subject: str

    def shuffled_options(self, random: Random) -> tuple[list[str], int]:
        """Shuffles all options; gives them and the index of the right one."""
        shuffled = random.sample([self.right, *self.wrong], 1 + len(self.wrong))
        return shuffled, shuffled.index(self.right)


def definition_quiz(random: Random) -> QuizQuestion:
    """A question for the term of a definition."""
    term = random.choice(TERMS)
    question = random.choice(
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
    return QuizQuestion(
        question, term.name, _term_names(glossary.other_terms(random, term, 3)), term.field
    )


def unit_quiz(random: Random) -> QuizQuestion:
    """A question for the unit of a quantity."""
    term = random.choice(TERMS_WITH_UNITS)
    question = random.choice(
        (
            "Which unit goes with {name}?",
            "Which unit measures {name}?",
            "In which unit do we measure {name}?",
            "Which of these is a unit of {name}?",
            "{name} is measured in which unit?",
            "To give {name} we need a unit. Which one?",
        )
    ).format(name=term.name)
    wrong = random.sample([t.unit for t in TERMS_WITH_UNITS if t != term], 3)
    return QuizQuestion(glossary.capitalize_first(question), term.unit, tuple(wrong), "physics")


def quantity_quiz(random: Random) -> QuizQuestion:
    """A question for the quantity of a unit."""
    term = random.choice(TERMS_WITH_UNITS)
    question = random.choice(
        (
            "What is measured in {unit}?",
            "Which quantity has the unit {one}?",
            "What do {unit} measure?",
            "The {one} is a unit of what?",
            "Which quantity is given in {unit}?",
        )
    ).format(unit=glossary.pluralize(term.unit), one=term.unit)
    wrong = random.sample([t for t in TERMS_WITH_UNITS if t != term], 3)
    return QuizQuestion(question, term.name, _term_names(wrong), "physics")


def field_quiz(random: Random) -> QuizQuestion:
    """A question for the field that a term belongs to."""
    term = random.choice(TERMS)
    question = random.choice(
        (
            "To which field does {said} belong?",
            "In which field do we speak of {said}?",
            "Which field studies {said}?",
            "Who would speak of {said}: a book on which field?",
            "Name the field of {said}.",
        )
    ).format(said=term.phrase)
    wrong = [*(f for f in FIELDS if f != term.field), "history"]
    return QuizQuestion(question, term.field, tuple(wrong), term.field)


def formula_quiz(random: Random) -> QuizQuestion:
    """A question for the formula of a quantity."""
    chosen_formula = random.choice(FORMULAS)
    question = random.choice(
        (
            "What is {left} times {right}?",
            "Which quantity is {left} times {right}?",
            "What do we get from {left} times {right}?",
        )
    ).format(left=chosen_formula.left, right=chosen_formula.right)
    results = sorted({f.result for f in FORMULAS if f.result != chosen_formula.result})
    return QuizQuestion(
        question, chosen_formula.result, tuple(random.sample(results, 3)), "physics"
    )


def arithmetic_quiz(random: Random) -> QuizQuestion:
    """A question for the result of an equation."""
    equation = arithmetic.sample_equation(random, "+-x", max_number=9)
    question = random.choice(
        (
            "Which number is {sum}?",
            "What does {sum} make?",
            "Find the result of {sum}.",
            "Which of these is equal to {sum}?",
            "How many are {sum}?",
        )
    ).format(sum=equation.expression)
    close_results = [
        n
        for n in range(equation.result - 3, equation.result + 4)
        if n >= 0 and n != equation.result
    ]
    wrong = [str(n) for n in random.sample(close_results, 3)]
    return QuizQuestion(question, str(equation.result), tuple(wrong), "elementary_mathematics")


QuizMaker = Callable[[Random], QuizQuestion]
EASY_MAKERS: tuple[QuizMaker, ...] = (unit_quiz, quantity_quiz, field_quiz)
HARD_MAKERS: tuple[QuizMaker, ...] = (definition_quiz, formula_quiz)
ALL_MAKERS: tuple[QuizMaker, ...] = (
    definition_quiz,
    definition_quiz,
    unit_quiz,
    quantity_quiz,
    field_quiz,
    formula_quiz,
    arithmetic_quiz,
    arithmetic_quiz,
)


def random_maker(makers: tuple[QuizMaker, ...]) -> QuizMaker:
    """A quiz maker that picks one of several makers at random each time."""
    return lambda random: random.choice(makers)(random)


def _term_names(terms: list[glossary.Term]) -> tuple[str, ...]:
    return tuple(term.name for term in terms)
