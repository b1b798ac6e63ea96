"""Questions with options that a class is asked: whose turn it is, and what a model thinks of them.

They come from the sources in the settings, or else are those of the recipe's multiple-choice task,
none of which a model of the recipe has learned from.
"""

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zephyr.data import sources
from zephyr.data.course import quiz_text
from zephyr.data.draw import row_ranks
from zephyr.data.readers.choice import LETTERS
from zephyr.errors import ZephyrError
from zephyr.evaluate.tasks import sources_of
from zephyr.model.fork import fork
from zephyr.recipe.data import MixtureSpec, SourceSpec
from zephyr.recipe.schema import Recipe
from zephyr.records import Choice, Message
from zephyr.tutor.settings import Tutor

if TYPE_CHECKING:
    from zephyr.tutor.serving import Served  # imports torch

MULTIPLE_CHOICE = ("mcqa", "mcqa_letter", "mcqa_written")
"""Tasks whose questions make sense to a student: HellaSwag's do not."""


class Quizzes:
    """The questions of a class, each once; `seed` and a session decide their order."""

    def __init__(self, records: Iterable[Choice], seed: int) -> None:
        self._records = {record.id: record for record in sorted(records, key=lambda r: r.id)}
        self._seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def find(self, quiz: str) -> Choice | None:
        """The question with this id."""
        return self._records.get(quiz)

    def next(self, session: str, answered: Collection[str]) -> Choice | None:
        """The next question that a session has not answered; None where it has answered all."""
        every = list(self._records.values())
        order = np.argsort(row_ranks(self._seed, session, len(every)), kind="stable")
        return next((every[at] for at in order if every[at].id not in answered), None)

    def number(self, answered: Collection[str]) -> int:
        """Which one the next question is, from 1; what is asked no more does not count."""
        return sum(quiz in self._records for quiz in answered) + 1


def _rank(seed: int, *what: str) -> bytes:
    text = "\x1f".join((str(seed), *what))
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def open_quizzes(tutor: Tutor, folder: Path, recipe: Recipe, recipe_folder: Path) -> Quizzes:
    """The questions of a class; `folder` is that of its settings. None where no quiz is offered.

    Raises:
        ZephyrError: a source can't be read.
    """
    if "quiz" not in tutor.ways:
        return Quizzes((), recipe.seed)
    if tutor.quiz.sources is not None:
        wanted, base, where = tutor.quiz.sources, folder, "quiz.sources"
    else:
        wanted, base, where = _of_task(recipe), recipe_folder, "evaluate.tasks"
    records: list[Choice] = []
    for source in wanted:
        found = _read(source, recipe.origin, base, where)
        found.sort(key=lambda record: _rank(recipe.seed, "taken", record.id))
        records += found[: source.cap or tutor.quiz.cap]
    return Quizzes(records, recipe.seed)


def _of_task(recipe: Recipe) -> tuple[SourceSpec, ...]:
    """What the recipe's first multiple-choice task asks."""
    tasks = (task for task in recipe.evaluate.tasks if task.name in MULTIPLE_CHOICE)
    task = next(tasks, None)
    return () if task is None else sources_of(task)


def _read(source: SourceSpec, origin: str | None, base: Path, where: str) -> list[Choice]:
    opened = sources.open_source(
        source, kind="choice", use="exam", origin=origin, base=base, where=where
    )
    records, tally = sources.read(opened)
    tally.refuse_unreadable(MixtureSpec.model_fields["unreadable"].default)
    return [record for record in records if isinstance(record, Choice)]


async def probabilities(model: "Served", quiz: Choice) -> list[float]:
    """How likely a model finds each option: its letters, as answers to the course's quiz text.

    Raises:
        ZephyrError: the question is longer than the context of the model, or the model is broken.
    """
    template = model.template
    prompt = template.prompt([Message("user", quiz_text(quiz))])
    letters = template.answers(LETTERS[: len(quiz.choices)])
    (found,) = await model.logprobs([fork(prompt, *letters)])
    sums = np.array([values.sum() for values in found], dtype=np.float64)
    if not np.isfinite(sums).all():
        raise ZephyrError(f"{model.name} does not know how likely an answer is")
    weights = np.exp(sums - sums.max())
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares
