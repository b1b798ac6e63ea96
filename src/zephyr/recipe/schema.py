"""The recipe schema (pydantic): data mixtures, models, evaluations and run settings.

Every field is declared once, in the module of its part, and unknown keys are refused. `load` reads
a recipe from YAML.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from zephyr.recipe.data import MixtureSpec
from zephyr.recipe.evaluation import Evaluate, Published
from zephyr.recipe.machine import RunSettings
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.part import Name, RecipePart


class Recipe(RecipePart):
    """A whole recipe. `origin` says where named sources come from."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 42
    origin: Literal["embedded"] | None = None
    data: dict[Name, MixtureSpec]
    models: Annotated[dict[Name, ModelSpec], Field(min_length=1)]
    evaluate: Evaluate = Evaluate()
    published: Published | None = None
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _check_published_names(self) -> Self:
        for name, scores in self.published.scores.items() if self.published else ():
            if name not in self.models:
                raise ValueError(f"`published` has scores of `{name}`, which is no model here")
            for key in scores:
                if key.partition(".")[0] not in (task.key for task in self.evaluate.tasks):
                    raise ValueError(f"`published` has `{key}` of {name}: no task is called so")
        return self

    @model_validator(mode="after")
    def _check_model_names(self) -> Self:
        if taken := [name for name in self.models if name.startswith("data.")]:
            raise ValueError(f"a model may not be called `{taken[0]}`, as nodes of mixtures are")
        return self
