"""The graph of a recipe: which runs there must be, and what goes into each.

Building it is pure: the same recipe, stage versions and file contents give the same fingerprints,
on every machine.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from zephyr.errors import ZephyrError, unknown
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.evaluation import TaskSpec
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.schema import Recipe

NodeKind = Literal["mixture", "base", "pretrain", "tune", "align", "quantize", "evaluation"]


@dataclass(frozen=True)
class Node:
    """One run to be made: `spec` and the nodes in `inputs` (role to name) are all that enters."""

    name: str
    kind: NodeKind
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    fingerprint: str = ""
    parent: str | None = None
    """The model that a model comes from."""
    alone: bool = False
    """Whether nothing else may run beside it, since it measures time."""
    task: str | None = None
    model: str | None = None
    """The task and the model of an evaluation."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "from": self.parent,
            "task": self.task,
            "model": self.model,
            "spec": dict(self.spec),
            "inputs": dict(self.inputs),
        }


class Describer:
    """What the graph has to ask of the world: stage versions, and what a source or base holds.

    `source` and `base` return JSON values that change when the content behind them does, and
    `task_content` those of a task that brings its own data. `drawn`
    returns the hash of the records that a mixture holds, as far as it is known.
    """

    def __init__(
        self,
        *,
        version: Callable[[str], int],
        source: Callable[[SourceSpec, Use, str], dict[str, Any]],
        base: Callable[[str, str], dict[str, Any]],
        task_sources: Callable[[TaskSpec], tuple[SourceSpec, ...]],
        task_examples: Callable[[TaskSpec], tuple[SourceSpec, ...]] = lambda task: (),
        task_content: Callable[[TaskSpec], dict[str, Any]] = lambda task: {},
        drawn: Callable[["Node"], str | None] = lambda node: None,
    ) -> None:
        self.version = version
        self.source = source
        self.base = base
        self.task_sources = task_sources
        self.task_examples = task_examples
        self.task_content = task_content
        self.drawn = drawn


def fingerprint(value: Any) -> str:
    """Twenty hex digits of SHA-256 over the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def build(recipe: Recipe, describe: Describer) -> dict[str, Node]:
    """All nodes of a recipe by name, every one after its inputs, with their fingerprints.

    A mixture enters what learns from it by its records, as far as these are known: a change that
    leaves them as they are (one more task to look for, say) makes nothing else again.

    Raises:
        ZephyrError: a name that is not there, or a cycle.
    """
    made = [
        *(_mixture(recipe, name, describe) for name in recipe.data),
        *(_model(recipe, name, describe) for name in recipe.models),
    ]
    _refuse_best_of_nothing(recipe)
    _order({node.name: node for node in made})  # references are found only where there is no circle
    by_name = {node.name: node for node in [*made, *_evaluations(recipe, describe)]}
    finished: dict[str, Node] = {}
    for name in _order(by_name):
        node = by_name[name]
        inputs = {role: _content(finished[used], describe) for role, used in node.inputs.items()}
        version = describe.version(f"task:{_task(recipe, node).name}" if node.task else node.kind)
        mark = fingerprint([node.kind, version, node.spec, inputs])
        finished[name] = Node(**{**vars(node), "fingerprint": mark})
    return finished


def _content(node: Node, describe: Describer) -> str:
    known = describe.drawn(node) if node.kind == "mixture" else None
    return known or node.fingerprint


def _task(recipe: Recipe, node: Node) -> TaskSpec:
    return next(task for task in recipe.evaluate.tasks if task.key == node.task)


def _order(nodes: dict[str, Node]) -> Iterable[str]:
    try:
        return list(
            TopologicalSorter({n: node.inputs.values() for n, node in nodes.items()}).static_order()
        )
    except CycleError as error:
        raise ZephyrError(
            "the models of this recipe come from each other in a circle",
            found=" -> ".join(error.args[1]),
            todo="give one of them a `base` or `pretrain`",
        ) from None


def _mixture(recipe: Recipe, name: str, describe: Describer) -> Node:
    mixture = recipe.data[name]
    where = f"data.{name}"
    exams = [
        describe.source(source, "exam", f"evaluate.tasks.{task.key}")
        for task in recipe.evaluate.tasks
        for source in describe.task_sources(task)
    ]
    spec = mixture.spec() | {
        "seed": recipe.seed,
        "content": [describe.source(source, "train", where) for source in mixture.sources],
        "exams": exams,
    }
    return Node(f"data.{name}", "mixture", spec, {})


def _data(recipe: Recipe, name: str, kind: str, where: str) -> str:
    if name not in recipe.data:
        raise unknown("mixture", name, recipe.data, where=where, todo="name one under `data:`")
    if (found := recipe.data[name].kind) != kind:
        raise ZephyrError(
            f"mixture {name!r} is of the wrong kind", where=where, found=found, allowed=kind
        )
    return f"data.{name}"


def _model(recipe: Recipe, name: str, describe: Describer) -> Node:
    model, where = recipe.models[name], f"models.{name}"
    if model.base is not None:
        return Node(name, "base", describe.base(model.base, f"{where}.base"), {})
    if model.pretrain is not None:
        where = f"{where}.pretrain"
        extra = {
            f"tokenizer_data.{d}": _any_data(recipe, d, f"{where}.tokenizer_data")
            for d in model.pretrain.tokenizer_data
        }
        inputs = {"data": _data(recipe, model.pretrain.data, "passage", where), **extra}
        return Node(name, "pretrain", _seeded(recipe, model.pretrain.spec()), inputs)
    assert model.from_ is not None, "the recipe has checked that a model has one origin"
    if model.from_ not in recipe.models:
        raise unknown("model", model.from_, recipe.models, where=f"{where}.from")
    inputs = {"from": model.from_}
    if model.tune is not None:
        inputs["data"] = _data(recipe, model.tune.data, "chat", f"{where}.tune.data")
        return Node(name, "tune", _seeded(recipe, model.tune.spec()), inputs, parent=model.from_)
    if model.align is not None:
        inputs["data"] = _data(recipe, model.align.data, "pair", f"{where}.align.data")
        return Node(name, "align", _seeded(recipe, model.align.spec()), inputs, parent=model.from_)
    assert model.quantize is not None, "the recipe has checked that a model has one act"
    if model.quantize.data is not None:
        inputs["data"] = _any_data(recipe, model.quantize.data, f"{where}.quantize.data")
    if (text := held_out_text(recipe, model.from_)) is not None:
        inputs["text"] = f"data.{text}"
    spec = {key: value for key, value in model.quantize.spec().items() if key != "data"}
    return Node(name, "quantize", spec, inputs, parent=model.from_)


def held_out_text(recipe: Recipe, name: str) -> str | None:
    """The mixture on whose hold-out a quantized model is compared with the one it comes from.

    It is the last one with a hold-out that the model learned from; None where there is none.
    """
    seen: set[str] = set()  # a circle is told of later
    at: str | None = name
    while at is not None and at in recipe.models and at not in seen:
        seen.add(at)
        model = recipe.models[at]
        learning = model.pretrain or model.tune or model.align
        if learning and learning.data in recipe.data and recipe.data[learning.data].holdout:
            return learning.data
        at = model.from_
    return None


def _any_data(recipe: Recipe, name: str, where: str) -> str:
    if name not in recipe.data:
        raise unknown("mixture", name, recipe.data, where=where)
    return f"data.{name}"


def _seeded(recipe: Recipe, spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in ("data", "tokenizer_data")} | {
        "seed": recipe.seed
    }


def _refuse_best_of_nothing(recipe: Recipe) -> None:
    for name, model in recipe.models.items():
        for act, spec in (
            ("pretrain", model.pretrain),
            ("tune", model.tune),
            ("align", model.align),
        ):
            if spec and spec.keep != "last" and not recipe.data[spec.data].holdout:
                raise ZephyrError(
                    "without a hold-out no evaluation is the best",
                    where=f"models.{name}.{act}",
                    found=f"keep: {spec.keep}",
                    todo=f"set data.{spec.data}.holdout, or `keep: last`",
                )


def reference_of(models: Mapping[str, ModelSpec], name: str) -> str | None:
    """The model whose log-probabilities rewards are measured against; None for a base.

    It is the start of the last `tune` or `align` on the way to the model; a quantized model has
    the reference of the one that it came from.
    """
    model = models[name]
    if model.from_ is None:
        return None
    return reference_of(models, model.from_) if model.quantize else model.from_


def _evaluations(recipe: Recipe, describe: Describer) -> list[Node]:
    names = recipe.evaluate.models
    for name in names or ():
        if name not in recipe.models:
            raise unknown("model", name, recipe.models, where="evaluate.models")
    nodes: dict[str, Node] = {}
    for task in recipe.evaluate.tasks:
        if any(node.task == task.key for node in nodes.values()):
            raise ZephyrError(
                f"task {task.key!r} is named twice",
                where="evaluate.tasks",
                todo="give one of them a `label`",
            )
        for name in names or recipe.models:
            _evaluation(recipe, task, name, describe, nodes)
    return list(nodes.values())


def _evaluation(
    recipe: Recipe, task: TaskSpec, name: str, describe: Describer, nodes: dict[str, Node]
) -> str:
    key = f"{name}/{task.key}"
    if key in nodes:
        return key
    where = f"evaluate.tasks.{task.key}"
    sources = describe.task_sources(task)
    spec = task.spec() | {"seed": recipe.seed}
    spec.pop("label", None)
    if shown := describe.task_examples(task):
        spec["shown"] = [describe.source(source, "exam", where) for source in shown]
    inputs = {"model": name}
    if task.is_foreign:
        spec["content"] = describe.task_content(task)
        spec.pop("path", None)
    elif task.is_footprint:
        del spec["seed"]
    elif sources:
        spec["content"] = [describe.source(source, "exam", where) for source in sources]
    else:
        if task.data is None:
            raise ZephyrError(
                f"task {task.key!r} needs to know what to ask",
                where=where,
                todo="name a mixture with `data:`, whose hold-out is asked, or give `sources:`",
            )
        inputs["data"] = _data(recipe, task.data, "pair", where)
        spec.pop("data", None)
    if task.name == "preferences" and (reference := reference_of(recipe.models, name)):
        inputs["reference"] = _evaluation(recipe, task, reference, describe, nodes)
    nodes[key] = Node(
        key, "evaluation", spec, inputs, alone=task.is_footprint, task=task.key, model=name
    )
    return key
