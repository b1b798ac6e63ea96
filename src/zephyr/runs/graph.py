"""The graph of a recipe: a DAG of nodes with fingerprints, in topological order.

Each node is one run, with its inputs. Building the graph is pure: the same recipe, stage versions
and file contents give the same fingerprints, on every machine.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from zephyr.errors import ZephyrError, unknown_name_error
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.evaluation import TaskSpec
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.schema import Recipe
from zephyr.records import RecordKind

NodeKind = Literal["mixture", "base", "pretrain", "tune", "align", "quantize", "evaluation"]


@dataclass(frozen=True)
class Node:
    """A node of the graph: one run, with its `spec` and the names of its `inputs` by role."""

    name: str
    kind: NodeKind
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    fingerprint: str = ""
    parent: str | None = None
    """The parent model of a model."""
    is_exclusive: bool = False
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


class ContentResolver:
    """Resolves what fingerprints depend on besides the recipe: stage versions, content hashes.

    `source` and `base` return JSON values (hashes, revisions) that change when the content does,
    and `task_content` those of a task that brings its own data; `task_record_kind` is the kind of
    records that a task asks. `content_hash` returns the hash of the records that a mixture holds,
    as far as it is known.
    """

    def __init__(
        self,
        *,
        version: Callable[[str], int],
        source: Callable[[SourceSpec, Use, str], dict[str, Any]],
        base: Callable[[str, str], dict[str, Any]],
        task_sources: Callable[[TaskSpec], tuple[SourceSpec, ...]],
        task_record_kind: Callable[[TaskSpec], RecordKind | None],
        few_shot_sources: Callable[[TaskSpec], tuple[SourceSpec, ...]] = lambda task: (),
        task_content: Callable[[TaskSpec], dict[str, Any]] = lambda task: {},
        content_hash: Callable[["Node"], str | None] = lambda node: None,
    ) -> None:
        self.version = version
        self.source = source
        self.base = base
        self.task_sources = task_sources
        self.task_record_kind = task_record_kind
        self.few_shot_sources = few_shot_sources
        self.task_content = task_content
        self.content_hash = content_hash


def fingerprint(value: Any) -> str:
    """The fingerprint of a JSON value: 20 hex digits of SHA-256 over its canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def build_graph(recipe: Recipe, resolver: ContentResolver) -> dict[str, Node]:
    """Builds all nodes of a recipe by name, in topological order, with their fingerprints.

    A mixture counts in the fingerprints of its dependents by the hash of its records, as far as it
    is known: a change that gives the same records (one more task to decontaminate for, say) makes
    nothing else stale.

    Raises:
        ZephyrError: an unknown name, or a cycle.
    """
    unordered = [
        *(_mixture_node(recipe, name, resolver) for name in recipe.data),
        *(_model_node(recipe, name, resolver) for name in recipe.models),
    ]
    _check_keep_best(recipe)
    _topological_order(
        {node.name: node for node in unordered}
    )  # reference models need a graph without cycles
    _check_thinking(recipe)
    unordered.sort(key=lambda node: node.kind != "base")  # refused before any data is read
    by_name = {node.name: node for node in [*unordered, *_evaluation_nodes(recipe, resolver)]}
    fingerprinted: dict[str, Node] = {}
    for name in _topological_order(by_name):
        node = by_name[name]
        inputs = {
            role: _input_hash(fingerprinted[used], resolver) for role, used in node.inputs.items()
        }
        version = resolver.version(
            f"task:{_find_task(recipe, node).name}" if node.task else node.kind
        )
        node_fingerprint = fingerprint([node.kind, version, node.spec, inputs])
        fingerprinted[name] = Node(**{**vars(node), "fingerprint": node_fingerprint})
    return fingerprinted


def _input_hash(node: Node, resolver: ContentResolver) -> str:
    """What an input adds to a fingerprint: a mixture's content hash, else its fingerprint."""
    content_hash = resolver.content_hash(node) if node.kind == "mixture" else None
    return content_hash or node.fingerprint


def _find_task(recipe: Recipe, node: Node) -> TaskSpec:
    return next(task for task in recipe.evaluate.tasks if task.key == node.task)


def _topological_order(nodes: dict[str, Node]) -> Iterable[str]:
    """Names of the nodes in topological order: inputs before dependents."""
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


def _mixture_node(recipe: Recipe, name: str, resolver: ContentResolver) -> Node:
    mixture = recipe.data[name]
    where = f"data.{name}"
    exam_contents = [
        resolver.source(source, "exam", f"evaluate.tasks.{task.key}")
        for task in recipe.evaluate.tasks
        for source in resolver.task_sources(task)
    ]
    spec = mixture.spec() | {
        "seed": recipe.seed,
        "content": [resolver.source(source, "train", where) for source in mixture.sources],
        "exams": exam_contents,
    }
    return Node(f"data.{name}", "mixture", spec, {})


def _typed_mixture(recipe: Recipe, name: str, kind: str, where: str) -> str:
    """The node name of a mixture, checked to be of the right kind."""
    if name not in recipe.data:
        raise unknown_name_error(
            "mixture", name, recipe.data, where=where, todo="name one under `data:`"
        )
    if (found := recipe.data[name].kind) != kind:
        raise ZephyrError(
            f"mixture {name!r} is of the wrong kind", where=where, found=found, allowed=kind
        )
    return f"data.{name}"


def _model_node(recipe: Recipe, name: str, resolver: ContentResolver) -> Node:
    model, where = recipe.models[name], f"models.{name}"
    if model.base is not None:
        spec = resolver.base(model.base, f"{where}.base")
        return Node(name, "base", spec | ({"thinking": "on"} if model.thinking == "on" else {}), {})
    if model.pretrain is not None:
        where = f"{where}.pretrain"
        extra = {
            f"tokenizer_data.{d}": _any_mixture(recipe, d, f"{where}.tokenizer_data")
            for d in model.pretrain.tokenizer_data
        }
        inputs = {"data": _typed_mixture(recipe, model.pretrain.data, "passage", where), **extra}
        return Node(name, "pretrain", _seeded_spec(recipe, model.pretrain.spec()), inputs)
    assert model.from_ is not None, "the recipe has checked that a model has one origin"
    if model.from_ not in recipe.models:
        raise unknown_name_error("model", model.from_, recipe.models, where=f"{where}.from")
    inputs = {"from": model.from_}
    if model.tune is not None:
        inputs["data"] = _typed_mixture(recipe, model.tune.data, "chat", f"{where}.tune.data")
        return Node(
            name, "tune", _seeded_spec(recipe, model.tune.spec()), inputs, parent=model.from_
        )
    if model.align is not None:
        inputs["data"] = _typed_mixture(recipe, model.align.data, "pair", f"{where}.align.data")
        return Node(
            name, "align", _seeded_spec(recipe, model.align.spec()), inputs, parent=model.from_
        )
    assert model.quantize is not None, "the recipe has checked that a model has one act"
    if model.quantize.data is not None:
        inputs["data"] = _any_mixture(recipe, model.quantize.data, f"{where}.quantize.data")
    if (text := holdout_mixture(recipe, model.from_)) is not None:
        inputs["text"] = f"data.{text}"
    spec = {key: value for key, value in model.quantize.spec().items() if key != "data"}
    if model.quantize.method == "int8":
        spec["weights"] = "packed"  # runs before it were bitsandbytes'
    return Node(name, "quantize", spec, inputs, parent=model.from_)


def holdout_mixture(recipe: Recipe, name: str) -> str | None:
    """The mixture whose hold-out measures the KL divergence of a quantized model.

    It is the last mixture with a hold-out that the model was trained on; None if there is none.
    """
    seen: set[str] = set()  # a cycle is reported later
    ancestor: str | None = name
    while ancestor is not None and ancestor in recipe.models and ancestor not in seen:
        seen.add(ancestor)
        model = recipe.models[ancestor]
        training = model.pretrain or model.tune or model.align
        if training and training.data in recipe.data and recipe.data[training.data].holdout:
            return training.data
        ancestor = model.from_
    return None


def _any_mixture(recipe: Recipe, name: str, where: str) -> str:
    if name not in recipe.data:
        raise unknown_name_error("mixture", name, recipe.data, where=where)
    return f"data.{name}"


def _seeded_spec(recipe: Recipe, spec: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in spec.items() if key not in ("data", "tokenizer_data")}
    if kept.get("overlong") == "cut":
        kept["cut"] = "within markers"  # runs before it lost the system message
    return kept | {"seed": recipe.seed}


def _check_keep_best(recipe: Recipe) -> None:
    for name, model in recipe.models.items():
        for stage, spec in (
            ("pretrain", model.pretrain),
            ("tune", model.tune),
            ("align", model.align),
        ):
            if spec and spec.keep != "last" and not recipe.data[spec.data].holdout:
                raise ZephyrError(
                    "without a hold-out no evaluation is the best",
                    where=f"models.{name}.{stage}",
                    found=f"keep: {spec.keep}",
                    todo=f"set data.{spec.data}.holdout, or `keep: last`",
                )


def _check_thinking(recipe: Recipe) -> None:
    for name, model in recipe.models.items():
        ancestor = model
        while ancestor.from_ is not None:
            ancestor = recipe.models[ancestor.from_]
        if ancestor.thinking == "on" and (model.tune or model.align):
            raise ZephyrError(
                "a model that thinks can't be trained: the answers of the data hold no thoughts",
                where=f"models.{name}",
                found="thinking: on",
                todo="set `thinking: off` beside its `base`, or only evaluate and serve it",
            )


def reference_model(models: Mapping[str, ModelSpec], name: str) -> str | None:
    """The reference model (DPO, reward accuracy) of a model; None for a base model.

    It is the parent, from which `tune` or `align` started; a quantized model has the reference
    model of its parent.
    """
    model = models[name]
    if model.from_ is None:
        return None
    return reference_model(models, model.from_) if model.quantize else model.from_


def _evaluation_nodes(recipe: Recipe, resolver: ContentResolver) -> list[Node]:
    names = recipe.evaluate.models
    for name in names or ():
        if name not in recipe.models:
            raise unknown_name_error("model", name, recipe.models, where="evaluate.models")
    nodes: dict[str, Node] = {}
    for task in recipe.evaluate.tasks:
        if any(node.task == task.key for node in nodes.values()):
            raise ZephyrError(
                f"task {task.key!r} is named twice",
                where="evaluate.tasks",
                todo="give one of them a `label`",
            )
        for name in names or recipe.models:
            _add_evaluation(recipe, task, name, resolver, nodes)
    return list(nodes.values())


def _add_evaluation(
    recipe: Recipe, task: TaskSpec, name: str, resolver: ContentResolver, nodes: dict[str, Node]
) -> str:
    key = f"{name}/{task.key}"
    if key in nodes:
        return key
    where = f"evaluate.tasks.{task.key}"
    sources = resolver.task_sources(task)
    spec = task.spec() | {"seed": recipe.seed}
    spec.pop("label", None)
    if few_shot_sources := resolver.few_shot_sources(task):
        spec["shown"] = [resolver.source(source, "exam", where) for source in few_shot_sources]
    inputs = {"model": name}
    if task.is_foreign:
        spec["content"] = resolver.task_content(task)
        spec.pop("path", None)
    elif task.is_footprint:
        del spec["seed"]
    elif sources:
        spec["content"] = [resolver.source(source, "exam", where) for source in sources]
    else:
        if task.data is None:
            raise ZephyrError(
                f"task {task.key!r} needs to know what to ask",
                where=where,
                todo="name a mixture with `data:`, whose hold-out is asked, or give `sources:`",
            )
        kind = resolver.task_record_kind(task)
        assert kind is not None, "a task without sources asks records of one kind"
        inputs["data"] = _typed_mixture(recipe, task.data, kind, where)
        if not recipe.data[task.data].holdout:
            raise ZephyrError(
                f"mixture {task.data!r} has no hold-out for task {task.key!r} to ask",
                where=where,
                todo=f"set data.{task.data}.holdout, such as 0.1",
            )
        spec.pop("data", None)
    if task.name == "preferences" and (reference := reference_model(recipe.models, name)):
        inputs["reference"] = _add_evaluation(recipe, task, reference, resolver, nodes)
    nodes[key] = Node(
        key, "evaluation", spec, inputs, is_exclusive=task.is_footprint, task=task.key, model=name
    )
    return key
