"""Settings of the tutor server: the pydantic schema of tutor.yaml; every field has a default.

Paths are relative to the folder of the file, or to the working directory without one.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from zephyr.recipe.data import SourceSpec
from zephyr.recipe.evaluation import UNREADABLE
from zephyr.recipe.part import Name, Positive, RecipePart, Share
from zephyr.recipe.yaml_positions import read_mapping

Way = Literal["ask", "compare", "quiz", "hint"]
WAYS: tuple[Way, ...] = ("ask", "compare", "quiz", "hint")
PromptText = Annotated[str, Field(min_length=1, max_length=4_000, pattern=r"\S")]
Origin = Annotated[str, Field(pattern=r"^https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$")]
"""A web origin as browsers send it: scheme, host and port, without a path."""


class HintStep(RecipePart):
    """One step of a ladder of hints: its name on the page, and its prompt to the model."""

    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"\S")]
    ask: PromptText


DEFAULT_HINTS = (
    HintStep(name="A first hint", ask="Give me one short hint. Don't tell me the answer."),
    HintStep(name="A stronger hint", ask="Tell me the first step. Don't tell me the answer."),
    HintStep(name="A worked twin", ask="Solve a similar problem with other numbers, step by step."),
    HintStep(name="The answer", ask="Now solve my problem, step by step."),
)


class Limits(RecipePart):
    """Limits of a request, and of the scheduler's batch and queue.

    `message` is the most characters of a message, `tokens` the most of an answer. `batch` requests
    are decoded together, and `queue` requests may wait for a slot.
    """

    message: Positive = 8_000
    tokens: Positive = 512
    queue: Positive = 64
    batch: Positive = 16


class QuizSettings(RecipePart):
    """Sources of the quiz questions, and the maximum number of each source.

    Without `sources` these are the questions of the recipe's multiple-choice task. `unreadable` is
    the share of each source's rows that may be left out; one row always may, unless it is 0.
    """

    sources: Annotated[tuple[SourceSpec, ...], Field(min_length=1)] | None = None
    cap: Positive | None = None
    unreadable: Share = UNREADABLE


class LogSettings(RecipePart):
    """What the event log stores of requests, and for how many days (retention).

    Without `messages` a request is counted, and its text is not stored. Comparisons are always
    stored with their text, since a vote means nothing without it.
    """

    messages: bool = False
    keep_days: Positive = 90


class TutorSettings(RecipePart):
    """The settings of tutor.yaml. `models` are all that can be served, unless named.

    `recipe` is the recipe whose models are served: a file, or the name of one that comes with
    Zephyr; the command's `--recipe` stands before it.

    `system` stands before every conversation. Of the `ways` the page offers those that are named
    and can be: to compare needs two models, a quiz questions. `origins` are other sites whose
    pages may ask (CORS).
    """

    recipe: str | None = None
    course: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")] = "Course"
    models: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    system: PromptText | None = None
    ways: Annotated[tuple[Way, ...], Field(min_length=1)] = WAYS
    hints: Annotated[tuple[HintStep, ...], Field(min_length=2, max_length=12)] = DEFAULT_HINTS
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    limits: Limits = Limits()
    quiz: QuizSettings = QuizSettings()
    logs: LogSettings = LogSettings()
    database: str | None = None
    origins: tuple[Origin, ...] = ()

    @field_validator("models", "ways", "origins")
    @classmethod
    def _check_unique(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (duplicates := [v for v in value if value.count(v) > 1]):
            raise ValueError(f"{duplicates[0]!r} stands twice")
        return value

    @model_validator(mode="after")
    def _check_compare_models(self) -> Self:
        is_explicit = "compare" in self.ways and "ways" in self.model_fields_set
        if is_explicit and self.models is not None and len(self.models) < 2:
            raise ValueError("`compare` needs at least two `models`")
        return self

    def recipe_argument(self, folder: Path) -> str | None:
        """What names the recipe in a command: a file relative to `folder`, or a name; or None."""
        if self.recipe is not None and (folder / self.recipe).is_file():
            return str(folder / self.recipe)
        return self.recipe

    def database_path(self, folder: Path, store: Path) -> Path:
        """The path of the event log (SQLite): `database`, taken from `folder`, or in the store."""
        return store / "tutor.sqlite" if self.database is None else folder / self.database


def read_settings(path: Path | None) -> tuple[TutorSettings, Path]:
    """Reads tutor.yaml, or the defaults, and the folder that its paths are relative to.

    Raises:
        ZephyrError: the file is missing, is no YAML, or has invalid settings.
    """
    if path is None:
        return TutorSettings(), Path.cwd()
    document = read_mapping(path, "tutor", "docs/tutor.md")
    return document.validate(TutorSettings), path.resolve().parent
