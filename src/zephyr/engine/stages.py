"""Stages: the function of each node kind; reads finished input runs, writes one new run.

Every stage is a function of a node, its input runs and its output run; it depends on nothing else
but the settings of the machine, which change no result beyond rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.data import mixture, sources
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.evaluation_records import read_evaluation_records, reading_notes
from zephyr.errors import ZephyrError
from zephyr.evaluate.caching_model import CachingModel
from zephyr.evaluate.footprint import FootprintBenchmark
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.evaluate.tasks import get_task, resolve_few_shot_sources, resolve_sources
from zephyr.model.base_model import locate_base_model
from zephyr.model.gguf_base import SUFFIX as GGUF_SUFFIX
from zephyr.model.gguf_base import convert_gguf
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.model.precision import Dtype, choose_dtype, choose_evaluation_dtype
from zephyr.model.probe import check_generation
from zephyr.model.text_part import text_part_note
from zephyr.quantize.stage import quantize_model
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.evaluation import TaskSpec
from zephyr.recipe.schema import Recipe
from zephyr.records import Record, RecordKind
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, read_json_lines, write_json, write_json_lines
from zephyr.train.loop import RunInterrupted
from zephyr.train.stages import align, pretrain, tune


def run_stage(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Runs the stage of a node's kind, which writes the node's run."""
    _STAGES[node.kind](node, inputs, run, context)


def _build_mixture(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Stage `mixture`: draws records from the sources, decontaminated and deduplicated."""
    name = node.name.removeprefix("data.")
    spec = context.recipe.data[name]
    opened_sources = [
        _open_source(s, spec.kind, "train", f"data.{name}", context) for s in spec.sources
    ]
    for note in (note for opened in opened_sources for note in reading_notes(opened)):
        context.notify(note)
    task_records = (
        (task.key, record)
        for task in context.recipe.evaluate.tasks
        for record in _read_task_records(resolve_sources(task), task, context).records
    )
    question_index = EvalQuestionIndex(task_records, spec.ngram)
    built = mixture.build_mixture(
        spec, opened_sources, seed=context.recipe.seed, question_index=question_index
    )
    for note in mixture.size_notes(built.split, name):
        context.notify(note)
    built.write(run.artifact)


def _open_source(
    source: SourceSpec, kind: RecordKind, use: Use, where: str, context: Context
) -> sources.OpenedSource:
    origin, base = context.recipe.origin, context.folder
    return sources.open_source(source, kind=kind, use=use, origin=origin, base=base, where=where)


def _check_base(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Stage `base`: loads a base model once, to check that it is supported."""
    spec = context.recipe.models[node.name]
    assert spec.base is not None
    folder = locate_base_model(spec.base, context.folder, f"models.{node.name}.base")
    weights = str(folder)
    if (file := folder).suffix == GGUF_SUFFIX:
        context.notify(f"its weights are those of {file.name}, dequantized")
        context.progress("dequantizing", 0, 0, {})
        folder = run.artifact / "weights"
        convert_gguf(file, folder)
        weights = context.store_path(folder)
    lineage = Lineage(weights, thinking=spec.thinking)
    context.progress("loading the model", 0, 0, {})
    current = replace(lineage, weights=str(folder))
    model = load_model(current, context.store, token_budget=context.token_budget)
    for setting in model.template.settings:
        context.notify(setting)
    if note := text_part_note(folder):
        context.notify(note)
    _check_base_generates(model, node.name, context)
    lineage.write(run.artifact)


def _check_base_generates(model: Model, base: str, context: Context) -> None:
    """Checks that a base can generate text; one that can't is only trained and ranked.

    Raises:
        ZephyrError: it can't, and a task asks it, or a model made of it, to write.
    """
    try:
        check_generation(model)
    except ZephyrError as error:
        recipe = context.recipe
        asked = recipe.evaluate.models or tuple(recipe.models)
        names = [name for name in asked if _origin(recipe, name) == base]
        tasks = [
            task.key
            for task in recipe.evaluate.tasks
            if not task.is_foreign and get_task(task.name).generates
        ]
        if names and tasks:
            raise ZephyrError(
                "a task asks a model to write whose base can't generate text here",
                where=f"models.{base}.base",
                found=f"{', '.join(tasks)} of {', '.join(names)}: {error.problem}",
                todo="leave these tasks out, or name the models that are asked in "
                "`evaluate.models`, or use another base model",
            ) from error
        context.notify(f"{error.problem}: it is trained and ranked, without sample generations")


def _origin(recipe: Recipe, name: str) -> str:
    """The model that a model comes from in the end: itself, where it comes from no other."""
    while (parent := recipe.models[name].from_) is not None:
        name = parent
    return name


def _evaluate(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Stage `evaluation`: scores a model on a task; answers are journaled, so that it resumes."""
    settings = next(t for t in context.recipe.evaluate.tasks if t.key == node.task)
    if settings.is_footprint:
        _measure_footprint(settings, inputs["model"], run, context)
        return
    unreadable_count = 0
    if "data" in inputs:
        records: Sequence[Record] = mixture.load_mixture(inputs["data"].artifact).holdout
        split_label = f"hold-out of {node.inputs['data'].removeprefix('data.')}"
    elif settings.is_foreign:
        records, split_label = [], settings.path or "its own data"
        if settings.path is not None:
            settings = settings.model_copy(update={"path": str(context.folder / settings.path)})
    else:
        task_records = _read_task_records(resolve_sources(settings), settings, context)
        records, split_label = task_records.records, task_records.label
        unreadable_count = task_records.unreadable_count
        for note in task_records.notes:
            context.notify(note)
    lineage = Lineage.read(inputs["model"].artifact)
    reference = inputs.get("reference")
    dtype = _resolve_dtype(lineage, reference, context)
    if reference:
        split_label += f" · against {node.inputs['reference'].partition('/')[0]}"
    if dtype != "float32":
        split_label += f" · {dtype}"
    examples = _read_task_records(resolve_few_shot_sources(settings), settings, context).records
    context.progress("loading the model", 0, 0, {})
    model = _load_cached(lineage, context.store, context.token_budget, dtype)

    def progress(done: int, total: int) -> None:
        context.progress("evaluating", done, total, {})
        if context.should_stop():
            raise RunInterrupted

    journal_path = run.path / "answers.jsonl"
    with CachingModel(model, journal_path, progress) as journaled_model:
        result = run_task(
            settings,
            records,
            journaled_model,
            split_label=split_label,
            reference_items=_read_items(reference) if reference else None,
            few_shot_examples=examples,
            seed=context.recipe.seed,
        )
    if unreadable_count:
        result.scores["counts"]["can't be read"] = unreadable_count
    _write_result(result, run)
    journal_path.unlink()


def _measure_footprint(settings: TaskSpec, model: Run, run: Run, context: Context) -> None:
    """Measures the footprint task: bytes of weights, tokens per second."""
    lineage = Lineage.read(model.artifact)
    requested_dtype, folder = context.recipe.run.dtype, lineage.weights_folder(context.store)
    dtype = context.resolve_once("dtype", lambda: choose_dtype(requested_dtype, folder))
    _load_cached.cache_clear()  # the cached model would count in peak memory
    context.progress("measuring throughput", 0, 0, {})
    footprint: Any = FootprintBenchmark(lineage, context.store, dtype)
    seed = context.recipe.seed
    _write_result(run_task(settings, [], footprint, split_label="random tokens", seed=seed), run)


def _write_result(result: EvalResult, run: Run) -> None:
    write_json_lines(run.artifact / "items.jsonl", result.items)
    write_json(run.artifact / "scores.json", result.scores)


def _resolve_dtype(lineage: Lineage, reference: Run | None, context: Context) -> Dtype:
    """The dtype of an evaluation: that of its reference, since rewards compare the two."""

    def compute() -> Dtype:
        if reference is not None:
            found: Dtype = reference.read("env.json")["dtype"]
            return found
        if lineage.quantization is not None:
            return "float32"  # what is not quantized of it
        return choose_evaluation_dtype(
            context.recipe.run.dtype, lineage.weights_folder(context.store)
        )

    dtype: Dtype = context.resolve_once("dtype", compute)
    return dtype


_STAGES: dict[str, Callable[[Node, Mapping[str, Run], Run, Context], None]] = {
    "mixture": _build_mixture,
    "base": _check_base,
    "pretrain": pretrain,
    "tune": tune,
    "align": align,
    "quantize": quantize_model,
    "evaluation": _evaluate,
}


class _TaskRecords(NamedTuple):
    """The records of a task, the label of their splits, and what was left out of its sources."""

    records: list[Record]
    label: str
    unreadable_count: int
    notes: list[str]


def _read_task_records(
    task_sources: Sequence[SourceSpec], settings: TaskSpec, context: Context
) -> _TaskRecords:
    """Reads the records of a task's sources or few-shot examples."""
    where = f"evaluate.tasks.{settings.key}"
    names, parts = [], []
    for source in task_sources:
        kind = get_task(settings.name).record_kind
        assert kind is not None, "only tasks that ask records have sources"
        opened = _open_source(source, kind, "exam", where, context)
        parts.append(read_evaluation_records(opened, settings.unreadable))
        origin = "embedded" if sources.is_embedded(source, context.recipe.origin) else ""
        names.append(" ".join(filter(None, (origin, opened.label, source.split))))
    return _TaskRecords(
        [record for part in parts for record in part.records],
        " + ".join(names),
        sum(part.unreadable_count for part in parts),
        [note for part in parts for note in part.notes],
    )


@lru_cache(maxsize=1)
def _load_cached(lineage: Lineage, store: Path, token_budget: int, dtype: Dtype) -> Model:
    """Loads a model for evaluation; the last one is cached, for the next is usually the same."""
    return load_model(lineage, store, token_budget=token_budget, dtype=dtype, form="inference")


def _read_items(run: Run) -> list[dict[str, Any]]:
    return read_json_lines(run.artifact / "items.jsonl")
