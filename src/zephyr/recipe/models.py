"""Recipe schema of a model: its parent or base, and the one stage that makes it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from zephyr.recipe.part import Name, RecipePart
from zephyr.recipe.quantization import Quantize
from zephyr.recipe.training import Align, Pretrain, Tune

Thinking = Literal["off", "on"]
"""Whether a model thinks before it answers, where its chat template can switch that."""


def _read_yaml_switch(value: Any) -> Any:
    """YAML 1.1 reads `off` and `on` as false and true."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


class ModelSpec(RecipePart):
    """One named model: where it comes from, and the one thing done to it.

    `base` is a folder in Hugging Face format, a GGUF file (or the folder that holds it), an id of
    the hub (`org/name`, or `org/name@revision`), or a name of the table of bases. A GGUF file is
    dequantized once, to bfloat16; its fingerprint is that of the file. A name is fetched from the
    hub or, where that can't be reached, from a package, whose weights may be in fewer bits. Of a
    multimodal base (Gemma 3 and 4, Ministral 3, Qwen3.5) the text part alone is used and exported.

    `thinking` belongs to a `base` whose chat template can think (Qwen3, SmolLM3, …), and holds for
    all models made from it: training, evaluation, chat and the server use the same prompts. With
    `off` the empty think block is a part of the prompt, and nothing of it is learned; where the
    template writes it before the last answer alone, a conversation is learned answer by answer,
    each after the prompt that asks for it. A template whose generation prompt opens a thought
    needs `on`: such a model is evaluated and served (the thought is no part of a scored answer),
    and can't be tuned. A template that writes today's date gets 26 July 2024 on every day.
    """

    base: str | None = None
    thinking: Annotated[Thinking, BeforeValidator(_read_yaml_switch)] = "off"
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
        if self.thinking == "on" and self.base is None:
            raise ValueError("`thinking` belongs to a `base`, and holds for all made from it")
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
