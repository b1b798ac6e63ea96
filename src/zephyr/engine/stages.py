"""What each kind of node does: reads finished runs, writes one new one.

Every stage is a function of a node, the runs that enter it and the place to write; it depends on
nothing else but the settings of the machine, which change no result beyond rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from zephyr.data import mixture, sources
from zephyr.data.contamination import Exams
from zephyr.evaluate.footprint import Footprint
from zephyr.evaluate.journal import Journal
from zephyr.evaluate.scoring import Result, run_task
from zephyr.evaluate.tasks import examples_of, find, sources_of
from zephyr.model.base import locate
from zephyr.model.load import Lineage, load
from zephyr.model.model import Model
from zephyr.model.precision import Dtype, choose, choose_for_evaluation
from zephyr.quantize.stage import quantize_model
from zephyr.recipe.data import MixtureSpec, SourceSpec, Use
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Kind, Record
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, read_json_lines, write_json, write_json_lines
from zephyr.train.loop import Interrupted
from zephyr.train.stages import align, pretrain, tune


def run_stage(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Makes the run of a node in `run`."""
    _STAGES[node.kind](node, inputs, run, context)


def _mixture(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    name = node.name.removeprefix("data.")
    spec = context.recipe.data[name]
    opened = [_open(s, spec.kind, "train", f"data.{name}", context) for s in spec.sources]
    asked = (
        (task.key, record)
        for task in context.recipe.evaluate.tasks
        for record in _asked(sources_of(task), task, context)[0]
    )
    exams = Exams(asked, spec.ngram)
    mixture.draw(spec, opened, seed=context.recipe.seed, exams=exams).write(run.artifact)


def _open(source: SourceSpec, kind: Kind, use: Use, where: str, context: Context) -> sources.Opened:
    origin, base = context.recipe.origin, context.folder
    return sources.open_source(source, kind=kind, use=use, origin=origin, base=base, where=where)


def _base(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    base = context.recipe.models[node.name].base
    assert base is not None
    lineage = Lineage(str(locate(base, context.folder, f"models.{node.name}.base")))
    load(lineage, context.store, token_budget=context.token_budget)
    lineage.write(run.artifact)


def _evaluation(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    settings = next(t for t in context.recipe.evaluate.tasks if t.key == node.task)
    if settings.is_footprint:
        _footprint(settings, inputs["model"], run, context)
        return
    if "data" in inputs:
        records: Sequence[Record] = mixture.load(inputs["data"].artifact).holdout
        asked = f"hold-out of {node.inputs['data'].removeprefix('data.')}"
    elif settings.is_foreign:
        records, asked = [], settings.path or "its own data"
        if settings.path is not None:
            settings = settings.model_copy(update={"path": str(context.folder / settings.path)})
    else:
        records, asked = _asked(sources_of(settings), settings, context)
    lineage = Lineage.read(inputs["model"].artifact)
    reference = inputs.get("reference")
    dtype = _dtype(lineage, reference, context)
    if reference:
        asked += f" · against {node.inputs['reference'].partition('/')[0]}"
    if dtype != "float32":
        asked += f" · {dtype}"
    examples = _asked(examples_of(settings), settings, context)[0]
    model = _loaded(lineage, context.store, context.token_budget, dtype)

    def progress(there: int, asked: int) -> None:
        context.progress(there, asked, {})
        if context.stop():
            raise Interrupted

    answers = run.path / "answers.jsonl"
    with Journal(model, answers, progress) as remembering:
        result = run_task(
            settings,
            records,
            remembering,
            split_label=asked,
            reference_items=_items(reference) if reference else None,
            examples=examples,
            seed=context.recipe.seed,
        )
    _write(result, run)
    answers.unlink()


def _footprint(settings: TaskSpec, model: Run, run: Run, context: Context) -> None:
    lineage = Lineage.read(model.artifact)
    wanted, folder = context.recipe.run.dtype, lineage.folder(context.store)
    dtype = context.settle("dtype", lambda: choose(wanted, folder))
    _loaded.cache_clear()  # the model of the last evaluation would count
    measured: Any = Footprint(lineage, context.store, dtype)
    seed = context.recipe.seed
    _write(run_task(settings, [], measured, split_label="random tokens", seed=seed), run)


def _write(result: Result, run: Run) -> None:
    write_json_lines(run.artifact / "items.jsonl", result.items)
    write_json(run.artifact / "scores.json", result.scores)


def _dtype(lineage: Lineage, reference: Run | None, context: Context) -> Dtype:
    """The dtype of an evaluation: that of its reference, for rewards compare the two."""

    def find() -> Dtype:
        if reference is not None:
            found: Dtype = reference.read("env.json")["dtype"]
            return found
        if lineage.load is not None:
            return "float32"  # what is not quantized of it
        return choose_for_evaluation(context.recipe.run.dtype, lineage.folder(context.store))

    settled: Dtype = context.settle("dtype", find)
    return settled


_STAGES: dict[str, Callable[[Node, Mapping[str, Run], Run, Context], None]] = {
    "mixture": _mixture,
    "base": _base,
    "pretrain": pretrain,
    "tune": tune,
    "align": align,
    "quantize": quantize_model,
    "evaluation": _evaluation,
}


def _asked(
    named: Sequence[SourceSpec], settings: TaskSpec, context: Context
) -> tuple[list[Record], str]:
    """The records of sources that a task asks or shows, and what to call them in its protocol."""
    where = f"evaluate.tasks.{settings.key}"
    records: list[Record] = []
    names = []
    for source in named:
        kind = find(settings.name).asks
        assert kind is not None, "only tasks that ask records have sources"
        opened = _open(source, kind, "exam", where, context)
        read, tally = sources.read(opened)
        tally.refuse_unreadable(MixtureSpec.model_fields["unreadable"].default)
        records += read
        made = "embedded" if sources.is_embedded(source, context.recipe.origin) else ""
        names.append(" ".join(filter(None, (made, opened.label, source.split))))
    return records, " + ".join(names)


@lru_cache(maxsize=1)
def _loaded(lineage: Lineage, store: Path, token_budget: int, dtype: Dtype) -> Model:
    """The model of the last evaluation: the next is usually of the same."""
    return load(lineage, store, token_budget=token_budget, dtype=dtype, form="answers")


def _items(run: Run) -> list[dict[str, Any]]:
    return read_json_lines(run.artifact / "items.jsonl")
