"""Recipe schema of quantization: the method (int8, NF4, int4, GPTQ ...) and its options."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from zephyr.recipe.part import Name, Positive, RecipePart


class Quantize(RecipePart):
    """Weights in fewer bits. Adapters are added into the whole weights first, never into few bits.

    `int8` rounds each weight to the nearest of 256 values on a grid that 64 weights of a row share
    (or 32, where a width is no multiple of 64); activations stay as they are. `nf4` and `fp4` are
    bitsandbytes': QLoRA's 4-bit floats, whose scales are quantized too (`double`), and whose
    products are made in `compute`. `int4` rounds each weight to
    the nearest of a grid that `group` weights of a row share; `gptq` rounds to the same grids on
    `rows` pieces of `length` tokens of the mixture `data`, so that what layers compute changes
    least. Both can also store the embedding and the head in 8 or 4 bits: `embeddings`. `int4-g32`
    is short for `{method: int4, group: 32}`, and so are the names of other methods and groups.

    `merged` adds the adapters into the weights and leaves these whole, in the dtype in which the
    base is stored. `whole` puts adapters that were trained on quantized weights on whole ones.
    """

    method: Literal["int8", "nf4", "fp4", "int4", "gptq", "merged", "whole"]
    group: Literal[32, 64, 128] = 128
    double: bool = True
    compute: Literal["float32", "bfloat16"] = "float32"
    embeddings: Literal["int8", "int4"] | None = None
    data: Name | None = None
    rows: Positive = 128
    length: Annotated[int, Field(ge=2)] = 512

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, group = value.partition("-g")
        return {"method": name, "group": int(group)} if group.isdigit() else {"method": value}

    @model_validator(mode="after")
    def _check_options_apply(self) -> Self:
        belongs = {
            "group": ("int4", "gptq"),
            "double": ("nf4", "fp4"),
            "compute": ("nf4", "fp4"),
            "embeddings": ("int4", "gptq"),
            "data": ("gptq",),
            "rows": ("gptq",),
            "length": ("gptq",),
        }
        for key, methods in belongs.items():
            if key in self.model_fields_set and self.method not in methods:
                raise ValueError(f"`{key}` belongs to {' or '.join(methods)}, not to {self.method}")
        if self.method == "gptq" and self.data is None:
            raise ValueError("`gptq` needs `data`, a mixture on whose text it is calibrated")
        return self
