"""Recipe schema of training: `pretrain`, `tune` (SFT), `align` (DPO ...), optimizer and LoRA."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from zephyr.recipe.part import Name, Positive, Rate, RecipePart, Share


class Shape(RecipePart):
    """The size of a network trained from nothing (Qwen2 architecture, tied embeddings)."""

    vocabulary: Annotated[int, Field(ge=300)] = 1024
    hidden: Positive = 128
    layers: Positive = 4
    heads: Positive = 4
    mlp: Positive = 384
    context: Positive = 512

    @model_validator(mode="after")
    def _check_head_size(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError("`hidden` must be a multiple of 2 x `heads`")
        return self


class Optimization(RecipePart):
    """How weights move: AdamW, a linear warm-up, then a schedule over the optimizer's steps.

    `batch` is the optimizer's batch in examples. How it is split into micro-batches is decided by
    `run.token_budget` and changes nothing but speed. `epochs` counts passes over the data; `steps`,
    where given, is used instead. `evaluate_every` and `log_every` count steps. `keep` says which
    weights are kept: the last, or those of the evaluation that was best on the hold-out, the
    earlier of equals.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """Evaluation metrics on the hold-out by which `keep` may choose the best checkpoint."""

    data: Name
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    steps: Positive | None = None
    batch: Positive = 16
    lr: Rate = 5e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    clip: Rate = 1.0
    log_every: Positive = 10
    evaluate_every: Positive | None = None
    keep: Literal["last", "best loss", "best accuracy", "best margin"] = "last"

    @model_validator(mode="after")
    def _check_keep(self) -> Self:
        if self.keep == "last":
            return self
        if self.keep.removeprefix("best ") not in self.metrics:
            raise ValueError(f"`keep: {self.keep}` needs pairs: it belongs to `align`")
        if self.evaluate_every is None:
            raise ValueError(f"`keep: {self.keep}` needs `evaluate_every`")
        return self


class Lora(RecipePart):
    """A LoRA adapter; `targets` is every linear layer but the head, attention's q and v, or names.

    Layers that can't have one are left out: those whose weight a kernel reads by itself (Mamba's
    `out_proj`), experts of a mixture, and what gets no gradient. A run says how many matrices it
    reaches, and a name of none that it could is refused.

    It is scaled by alpha / rank, with `rslora` by alpha / sqrt(rank) (Kalajdzievski 2023). `dora`
    learns the length of each row of a weight apart from its direction (Liu et al. 2024).
    """

    rank: Positive = 8
    alpha: Rate = 16.0
    dropout: Share = 0.0
    targets: Literal["all-linear", "attention-inputs"] | tuple[str, ...] = "all-linear"
    rslora: bool = False
    dora: bool = False


class Pretrain(Optimization):
    """A tokenizer and a network trained from nothing on passages, in pieces of `length` tokens.

    `tokenizer_data` names further mixtures whose text the tokenizer is trained on.
    """

    shape: Shape = Shape()
    length: Annotated[int, Field(ge=2)] = 128
    tokenizer_data: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.length > self.shape.context:
            raise ValueError("`length` must not exceed `shape.context`")
        return self


class Tune(Optimization):
    """Supervised fine-tuning (SFT). `load: nf4` freezes the base in 4 bits (QLoRA).

    An example longer than `max_length` tokens is left out, or its prompt is cut: earlier turns
    that are not learned first, then the beginning of the last question; the system message and the
    roles' markers stay. At each evaluation eight prompts of the hold-out are answered with at most
    `canary_tokens` tokens; 0 asks none. Where no `lr` is given, LoRA takes 5e-4 (docs/log.md
    has the grid), and `lora: none`, which moves all weights, the default.
    """

    max_length: Annotated[int, Field(ge=2)] = 2048
    overlong: Literal["leave out", "cut"] = "leave out"
    canary_tokens: Annotated[int, Field(ge=0)] = 32
    lora: Lora | Literal["none"] = Lora()
    load: Literal["nf4", "int8"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _choose_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lora") != "none":
            return {"lr": 5e-4, **values}
        return values

    @model_validator(mode="after")
    def _check_load_needs_lora(self) -> Self:
        if self.load is not None and self.lora == "none":
            raise ValueError("quantized weights can't be trained: `load` needs `lora`")
        return self


class Align(Optimization):
    """Learning from pairs of answers: which of two is the better one.

    `dpo` and `ipo` compare with the model as it was before the first step, `simpo` and `orpo` with
    nothing. `beta` scales rewards; it is the weight of the odds ratio in `orpo`, and 2 to 2.5 in
    the paper of `simpo`, which also needs a `gamma`, the margin to be reached. `label_smoothing`
    is the share of pairs taken to be the wrong way round, `length_normalized` divides rewards by
    the tokens of the answer, `sft_weight` adds that many times the mean negative log-likelihood of
    the chosen answer.

    With `adapter: continue` the topmost adapter of the model learns on, in place of a fresh one
    over it. A pair longer than `max_length` tokens is left out, or its prompt is cut: earlier turns
    first, then the beginning of the last question; the system message and the roles' markers stay.
    At each evaluation eight prompts of the hold-out are answered with at most `canary_tokens`
    tokens; 0 asks none.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "margin")

    loss: Literal["dpo", "ipo", "simpo", "orpo"] = "dpo"
    beta: Rate = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    length_normalized: bool = False
    sft_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    gamma: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    max_length: Annotated[int, Field(ge=2)] = 2048
    overlong: Literal["leave out", "cut"] = "leave out"
    adapter: Literal["fresh", "continue"] = "fresh"
    canary_tokens: Annotated[int, Field(ge=0)] = 32
    lora: Lora = Lora()

    @property
    def has_reference(self) -> bool:
        """Whether the loss needs reference log-probabilities (of the model before step 1)."""
        return self.loss in ("dpo", "ipo")

    @model_validator(mode="after")
    def _check_options_apply(self) -> Self:
        belongs = {
            "label_smoothing": ("dpo",),
            "length_normalized": ("dpo", "ipo"),
            "sft_weight": ("dpo", "ipo", "simpo"),
            "gamma": ("simpo",),
        }
        for key, losses in belongs.items():
            if getattr(self, key) and self.loss not in losses:
                raise ValueError(f"`{key}` belongs to {' or '.join(losses)}, not to {self.loss}")
        if self.loss == "simpo" and self.gamma is None:
            raise ValueError("`loss: simpo` needs `gamma`, the margin to be reached (0 for none)")
        if self.adapter == "continue" and "lora" in self.model_fields_set:
            raise ValueError("`lora` is that of the adapter that continues, and can't be given")
        return self
