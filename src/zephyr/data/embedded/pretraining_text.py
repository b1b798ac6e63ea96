"""Synthetic pretraining corpus of the embedded base model, and its WikiText articles.

Plain prose: equations and problems with their working, articles, quizzes, activities and programs.
It has neither the conversations nor the `####` of the fine-tuning sources: these come later.
"""

from random import Random
from typing import Any

from zephyr.data.embedded import (
    arithmetic,
    glossary,
    problems,
    programs,
    quizzes,
    sft_rows,
    stories,
)
from zephyr.data.embedded.glossary import FORMULAS, TERMS, TERMS_WITH_UNITS, capitalize_first
from zephyr.data.embedded.splits import sample_on_side

Row = dict[str, Any]


def primer(random: Random, side: str) -> Row:
    """A pretraining passage; most are about numbers, which take the longest to learn."""
    (make,) = random.choices(list(_PASSAGE_WEIGHTS), weights=list(_PASSAGE_WEIGHTS.values()))
    return {"text": make(random, side)}


def _equations_passage(random: Random, side: str) -> str:
    equations = [arithmetic.sample_equation(random) for _ in range(random.randint(2, 4))]
    return " ".join(f"{arithmetic.format_working(sum_)}." for sum_ in equations)


def _word_problem_passage(random: Random, side: str) -> str:
    """A word problem and its worked solution as one story."""
    word_problem = sft_rows.sample_problem_on_side(random, side)
    return " ".join(
        [
            word_problem.question,
            *problems.format_steps(word_problem),
            f"The answer is {word_problem.answer}.",
        ]
    )


def _quantity_passage(random: Random, side: str) -> str:
    quantity_problem = problems.sample_quantity(random)
    return f"{quantity_problem.question} {quantity_problem.answer}"


def _facts_passage(random: Random, side: str) -> str:
    terms = random.sample(TERMS, 3)
    sentences = [random.choice((t.definition, t.definition, t.detail)) for t in terms]
    sentences.append(random.choice(TERMS_WITH_UNITS).unit_sentence)
    sentences.append(random.choice(FORMULAS).sentence)
    random.shuffle(sentences)
    return " ".join(sentences)


def _quizzes_passage(random: Random, side: str) -> str:
    """Several questions in one passage: a single one would soon repeat, and rows are unique."""
    return "\n\n".join(_answered_question(random, side) for _ in range(4))


def _answered_question(random: Random, side: str) -> str:
    """A question with a short answer, or a question for the definition of a term."""
    if random.random() < 0.3:
        term = random.choice(TERMS)
        return f"Question: {glossary.make_question(random, term)}\nAnswer: {term.definition}"
    quiz = sample_on_side(
        random, side, quizzes.random_maker(quizzes.ALL_MAKERS), lambda made: made.question
    )
    return f"Question: {quiz.question}\nAnswer: {quiz.right}"


def _story_passage(random: Random, side: str) -> str:
    return stories.format_story(
        sample_on_side(random, side, stories.sample_scenario, " ".join), random
    )


def _programs_passage(random: Random, side: str) -> str:
    tasks = random.sample(programs.PROGRAM_TASKS, 2)
    descriptions = [
        f"A function that {t.description}:\n{programs.format_function(t, t.argument)}"
        for t in tasks
    ]
    return "\n\n".join(descriptions)


def _article_passage(random: Random, side: str) -> str:
    return "\n\n".join(make_article(random, side))


def make_article(random: Random, side: str) -> list[str]:
    """Makes the lines of an article in the layout of WikiText: blank, heading, blank, paragraphs.

    Facts are the same on all sides. One that is not for training tells them of several terms in
    turn, so that none of its paragraphs stands in a text that is learned from.
    """
    term = random.choice(TERMS)
    first, second, third = glossary.other_terms(random, term, 3)
    if side == "train":
        paragraphs = [
            f" {term.definition} {term.detail} {_unit_sentence(term)}{_field_sentence(term)} \n",
            f" {first.definition} {first.detail} {_unit_sentence(first)}{second.definition} \n",
        ]
    else:
        paragraphs = [
            f" {term.definition} {first.definition} {_field_sentence(term)} {second.definition} \n",
            f" {_field_sentence(first)} {third.definition} {_unit_sentence(second)}{_field_sentence(third)} \n",
        ]
    if random.random() < 0.2:
        paragraphs.append(f" {_story_passage(random, side)} {third.definition} {third.detail} \n")
    if random.random() < 0.5:
        paragraphs.append(
            f" {_equations_passage(random, side)} {random.choice(FORMULAS).sentence} \n"
        )
    random.shuffle(paragraphs)
    return ["", f" = {capitalize_first(term.name)} = \n", "", *paragraphs]


_PASSAGE_WEIGHTS = {
    _equations_passage: 22,
    _word_problem_passage: 43,
    _quantity_passage: 4,
    _facts_passage: 5,
    _quizzes_passage: 16,
    _story_passage: 2,
    _programs_passage: 3,
    _article_passage: 5,
}
"""Sampling weights of the passage kinds, in percent."""


def _field_sentence(term: glossary.Term) -> str:
    return f"{capitalize_first(term.phrase)} belongs to {term.field}."


def _unit_sentence(term: glossary.Term) -> str:
    return f"{term.unit_sentence} " if term.unit else ""


def wikitext(random: Random, side: str) -> list[Row]:
    """WikiText rows: the lines of an article on a side."""
    lines = sample_on_side(random, side, lambda r: make_article(r, side), "\n".join)
    return [{"text": line} for line in lines]
