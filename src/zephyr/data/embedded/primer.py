"""The text on which the embedded base model is pretrained, and the articles of its WikiText.

Plain prose: worked sums, problems with their working, articles, quizzes, activities and programs.
It knows neither the conversations nor the `####` of the fine-tuning sources: that is learned later.
"""

from random import Random
from typing import Any

from zephyr.data.embedded import arithmetic, glossary, lessons, problems, programs, quizzes, stories
from zephyr.data.embedded.glossary import FORMULAS, MEASURED, TERMS, capital
from zephyr.data.embedded.splits import draw

Row = dict[str, Any]


def primer(random: Random, side: str) -> Row:
    """A passage; most are about numbers, which take the longest to learn."""
    (make,) = random.choices(list(_SHARES), weights=list(_SHARES.values()))
    return {"text": make(random, side)}


def _sums(random: Random, side: str) -> str:
    made = [arithmetic.draw(random) for _ in range(random.randint(2, 4))]
    return " ".join(f"{arithmetic.work(sum_)}." for sum_ in made)


def _told_problem(random: Random, side: str) -> str:
    """A word problem told as a story that goes on with its working."""
    made = lessons.problem(random, side)
    return " ".join([made.question, *problems.working(made), f"The answer is {made.answer}."])


def _quantity(random: Random, side: str) -> str:
    found = problems.quantity(random)
    return f"{found.question} {found.answer}"


def _facts(random: Random, side: str) -> str:
    terms = random.sample(TERMS, 3)
    sentences = [random.choice((t.sentence, t.sentence, t.more)) for t in terms]
    sentences.append(random.choice(MEASURED).measured)
    sentences.append(random.choice(FORMULAS).sentence)
    random.shuffle(sentences)
    return " ".join(sentences)


def _quizzes(random: Random, side: str) -> str:
    """Some questions in a row: one alone would soon be drawn again, and no row stands twice."""
    return "\n\n".join(_answered(random, side) for _ in range(4))


def _answered(random: Random, side: str) -> str:
    """A question with a short answer, or one for the meaning of a term."""
    if random.random() < 0.3:
        term = random.choice(TERMS)
        return f"Question: {glossary.ask(random, term)}\nAnswer: {term.sentence}"
    quiz = draw(random, side, quizzes.of(quizzes.ALL), lambda made: made.question)
    return f"Question: {quiz.question}\nAnswer: {quiz.right}"


def _story(random: Random, side: str) -> str:
    return stories.tell(draw(random, side, stories.cast, " ".join), random)


def _programs(random: Random, side: str) -> str:
    tasks = random.sample(programs.TASKS, 2)
    told = [f"A function that {t.does}:\n{programs.write(t, t.argument)}" for t in tasks]
    return "\n\n".join(told)


def _article(random: Random, side: str) -> str:
    return "\n\n".join(article(random, side))


def article(random: Random, side: str) -> list[str]:
    """The lines of an article as WikiText has them: blank, heading, blank, paragraphs.

    Facts are the same on all sides. One that is not for training tells them of several terms in
    turn, so that none of its paragraphs stands in a text that is learned from.
    """
    term = random.choice(TERMS)
    first, second, third = glossary.others(random, term, 3)
    if side == "train":
        paragraphs = [
            f" {term.sentence} {term.more} {_unit(term)}{_field(term)} \n",
            f" {first.sentence} {first.more} {_unit(first)}{second.sentence} \n",
        ]
    else:
        paragraphs = [
            f" {term.sentence} {first.sentence} {_field(term)} {second.sentence} \n",
            f" {_field(first)} {third.sentence} {_unit(second)}{_field(third)} \n",
        ]
    if random.random() < 0.2:
        paragraphs.append(f" {_story(random, side)} {third.sentence} {third.more} \n")
    if random.random() < 0.5:
        paragraphs.append(f" {_sums(random, side)} {random.choice(FORMULAS).sentence} \n")
    random.shuffle(paragraphs)
    return ["", f" = {capital(term.name)} = \n", "", *paragraphs]


_SHARES = {
    _sums: 22,
    _told_problem: 43,
    _quantity: 4,
    _facts: 5,
    _quizzes: 16,
    _story: 2,
    _programs: 3,
    _article: 5,
}
"""How many of a hundred passages are of a kind."""


def _field(term: glossary.Term) -> str:
    return f"{capital(term.said)} belongs to {term.field}."


def _unit(term: glossary.Term) -> str:
    return f"{term.measured} " if term.unit else ""


def wikitext(random: Random, side: str) -> list[Row]:
    """The rows of an article on a side."""
    lines = draw(random, side, lambda r: article(r, side), "\n".join)
    return [{"text": line} for line in lines]
