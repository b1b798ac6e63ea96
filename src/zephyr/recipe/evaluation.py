"""Recipe schema of evaluation: tasks, the models evaluated, and published scores."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from zephyr.recipe.data import SourceSpec
from zephyr.recipe.part import Name, Positive, RecipePart, Share

LM_EVAL = "lm_eval:"
"""Prefix of the names of tasks of lm-evaluation-harness."""
FOOTPRINT = "footprint"
"""The task that measures memory (bytes) and throughput (tokens a second) of a model."""
UNREADABLE = 0.1
"""The share of the rows of an evaluation's or quiz's source that may be left out."""
TaskName = Annotated[
    str, Field(pattern=rf"^({LM_EVAL})?[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)
]


class TaskSpec(RecipePart):
    """One evaluation, asked of every model. `sources` replace the task's own.

    `n` draws that many items by the recipe's seed; without it, all are asked. `data` names the
    mixture whose hold-out a `lessons` (chats) or `preferences` (pairs) task asks; `label` tells two
    uses of a task apart. `shots` worked examples stand before each question (none where it is not
    given), drawn from `examples` (by default the task's own); `chat` puts a question into the
    model's chat template where the task does not do so anyway. Answers are greedy at `temperature`
    0, else each is drawn by a seed of its own from the likeliest tokens that make up `top_p`.
    `unreadable` is the share of each source's rows that may be left out because they can't be read;
    one row always may, unless it is 0.

    `footprint` asks nothing: it measures bytes, and tokens a second while nothing else is made.

    `lm_eval:NAME` is a task or group of lm-evaluation-harness (extra `lm-eval`), whose data set
    must be on this machine; `path` is a folder with task files of the user's own, and `shots` are,
    where not given, as many as the task itself says.
    """

    name: TaskName
    label: Name | None = None
    sources: tuple[SourceSpec, ...] | None = None
    data: Name | None = None
    n: Positive | None = None
    max_new_tokens: Positive | None = None
    shots: Annotated[int | None, Field(ge=0)] = None
    examples: tuple[SourceSpec, ...] | None = None
    path: str | None = None
    chat: bool = False
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    unreadable: Share = UNREADABLE

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_data_fields(self) -> Self:
        if self.is_footprint:
            for key in ("sources", "data", "n"):
                if getattr(self, key) is not None:
                    raise ValueError(f"`{FOOTPRINT}` asks nothing, and has no `{key}`")
        if "unreadable" in self.model_fields_set and (
            self.is_footprint or self.is_foreign or self.data is not None
        ):
            raise ValueError("`unreadable` belongs to tasks that read `sources`")
        if self.data is not None and self.sources is not None:
            raise ValueError("a task asks `sources`, or the hold-out of `data`")
        if not self.is_foreign:
            if self.path is not None:
                raise ValueError(f"`path` belongs to tasks called `{LM_EVAL}NAME`")
            return self
        for key in ("sources", "data", "examples"):
            if getattr(self, key) is not None:
                raise ValueError(f"a task of lm-eval brings its own data, and has no `{key}`")
        return self

    @property
    def is_footprint(self) -> bool:
        """Whether it is the footprint task, which measures bytes and speed, and asks nothing."""
        return self.name == FOOTPRINT

    @property
    def is_foreign(self) -> bool:
        """Whether it is a task of lm-evaluation-harness."""
        return self.name.startswith(LM_EVAL)

    @property
    def key(self) -> str:
        """The name of the task in this recipe: its label, or else its name."""
        return self.label or self.name


class Evaluate(RecipePart):
    """The tasks, and the models that are asked (all, unless named)."""

    tasks: tuple[TaskSpec, ...] = ()
    models: tuple[Name, ...] | None = None


class Published(RecipePart):
    """Scores that others published of these models, shown beside this recipe's own as theirs.

    `scores` holds, by model and `task.metric`, figures as the table shows them (shares in percent);
    `source` says where they stand, `note` what a reader must know of them. None of it enters a
    fingerprint; a recipe that `--set` changes shows none.
    """

    source: str
    note: str | None = None
    scores: dict[Name, dict[str, float]]
