"""Recipe schema of data: sources, and mixtures drawn from them."""

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from zephyr.recipe.part import Name, Positive, RecipePart, Share
from zephyr.records import RecordKind

Use = Literal["train", "exam"]
"""What a source is used for: training (in a mixture), or evaluation (in a task)."""

AnswerKey = Literal["letter", "0-based", "1-based", "text"]
"""How the keys of a quiz name the right option: by letter, place, or the option's text."""


class SourceSpec(RecipePart):
    """One source of a mixture or a task: a name from the table, a data set of the hub, or a file.

    With `path` the rows come from that file, or from several whose names fit a pattern with `*`;
    with `hub` from the data set of that id: its Parquet copy, of which `config` and `revision` may
    be chosen, or `files` of its own by a pattern of their paths. `columns` maps the names a reader
    knows to the file's own. `answer_key` says how the keys of a quiz of one's own are read, where
    they don't tell it themselves.
    """

    name: Name | None = None
    path: str | None = None
    hub: Annotated[str | None, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = None
    config: str | None = None
    revision: str | None = None
    files: str | None = None
    split: str | None = None
    columns: dict[str, str] | None = None
    answer_key: AnswerKey | None = None
    cap: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_one_location(self) -> Self:
        if self.name is None and self.path is None and self.hub is None:
            raise ValueError("a source needs a `name` from the table of sources, a `path` or `hub`")
        if self.path is not None:
            for key in ("hub", "config", "revision", "files"):
                if getattr(self, key) is not None:
                    raise ValueError(f"a source with a `path` has no `{key}`")
            if set("*?") & set(PurePath(self.path).name) and self.name is None:
                raise ValueError("a source whose `path` is a pattern needs a `name`")
        elif self.columns is not None and self.hub is None:
            raise ValueError("`columns` belongs to a source with a `path` or a `hub`")
        if self.columns and len(set(self.columns.values())) < len(self.columns):
            raise ValueError("`columns` gives one column of the file two names")
        return self


class MixtureSpec(RecipePart):
    """At most `cap` records of each source, drawn without replacement, and a hold-out split off.

    `clean` removes, or only reports, what a source repeats, what shares runs of `ngram` words with
    a question of the recipe's tasks, and near-duplicates among all that is drawn. `unreadable` is
    the share of a source's rows that may be refused by its reader before the mixture is refused as
    a whole.
    """

    kind: RecordKind
    sources: Annotated[tuple[SourceSpec, ...], Field(min_length=1)]
    cap: Positive | None = None
    holdout: Share = 0.0
    clean: Literal["remove", "report"] = "remove"
    ngram: Annotated[int, Field(ge=3)] = 8
    unreadable: Share = 0.05
