"""Multiple-choice quiz: the next question of a session, and a model's option probabilities.

Questions come from the sources in the settings, or else from the recipe's multiple-choice task,
which none of the recipe's models was trained on.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zephyr.data import sources
from zephyr.data.evaluation_records import read_evaluation_records
from zephyr.data.quiz_format import format_quiz
from zephyr.data.readers.answer_key import LETTERS
from zephyr.data.sampling import row_sort_keys
from zephyr.errors import ZephyrError
from zephyr.evaluate.tasks import resolve_sources
from zephyr.model.example import Example, make_example
from zephyr.recipe.data import SourceSpec
from zephyr.recipe.schema import Recipe
from zephyr.records import Choice, Message
from zephyr.tutor.settings import TutorSettings

if TYPE_CHECKING:
    from zephyr.tutor.serving import ServedModel  # imports torch

MULTIPLE_CHOICE = ("mcqa", "mcqa_letter", "mcqa_written")
"""Tasks whose questions are suitable for students (HellaSwag's are not)."""


class Quizzes:
    """The quiz questions of a class; `seed` and session id decide their order.

    `notes` say how their keys were read, and which rows were left out.
    """

    def __init__(self, records: Iterable[Choice], seed: int, notes: Sequence[str] = ()) -> None:
        self.notes = notes
        self._records = {record.id: record for record in sorted(records, key=lambda r: r.id)}
        self._seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def find(self, quiz: str) -> Choice | None:
        """The question with this id."""
        return self._records.get(quiz)

    def next(self, session: str, answered_ids: Collection[str]) -> Choice | None:
        """The next question that a session has not answered; None if it has answered all."""
        records = list(self._records.values())
        order = np.argsort(row_sort_keys(self._seed, session, len(records)), kind="stable")
        return next((records[at] for at in order if records[at].id not in answered_ids), None)

    def next_number(self, answered_ids: Collection[str]) -> int:
        """The number of the next question, from 1; removed questions don't count."""
        return sum(quiz in self._records for quiz in answered_ids) + 1


def _sampling_key(seed: int, *parts: str) -> bytes:
    """A hash key that orders records pseudo-randomly for a seed."""
    text = "\x1f".join((str(seed), *parts))
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def open_quizzes(
    settings: TutorSettings, folder: Path, recipe: Recipe, recipe_folder: Path
) -> Quizzes:
    """Loads the quiz questions; `folder` is that of the settings. Empty without a quiz.

    Raises:
        ZephyrError: a source can't be read.
    """
    if "quiz" not in settings.ways:
        return Quizzes((), recipe.seed)
    if settings.quiz.sources is not None:
        quiz_sources, base, where = settings.quiz.sources, folder, "quiz.sources"
    else:
        quiz_sources, base, where = _task_sources(recipe), recipe_folder, "evaluate.tasks"
    records: list[Choice] = []
    notes: list[str] = []
    for source in quiz_sources:
        opened = sources.open_source(
            source, kind="choice", use="exam", origin=recipe.origin, base=base, where=where
        )
        read = read_evaluation_records(opened, settings.quiz.unreadable)
        notes += read.notes
        found = [record for record in read.records if isinstance(record, Choice)]
        found.sort(key=lambda record: _sampling_key(recipe.seed, "taken", record.id))
        records += found[: source.cap or settings.quiz.cap]
    return Quizzes(records, recipe.seed, notes)


def _task_sources(recipe: Recipe) -> tuple[SourceSpec, ...]:
    """The sources of the recipe's first multiple-choice task."""
    tasks = (task for task in recipe.evaluate.tasks if task.name in MULTIPLE_CHOICE)
    task = next(tasks, None)
    return () if task is None else resolve_sources(task)


async def option_probabilities(model: "ServedModel", quiz: Choice) -> list[float]:
    """A model's probability for each option [options]: softmax over its letters' logprobs.

    Raises:
        ZephyrError: the question exceeds the context, or the logprobs are not finite.
    """
    from zephyr.tutor.serving import run_tokenizer

    template = model.template

    def encode() -> Example:
        prompt = template.encode_prompt([Message("user", format_quiz(quiz))])
        return make_example(prompt, *template.encode_answers(LETTERS[: len(quiz.choices)]))

    (logprobs,) = await model.logprobs([await run_tokenizer(encode)])
    logprob_sums = np.array([values.sum() for values in logprobs], dtype=np.float64)
    if not np.isfinite(logprob_sums).all():
        raise ZephyrError(f"{model.name} does not know how likely an answer is")
    weights = np.exp(logprob_sums - logprob_sums.max())
    probs: list[float] = (weights / weights.sum()).tolist()
    return probs
