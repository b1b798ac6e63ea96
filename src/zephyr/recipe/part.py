"""The base class of every part of a recipe, and the types that several of them share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""A fraction."""
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A positive number, such as a learning rate."""


class RecipePart(BaseModel):
    """Pydantic base class of all parts of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def spec(self) -> dict[str, Any]:
        """The canonical form for fingerprints: JSON values, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
