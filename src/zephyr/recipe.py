"""What a recipe may say.

A recipe names data mixtures, models and evaluations; every field is declared here, once, and read
in one place. Unknown keys are refused. `recipe_file` reads these from YAML.
"""

from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zephyr.records import Kind

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
LM_EVAL = "lm_eval:"
"""What stands before the name of a task of lm-evaluation-harness."""
FOOTPRINT = "footprint"
"""The task that measures what a model costs: bytes and tokens a second."""
TaskName = Annotated[
    str, Field(pattern=rf"^({LM_EVAL})?[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)
]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Use = Literal["train", "exam"]
"""Whether a mixture takes a source, or a task asks it."""


class Part(BaseModel):
    """A frozen piece of a recipe that knows its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def spec(self) -> dict[str, Any]:
        """The canonical form that enters a fingerprint: JSON values, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class Source(Part):
    """One source of a mixture or a task: a name from the table, a data set of the hub, or a file.

    With `path` the rows come from that file, or from several whose names fit a pattern with `*`;
    with `hub` from the data set of that id: its Parquet copy, of which `config` and `revision` may
    be chosen, or `files` of its own by a pattern of their paths. `columns` maps the names a reader
    knows to the file's own.
    """

    name: Name | None = None
    path: str | None = None
    hub: Annotated[str | None, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = None
    config: str | None = None
    revision: str | None = None
    files: str | None = None
    split: str | None = None
    columns: dict[str, str] | None = None
    cap: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
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


class Mixture(Part):
    """At most `cap` records of each source, drawn without replacement, and a hold-out split off.

    `clean` removes, or only reports, what a source repeats, what shares runs of `ngram` words with
    a question of the recipe's tasks, and near-duplicates among all that is drawn. `unreadable` is
    the share of a source's rows that may be refused by its reader before the mixture is refused as
    a whole.
    """

    kind: Kind
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    cap: Positive | None = None
    holdout: Share = 0.0
    clean: Literal["remove", "report"] = "remove"
    ngram: Annotated[int, Field(ge=3)] = 8
    unreadable: Share = 0.05


class Shape(Part):
    """The size of a network trained from nothing (Qwen2 architecture, tied embeddings)."""

    vocabulary: Annotated[int, Field(ge=300)] = 1024
    hidden: Positive = 128
    layers: Positive = 4
    heads: Positive = 4
    mlp: Positive = 384
    context: Positive = 512

    @model_validator(mode="after")
    def _even_heads(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError("`hidden` must be a multiple of 2 x `heads`")
        return self


class Optimization(Part):
    """How weights move: AdamW, a linear warm-up, then a schedule over the optimizer's steps.

    `batch` is the optimizer's batch in examples. How it is cut into forwards is decided by
    `run.token_budget` and changes nothing but speed. `epochs` counts passes over the data;
    `steps`, where given, is used instead. `evaluate_every` and `log_every` count steps. `keep`
    says which weights are kept: the last, or those of the evaluation that was best on the
    hold-out, the earlier of equals.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """What is measured on a hold-out, and can be best."""

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
    def _best_of_several(self) -> Self:
        if self.keep == "last":
            return self
        if self.keep.removeprefix("best ") not in self.metrics:
            raise ValueError(f"`keep: {self.keep}` needs pairs: it belongs to `align`")
        if self.evaluate_every is None:
            raise ValueError(f"`keep: {self.keep}` needs `evaluate_every`")
        return self


class Lora(Part):
    """A LoRA adapter; `targets` is every linear layer but the head, the seed's choice, or names.

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
    def _window_fits(self) -> Self:
        if self.length > self.shape.context:
            raise ValueError("`length` must not exceed `shape.context`")
        return self


class Tune(Optimization):
    """Supervised fine-tuning (SFT). `load: nf4` freezes the base in 4 bits (QLoRA).

    An example longer than `max_length` tokens is left out, or its prompt is cut from the left.
    At each evaluation eight prompts of the hold-out are answered with at most `canary_tokens`
    tokens; 0 asks none.
    """

    max_length: Annotated[int, Field(ge=2)] = 2048
    overlong: Literal["leave out", "cut"] = "leave out"
    canary_tokens: Annotated[int, Field(ge=0)] = 32
    lora: Lora | Literal["none"] = Lora()
    load: Literal["nf4", "int8"] | None = None

    @model_validator(mode="after")
    def _quantized_needs_lora(self) -> Self:
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
    over it. A pair longer than `max_length` tokens is left out, or its prompt is cut from the left.
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
        """Whether the loss compares with the model as it was before the first step."""
        return self.loss in ("dpo", "ipo")

    @model_validator(mode="after")
    def _options_mean_something(self) -> Self:
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


class Quantize(Part):
    """Weights in fewer bits. Adapters are added into the whole weights first, never into few bits.

    `int8`, `nf4` and `fp4` are bitsandbytes': LLM.int8() and QLoRA's 4-bit floats, whose scales are
    quantized too (`double`), and whose products are made in `compute`. `int4` rounds each weight to
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
    def _options_mean_something(self) -> Self:
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


class Model(Part):
    """One named model: where it comes from, and the one thing done to it."""

    base: str | None = None
    pretrain: Pretrain | None = None
    from_: Annotated[Name | None, Field(alias="from")] = None
    tune: Tune | None = None
    align: Align | None = None
    quantize: Quantize | None = None

    @model_validator(mode="after")
    def _one_origin_one_act(self) -> Self:
        origins = [k for k in ("base", "pretrain", "from") if self._get(k) is not None]
        if len(origins) != 1:
            raise ValueError("a model has exactly one of `base`, `pretrain` and `from`")
        acts = [k for k in ("tune", "align", "quantize") if self._get(k) is not None]
        if origins == ["from"] and len(acts) != 1:
            raise ValueError("a model with `from` has exactly one of `tune`, `align`, `quantize`")
        if origins != ["from"] and acts:
            raise ValueError(f"`{acts[0]}` needs `from`, not `{origins[0]}`")
        return self

    @property
    def mixtures(self) -> tuple[Name, ...]:
        """The mixtures that it learns from, or is calibrated on."""
        if self.pretrain is not None:
            return (self.pretrain.data, *self.pretrain.tokenizer_data)
        if self.quantize is not None:
            return (self.quantize.data,) if self.quantize.data else ()
        learning = self.tune or self.align
        return (learning.data,) if learning is not None else ()

    def _get(self, key: str) -> Any:
        return {**dict(self), "from": self.from_}[key]


class Task(Part):
    """One evaluation, asked of every model. `sources` replace the task's own.

    `n` draws that many items by the recipe's seed; without it, all are asked. `data` names the
    mixture whose hold-out a `preferences` task asks; `label` tells two uses of a task apart.
    `shots` worked examples stand before each question (none where it is not given), drawn from
    `examples` (by default the task's own); `chat` puts a question into the model's chat template
    where the task does not do so anyway. Answers are greedy at `temperature` 0, else each is drawn
    by a seed of its own from the likeliest tokens that make up `top_p`.

    `footprint` asks nothing: it measures bytes, and tokens a second while nothing else is made.

    `lm_eval:NAME` is a task or group of lm-evaluation-harness (extra `lm-eval`), whose data set
    must be on this machine; `path` is a folder with task files of the user's own, and `shots` are,
    where not given, as many as the task itself says.
    """

    name: TaskName
    label: Name | None = None
    sources: tuple[Source, ...] | None = None
    data: Name | None = None
    n: Positive | None = None
    max_new_tokens: Positive | None = None
    shots: Annotated[int | None, Field(ge=0)] = None
    examples: tuple[Source, ...] | None = None
    path: str | None = None
    chat: bool = False
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _data_of_one_kind(self) -> Self:
        if self.is_footprint:
            for key in ("sources", "data", "n"):
                if getattr(self, key) is not None:
                    raise ValueError(f"`{FOOTPRINT}` asks nothing, and has no `{key}`")
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
        """Whether it measures bytes and speed, and asks nothing."""
        return self.name == FOOTPRINT

    @property
    def is_foreign(self) -> bool:
        """Whether it is one of lm-evaluation-harness."""
        return self.name.startswith(LM_EVAL)

    @property
    def key(self) -> str:
        return self.label or self.name


class Evaluate(Part):
    """The tasks, and the models that are asked (all, unless named)."""

    tasks: tuple[Task, ...] = ()
    models: tuple[Name, ...] | None = None


class RunSettings(Part):
    """How the machine is used: none of it enters a fingerprint.

    `jobs` stages run side by side, each on its share of the processor's cores. `processes` make
    each training together, one training at a time; with `shard` they divide the weights among them,
    where each would otherwise hold them all. `token_budget` is the number of tokens in one forward;
    where it is not given, a training takes what its memory allows. `dtype: auto` trains adapters on
    weights in bfloat16 where they are stored in 16 bits and the machine multiplies in it; so are
    evaluations on a GPU, while on a processor they are in float32 unless told otherwise.
    `checkpoint_every` counts optimizer steps. Without `proofs` (`--no-proofs`) training starts
    without looking at what it starts from. `track` names programs that are given the metrics of
    trainings as they come; they write into the folder of the run (trackio into its own), and
    nothing leaves the machine unless the environment says so.
    """

    jobs: Positive = 1
    processes: Positive = 1
    shard: bool = False
    token_budget: Positive | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: Positive = 200
    proofs: bool = True
    track: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()


class Published(Part):
    """Scores that others published of these models, shown beside this recipe's own as theirs.

    `scores` holds, by model and `task.metric`, figures as the table shows them (shares in percent);
    `source` says where they stand, `note` what a reader must know of them. None of it enters a
    fingerprint; a recipe that `--set` changes shows none.
    """

    source: str
    note: str | None = None
    scores: dict[Name, dict[str, float]]


class Recipe(Part):
    """A whole recipe. `origin` says where named sources come from."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 42
    origin: Literal["embedded"] | None = None
    data: dict[Name, Mixture]
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    evaluate: Evaluate = Evaluate()
    published: Published | None = None
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _published_of_its_models(self) -> Self:
        for name, scores in self.published.scores.items() if self.published else ():
            if name not in self.models:
                raise ValueError(f"`published` has scores of `{name}`, which is no model here")
            for key in scores:
                if key.partition(".")[0] not in (task.key for task in self.evaluate.tasks):
                    raise ValueError(f"`published` has `{key}` of {name}: no task is called so")
        return self

    @model_validator(mode="after")
    def _names_of_nodes_differ(self) -> Self:
        if taken := [name for name in self.models if name.startswith("data.")]:
            raise ValueError(f"a model may not be called `{taken[0]}`, as nodes of mixtures are")
        return self
