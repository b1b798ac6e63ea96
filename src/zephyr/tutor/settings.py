"""What a teacher may settle in tutor.yaml; every field has a default.

Paths are taken from the folder of the file, and from where the tutor is started without one.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from zephyr.recipe.data import SourceSpec
from zephyr.recipe.part import Name, Positive, RecipePart
from zephyr.recipe.yaml_positions import read_mapping

Way = Literal["ask", "compare", "quiz", "hint"]
WAYS: tuple[Way, ...] = ("ask", "compare", "quiz", "hint")
Words = Annotated[str, Field(min_length=1, max_length=4_000, pattern=r"\S")]


class Step(RecipePart):
    """One step of the ladder of hints: its name on the page, and what the model is asked for."""

    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"\S")]
    ask: Words


LADDER = (
    Step(name="A first hint", ask="Give me one short hint. Don't tell me the answer."),
    Step(name="A stronger hint", ask="Tell me the first step. Don't tell me the answer."),
    Step(name="A worked twin", ask="Solve a similar problem with other numbers, step by step."),
    Step(name="The answer", ask="Now solve my problem, step by step."),
)


class Limits(RecipePart):
    """What one request may ask for, and how many are served at a time.

    `message` is the most characters of a message, `tokens` the most of an answer. `batch` answers
    are written side by side, and `queue` requests may wait for a place.
    """

    message: Positive = 8_000
    tokens: Positive = 512
    queue: Positive = 64
    batch: Positive = 16


class Quiz(RecipePart):
    """Where the questions of the quiz come from, and the most that are taken of each source.

    Without `sources` these are the questions of the recipe's multiple-choice task.
    """

    sources: Annotated[tuple[SourceSpec, ...], Field(min_length=1)] | None = None
    cap: Positive | None = None


class Logs(RecipePart):
    """What is kept of requests, and for how many days.

    Without `messages` a request is counted, and its text is not kept. What is compared is always
    kept with its text, since a vote means nothing without it.
    """

    messages: bool = False
    keep_days: Positive = 90


class Tutor(RecipePart):
    """How models are served to a class. `models` are all that can be served, unless named.

    `system` stands before every conversation. Of the `ways` the page offers those that are named
    and can be: to compare needs two models, a quiz questions.
    """

    course: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")] = "Course"
    models: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    system: Words | None = None
    ways: Annotated[tuple[Way, ...], Field(min_length=1)] = WAYS
    hints: Annotated[tuple[Step, ...], Field(min_length=2, max_length=12)] = LADDER
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    limits: Limits = Limits()
    quiz: Quiz = Quiz()
    logs: Logs = Logs()
    database: str | None = None

    @field_validator("models", "ways")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (twice := [v for v in value if value.count(v) > 1]):
            raise ValueError(f"{twice[0]!r} stands twice")
        return value

    @model_validator(mode="after")
    def _compares_two(self) -> Self:
        named = "compare" in self.ways and "ways" in self.model_fields_set
        if named and self.models is not None and len(self.models) < 2:
            raise ValueError("`compare` needs at least two `models`")
        return self

    def database_path(self, folder: Path, store: Path) -> Path:
        """Where events are kept: `database`, taken from `folder`, else in the store."""
        return store / "tutor.sqlite" if self.database is None else folder / self.database


def read_settings(path: Path | None) -> tuple[Tutor, Path]:
    """The settings in a file, or the default ones, and the folder from which their paths start.

    Raises:
        ZephyrError: the file is missing, is no YAML, or says what settings can't say.
    """
    if path is None:
        return Tutor(), Path.cwd()
    written = read_mapping(path, "tutor", "docs/tutor.md")
    return written.validated(Tutor), path.resolve().parent
