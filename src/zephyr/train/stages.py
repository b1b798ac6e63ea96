"""What `pretrain`, `tune` and `align` do: examples, an objective, the loop, and what it made."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zephyr.data import mixture
from zephyr.distributed.process_group import Group
from zephyr.errors import ZephyrError
from zephyr.model import adapter, nano, precision
from zephyr.model.fork import Fork
from zephyr.model.load import Form, Lineage, assemble, load
from zephyr.model.model import Model
from zephyr.recipe.training import Align, Lora, Optimization, Tune
from zephyr.records import Record
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, write_json
from zephyr.train import budget
from zephyr.train.canary import Canary, choose
from zephyr.train.examples import examples, pieces, text_of
from zephyr.train.loop import Pace, Split, train
from zephyr.train.objectives import Preference, TokenLoss
from zephyr.train.proofs import prove
from zephyr.train.reference import reference
from zephyr.train.tracking import Tracking

DIVIDED = "skipped: weights are divided"
"""In place of what looks at whole weights."""


def pretrain(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """A tokenizer and a network from nothing."""
    spec = context.recipe.models[node.name].pretrain
    assert spec is not None
    records, held_out = mixture.load(inputs["data"].artifact)
    texts = [text_of(r) for r in records]
    for role in sorted(inputs.keys() - {"data"}):
        texts += [text_of(r) for r in mixture.load(inputs[role].artifact)[0]]
    tokenizer = nano.make_tokenizer(texts, spec.shape.vocabulary)
    end = tokenizer.eos_token_id
    causal = nano.make_network(spec.shape, end=end, seed=node.spec["seed"])
    model = assemble(causal, tokenizer, token_budget=context.token_budget)
    causal.requires_grad_(True)
    context.settle("dtype", lambda: "float32")
    whole = Split(pieces(records, tokenizer, spec.length, end), TokenLoss())
    holdout = Split(pieces(held_out, tokenizer, spec.length, end), TokenLoss())
    _train(model, whole, holdout, None, spec, node, run, context)
    if context.group.is_main:
        _save_whole(model, run, context)


def tune(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Supervised fine-tuning of an adapter, or of all weights."""
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
    model = _loaded(lineage, context, spec.lora)
    forks, holdout, record_of = _examples(model, inputs["data"], spec, run, context.group)
    if isinstance(spec.lora, Lora):
        _add_adapter(model, spec.lora, node)
    else:
        model.merge()
        model.causal.requires_grad_(True)
    splits = Split(forks, TokenLoss()), Split(holdout, TokenLoss())
    _train(model, *splits, record_of, spec, node, run, context, spec.canary_tokens)
    if not context.group.is_main:
        return
    if isinstance(spec.lora, Lora):
        _save_adapter(model, lineage, run, context)
    else:
        _save_whole(model, run, context)


def align(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Preference optimization, mostly against the model as it was before the first step."""
    spec = context.recipe.models[node.name].align
    assert spec is not None
    lineage = Lineage.read(inputs["from"].artifact)
    beneath = _beneath(lineage, spec, node)
    model = _loaded(lineage, context, spec.lora)
    forks, holdout, record_of = _examples(model, inputs["data"], spec, run, context.group)
    train_sums = holdout_sums = None
    if spec.has_reference:
        path, name = run.artifact / "reference.safetensors", inputs["from"].path.name
        sums = reference(model, name, [*forks, *holdout], path, context.stop, context.group)
        train_sums, holdout_sums = np.split(sums, [len(forks)])
    if spec.adapter == "fresh":
        _add_adapter(model, spec.lora, node)
    else:
        adapter.train_top(model.wrapper)
    whole = Split(forks, Preference(spec, train_sums))
    held_out = Split(holdout, Preference(spec, holdout_sums), holdout_sums)
    _train(model, whole, held_out, record_of, spec, node, run, context, spec.canary_tokens)
    if context.group.is_main:
        _save_adapter(model, beneath, run, context)


def _beneath(lineage: Lineage, spec: Align, node: Node) -> Lineage:
    """What lies under the adapter that will learn: all, or all but the topmost adapter."""
    if spec.adapter == "fresh":
        return lineage
    if not lineage.adapters:
        raise ZephyrError(
            "there is no adapter to continue",
            where=f"models.{node.name}.align.adapter",
            found=f"{node.parent} has none",
            todo="set `adapter: fresh`",
        )
    return replace(lineage, adapters=lineage.adapters[:-1])


def _train(
    model: Model,
    whole: Split,
    holdout: Split,
    record_of: Callable[[int], Record] | None,
    spec: Optimization,
    node: Node,
    run: Run,
    context: Context,
    canary_tokens: int = 0,
) -> None:
    """Trains after the proofs; a run that goes on from a checkpoint has had them."""
    if spec.keep != "last" and not holdout.forks:
        raise ZephyrError(
            "without a hold-out no evaluation is the best",
            where=f"models.{node.name}",
            found=f"keep: {spec.keep}, and no held out example that fits the model",
            todo=f"raise data.{spec.data}.holdout or `max_length`",
        )
    group, machine, seed = context.group, context.recipe.run, node.spec["seed"]
    if spec.keep != "last" and group.divides:
        raise ZephyrError(
            "no copy is kept of weights that are divided",
            where=f"models.{node.name}",
            found=f"keep: {spec.keep}, and run.shard",
            todo="set `keep: last`, or `run.shard: false` and begin anew",
        )
    model.layout = context.settle("layout", lambda: model.layout)
    cut = budget.Budget(
        **context.settle(
            "budget",
            lambda: budget.choose(
                model, whole.forks, _shares(model, context), machine.token_budget
            )._asdict(),
        )
    )
    if cut.checkpointing:
        budget.checkpoint_layers(model)
    model.token_budget = cut.tokens
    if not group.share(any((run.path / "checkpoints").glob("step-*"))):
        continues = isinstance(spec, Align) and spec.adapter == "continue"
        fresh = model.wrapper is not None and not continues
        context.keep(
            "proofs",
            "skipped by --no-proofs"
            if not machine.proofs
            else DIVIDED
            if group.divides
            else prove(model, whole, seed=seed, fresh=fresh, record_of=record_of),
        )
    watch = None
    if canary_tokens and group.divides:
        context.keep("canary", DIVIDED)
    elif group.is_main:
        watch = _canary(model, holdout.forks or whole.forks, canary_tokens, seed, run)
    followed = machine.track if group.is_main else ()
    tracking = Tracking(followed, run.path, context.recipe.name, node.name)

    def progress(step: int, steps: int, row: dict[str, Any]) -> None:
        context.progress(step, steps, row)
        tracking.follow()

    pace = Pace(
        model.layout,
        cut.tokens,
        machine.checkpoint_every,
        progress,
        context.stop,
        context.tell,
        group,
    )
    with closing(tracking):
        kept = train(
            model.network,
            whole,
            holdout if holdout.forks else None,
            spec,
            seed=seed,
            folder=run.path,
            pace=pace,
            watch=watch,
        )
    if spec.keep != "last":
        context.keep("kept_step", kept)


def _shares(model: Model, context: Context) -> int:
    """How many trainings have equal parts of this device's memory."""
    if context.group.size == 1:
        return context.recipe.run.jobs
    return context.group.here if model.device.type == "cpu" else 1


def _canary(model: Model, forks: Sequence[Fork], most: int, seed: int, run: Run) -> Canary | None:
    """A canary with answers of at most `most` tokens; its prompts are kept with the run."""
    prompts = choose(forks, seed, model.context) if most else []
    if not prompts:
        return None
    canary = Canary(model, prompts, most)
    write_json(run.artifact / "canary.json", canary.asked)
    return canary


def _loaded(lineage: Lineage, context: Context, lora: Lora | Literal["none"]) -> Model:
    """The model that is to learn; weights that learn themselves do so in float32."""
    wanted = "float32" if lora == "none" or lineage.load else context.recipe.run.dtype
    folder = lineage.folder(context.store)
    dtype = context.settle("dtype", lambda: precision.choose(wanted, folder))
    whole = lora == "none" or lora.dora or context.group.divides
    form: Form = "computed" if whole else "adapts"
    return load(lineage, context.store, token_budget=context.token_budget, dtype=dtype, form=form)


def _examples(
    model: Model, data: Run, spec: Tune | Align, run: Run, group: Group
) -> tuple[Sequence[Fork], Sequence[Fork], Callable[[int], Record]]:
    """The forks of a mixture, training and hold-out, and a way to the records of the first.

    Their account is kept with the run.
    """
    train_forks, holdout, account, numbers = examples(
        model.template, mixture.load(data.artifact), spec, model.context
    )
    if group.is_main:
        write_json(run.artifact / "examples.json", account)

    def record_of(example: int) -> Record:
        return mixture.load(data.artifact).train[numbers[example]]

    return train_forks, holdout, record_of


def _add_adapter(model: Model, lora: Lora, node: Node) -> None:
    model.wrapper = adapter.add_fresh(model.causal, model.wrapper, lora, node.spec["seed"])


def _save_adapter(model: Model, lineage: Lineage, run: Run, context: Context) -> None:
    folder = run.artifact / "adapter"
    adapter.save(model.wrapper, folder, Path(lineage.weights).name)
    model.tokenizer.save_pretrained(folder)
    lineage.with_adapter(context.inside_store(folder)).write(run.artifact)


def _save_whole(model: Model, run: Run, context: Context) -> None:
    folder = run.artifact / "weights"
    model.save(folder)
    Lineage(context.inside_store(folder)).write(run.artifact)
