"""Recipe schema of a model: its parent or base, and the one stage that makes it."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from zephyr.recipe.part import Name, RecipePart
from zephyr.recipe.quantization import Quantize
from zephyr.recipe.training import Align, Pretrain, Tune


class ModelSpec(RecipePart):
    """One named model: where it comes from, and the one thing done to it."""

    base: str | None = None
    pretrain: Pretrain | None = None
    from_: Annotated[Name | None, Field(alias="from")] = None
    tune: Tune | None = None
    align: Align | None = None
    quantize: Quantize | None = None

    @model_validator(mode="after")
    def _check_origin_and_stage(self) -> Self:
        origins = [k for k in ("base", "pretrain", "from") if self._get_field(k) is not None]
        if len(origins) != 1:
            raise ValueError("a model has exactly one of `base`, `pretrain` and `from`")
        acts = [k for k in ("tune", "align", "quantize") if self._get_field(k) is not None]
        if origins == ["from"] and len(acts) != 1:
            raise ValueError("a model with `from` has exactly one of `tune`, `align`, `quantize`")
        if origins != ["from"] and acts:
            raise ValueError(f"`{acts[0]}` needs `from`, not `{origins[0]}`")
        return self

    @property
    def mixtures(self) -> tuple[Name, ...]:
        """The mixtures that it is trained or calibrated on."""
        if self.pretrain is not None:
            return (self.pretrain.data, *self.pretrain.tokenizer_data)
        if self.quantize is not None:
            return (self.quantize.data,) if self.quantize.data else ()
        learning = self.tune or self.align
        return (learning.data,) if learning is not None else ()

    def _get_field(self, key: str) -> Any:
        return {**dict(self), "from": self.from_}[key]
