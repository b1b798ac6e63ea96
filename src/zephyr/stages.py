"""What each kind of node does: reads finished runs, writes one new one.

Every stage is a function of a node, the runs that enter it and the place to write; it depends on
nothing else but the settings of the machine, which change no result beyond rounding.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zephyr.data import mixture, sources
from zephyr.data.contamination import Exams
from zephyr.errors import ZephyrError
from zephyr.evaluate.task import find, run_task, sources_of
from zephyr.graph import Node
from zephyr.model import adapter, nano
from zephyr.model.base import locate
from zephyr.model.fork import Fork, fork
from zephyr.model.load import Lineage, Model, assemble, load, load_network
from zephyr.recipe import Align, Lora, Mixture, Optimization, Recipe, Source, Task, Tune, Use
from zephyr.records import Kind, Passage, Record
from zephyr.store import Run, read_json_lines, write_json, write_json_lines
from zephyr.train.examples import examples
from zephyr.train.loop import Pace, Split, train
from zephyr.train.objectives import Dpo, Objective, TokenLoss

Progress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True)
class Context:
    """What a stage needs beside its node: the recipe and its folder, the store, and the machine.

    `token_budget` is the tokens of one forward; `progress` hears (done, of, numbers).
    """

    recipe: Recipe
    folder: Path
    store: Path
    token_budget: int
    progress: Progress = lambda done, of, row: None
    stop: Callable[[], bool] = lambda: False
    notes: dict[str, Any] = field(default_factory=dict)
    """What a stage wants kept in `env.json`."""


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
        for record in _asked(task, context)[0]
    )
    exams = Exams(asked, spec.ngram)
    mixture.draw(spec, opened, seed=context.recipe.seed, exams=exams).write(run.artifact)


def _open(source: Source, kind: Kind, use: Use, where: str, context: Context) -> sources.Opened:
    origin, base = context.recipe.origin, context.folder
    return sources.open_source(source, kind=kind, use=use, origin=origin, base=base, where=where)


def _base(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    base = context.recipe.models[node.name].base
    assert base is not None
    lineage = Lineage(str(locate(base, context.folder, f"models.{node.name}.base")))
    load(lineage, context.store, token_budget=context.token_budget)
    lineage.write(run.artifact)


def _pretrain(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    spec = context.recipe.models[node.name].pretrain
    assert spec is not None
    records, held_out = mixture.load(inputs["data"].artifact)
    texts = [_text(r) for r in records]
    for role in sorted(inputs.keys() - {"data"}):
        texts += [_text(r) for r in mixture.load(inputs[role].artifact)[0]]
    tokenizer = nano.make_tokenizer(texts, spec.shape.vocabulary)
    end = tokenizer.eos_token_id
    causal = nano.make_network(spec.shape, end=end, seed=node.spec["seed"])
    model = assemble(causal, tokenizer, token_budget=context.token_budget)
    causal.requires_grad_(True)
    pieces = _pieces(records, tokenizer, spec.length, end)
    holdout = _pieces(held_out, tokenizer, spec.length, end)
    _train(model, pieces, holdout, TokenLoss(), TokenLoss(), spec, node, run, context)
    _save_whole(model, run.artifact / "weights")
    Lineage(_inside_store(run.artifact / "weights", context)).write(run.artifact)


def _tune(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    spec = context.recipe.models[node.name].tune
    assert spec is not None
    lineage = Lineage.read(inputs["from"].artifact)
    if spec.load is not None:
        if lineage.load not in (None, spec.load):
            raise ZephyrError(
                "this model is quantized already, and in another way",
                where=f"models.{node.name}.tune.load",
                found=spec.load,
                allowed=lineage.load,
            )
        lineage = Lineage(lineage.weights, spec.load, lineage.adapters)
    model = load(lineage, context.store, token_budget=context.token_budget)
    forks, holdout = _examples(model, inputs["data"], spec, run)
    if isinstance(spec.lora, Lora):
        _add_adapter(model, spec.lora, node)
    else:
        if model.wrapper is not None:
            model.network.causal = adapter.merge(model.wrapper)
        model.causal.requires_grad_(True)
    _train(model, forks, holdout, TokenLoss(), TokenLoss(), spec, node, run, context)
    if isinstance(spec.lora, Lora):
        _save_adapter(model, lineage, run, context)
    else:
        _save_whole(model, run.artifact / "weights")
        Lineage(_inside_store(run.artifact / "weights", context)).write(run.artifact)


def _align(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    spec = context.recipe.models[node.name].align
    assert spec is not None
    lineage = Lineage.read(inputs["from"].artifact)
    model = load(lineage, context.store, token_budget=context.token_budget)
    forks, holdout = _examples(model, inputs["data"], spec, run)
    reference, held_out = _reference(model, forks, holdout, run)
    _add_adapter(model, spec.lora, node)
    objectives = Dpo(spec.beta, reference), Dpo(spec.beta, held_out)
    _train(model, forks, holdout, *objectives, spec, node, run, context)
    _save_adapter(model, lineage, run, context)


def _quantize(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    method = context.recipe.models[node.name].quantize
    assert method is not None
    lineage = Lineage.read(inputs["from"].artifact)
    whole = Lineage(lineage.weights, None, lineage.adapters)
    model = load(whole, context.store, token_budget=context.token_budget)
    if model.wrapper is not None:
        model.network.causal = adapter.merge(model.wrapper)
    merged = run.path / "merged"
    _save_whole(model, merged)
    small = assemble(
        load_network(merged, method), model.tokenizer, token_budget=context.token_budget
    )
    _save_whole(small, run.artifact / "weights")
    shutil.rmtree(merged)
    Lineage(_inside_store(run.artifact / "weights", context), method).write(run.artifact)


def _evaluation(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    settings = next(t for t in context.recipe.evaluate.tasks if t.key == node.task)
    if "data" in inputs:
        records: Sequence[Record] = mixture.load(inputs["data"].artifact).holdout
        asked = f"hold-out of {node.inputs['data'].removeprefix('data.')}"
    else:
        records, asked = _asked(settings, context)
    lineage = Lineage.read(inputs["model"].artifact)
    reference = inputs.get("reference")
    if reference:
        asked += f" · against {node.inputs['reference'].partition('/')[0]}"
    result = run_task(
        settings,
        records,
        _loaded(lineage, context.store, context.token_budget),
        split_label=asked,
        reference_items=_items(reference) if reference else None,
        seed=context.recipe.seed,
    )
    write_json_lines(run.artifact / "items.jsonl", result.items)
    write_json(run.artifact / "scores.json", result.scores)


_STAGES: dict[str, Callable[[Node, Mapping[str, Run], Run, Context], None]] = {
    "mixture": _mixture,
    "base": _base,
    "pretrain": _pretrain,
    "tune": _tune,
    "align": _align,
    "quantize": _quantize,
    "evaluation": _evaluation,
}


def _asked(settings: Task, context: Context) -> tuple[list[Record], str]:
    """The records that a task asks, and what to call them in its protocol."""
    where = f"evaluate.tasks.{settings.key}"
    records: list[Record] = []
    names = []
    for source in sources_of(settings):
        opened = _open(source, find(settings.name).asks, "exam", where, context)
        read, tally = sources.read(opened)
        tally.refuse_unreadable(Mixture.model_fields["unreadable"].default)
        records += read
        made = "embedded" if sources.is_embedded(source, context.recipe.origin) else ""
        names.append(" ".join(filter(None, (made, opened.label, source.split))))
    return records, " + ".join(names)


@lru_cache(maxsize=1)
def _loaded(lineage: Lineage, store: Path, token_budget: int) -> Model:
    """The model of the last evaluation: the next is usually of the same."""
    return load(lineage, store, token_budget=token_budget)


# -- training -------------------------------------------------------------------------------------


def _train(
    model: Model,
    forks: Sequence[Fork],
    holdout: Sequence[Fork],
    objective: Objective,
    holdout_objective: Objective,
    spec: Optimization,
    node: Node,
    run: Run,
    context: Context,
) -> None:
    context.notes["layout"] = model.layout
    pace = Pace(
        model.layout,
        context.token_budget,
        context.recipe.run.checkpoint_every,
        context.progress,
        context.stop,
    )
    held_out = Split(holdout, holdout_objective) if holdout else None
    seed = node.spec["seed"]
    train(
        model.network,
        Split(forks, objective),
        held_out,
        spec,
        seed=seed,
        folder=run.path,
        pace=pace,
    )


def _examples(
    model: Model, data: Run, spec: Tune | Align, run: Run
) -> tuple[list[Fork], list[Fork]]:
    """The forks of a mixture, training and hold-out; their account is kept with the run."""
    train_forks, holdout, account = examples(
        model.template, mixture.load(data.artifact), spec, model.context
    )
    write_json(run.artifact / "examples.json", account)
    return train_forks, holdout


def _reference(
    model: Model, forks: Sequence[Fork], holdout: Sequence[Fork], run: Run
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Summed log-probabilities [examples, 2] under the model before its first step; kept."""
    from safetensors.numpy import load_file, save_file

    path = run.artifact / "reference.safetensors"
    if not path.exists():
        both = model.logprobs([*forks, *holdout])
        sums = np.array([[side.sum() for side in sides] for sides in both], dtype=np.float32)
        temporary = path.with_suffix(".tmp")
        save_file({"train": sums[: len(forks)], "holdout": sums[len(forks) :]}, temporary)
        temporary.replace(path)
    saved = load_file(path)
    return saved["train"], saved["holdout"]


def _add_adapter(model: Model, lora: Lora, node: Node) -> None:
    model.wrapper = adapter.add_fresh(model.causal, model.wrapper, lora, node.spec["seed"])


def _pieces(records: Sequence[Record], tokenizer: Any, length: int, end: int) -> list[Fork]:
    """Passages, each between two end tokens, in pieces of `length` predictions.

    No piece holds two passages: what stands in one is never looked at in another. That all start
    with one token gives attention a place to rest from the first step on (see the log).
    """
    if not records:
        return []
    passages = tokenizer([_text(r) for r in records], add_special_tokens=False)["input_ids"]
    whole = (np.array([end, *passage, end], dtype=np.int32) for passage in passages)
    return [
        fork(tokens[at : at + 1], tokens[at + 1 : at + 1 + length])
        for tokens in whole
        for at in range(0, len(tokens) - 1, length)
    ]


def _text(record: Record) -> str:
    """All that is written in a record, for a tokenizer or a language model."""
    if isinstance(record, Passage):
        return record.text
    return "\n".join(text for _, text in record.content[0])


# -- files ----------------------------------------------------------------------------------------


def _inside_store(path: Path, context: Context) -> str:
    """Where a finished run will hold what is being written at `path`."""
    inside = path.relative_to(context.store)
    return "/".join(part.removesuffix(".part") for part in inside.parts)


def _save_whole(model: Model, folder: Path) -> None:
    model.causal.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def _save_adapter(model: Model, lineage: Lineage, run: Run, context: Context) -> None:
    folder = run.artifact / "adapter"
    adapter.save(model.wrapper, folder, Path(lineage.weights).name)
    model.tokenizer.save_pretrained(folder)
    lineage.with_adapter(_inside_store(folder, context)).write(run.artifact)


def _items(run: Run) -> list[dict[str, Any]]:
    return read_json_lines(run.artifact / "items.jsonl")
