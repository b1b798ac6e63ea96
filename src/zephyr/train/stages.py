"""Training stages `pretrain`, `tune` (SFT), `align` (DPO ...): data, objective, loop, output."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zephyr.data import mixture
from zephyr.errors import ZephyrError
from zephyr.model import adapter, from_scratch, precision
from zephyr.model.example import Example
from zephyr.model.load import Lineage, WeightForm, build_model, load_model
from zephyr.model.model import Model
from zephyr.recipe.training import Align, Lora, Optimization, Tune
from zephyr.records import Record
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, write_json
from zephyr.train import budget
from zephyr.train.examples import build_examples, chunk_passages, record_text
from zephyr.train.loop import ExampleSplit, LoopOptions, train
from zephyr.train.objectives import PreferenceLoss, TokenLoss
from zephyr.train.preflight import preflight_checks
from zephyr.train.reference import compute_reference_logprobs
from zephyr.train.sample_generations import SampleGenerations, choose_prompts
from zephyr.train.tracking import MetricTrackers

SKIPPED_SHARDED = "skipped: weights are divided"
"""Recorded in place of results that need unsharded weights."""


def pretrain(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Stage `pretrain`: trains a tokenizer and a network from scratch (language modeling)."""
    spec = context.recipe.models[node.name].pretrain
    assert spec is not None
    records, holdout_records = mixture.load_mixture(inputs["data"].artifact)
    texts = [record_text(r) for r in records]
    for role in sorted(inputs.keys() - {"data"}):
        texts += [record_text(r) for r in mixture.load_mixture(inputs[role].artifact)[0]]
    context.progress("training the tokenizer", 0, 0, {})
    tokenizer = from_scratch.train_tokenizer(texts, spec.shape.vocabulary)
    eos_token_id = tokenizer.eos_token_id
    causal = from_scratch.make_network(
        spec.shape, eos_token_id=eos_token_id, seed=node.spec["seed"]
    )
    model = build_model(causal, tokenizer, token_budget=context.token_budget)
    causal.requires_grad_(True)
    context.resolve_once("dtype", lambda: "float32")
    train_split = ExampleSplit(
        chunk_passages(records, tokenizer, spec.length, eos_token_id), TokenLoss()
    )
    holdout_split = ExampleSplit(
        chunk_passages(holdout_records, tokenizer, spec.length, eos_token_id), TokenLoss()
    )
    _train(model, train_split, holdout_split, None, spec, node, run, context)
    if context.group.is_main:
        _save_full_model(model, run, context)


def tune(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Stage `tune`: supervised fine-tuning (SFT) of a LoRA adapter (QLoRA too), or all weights."""
    spec = context.recipe.models[node.name].tune
    assert spec is not None
    lineage = Lineage.read(inputs["from"].artifact)
    if spec.load is not None:
        if lineage.quantization not in (None, spec.load):
            raise ZephyrError(
                "this model is quantized already, and in another way",
                where=f"models.{node.name}.tune.load",
                found=spec.load,
                allowed=lineage.quantization,
            )
        lineage = replace(lineage, quantization=spec.load)
    model = _load_for_training(lineage, context, spec.lora)
    train_examples, holdout_examples, record_of = _load_examples(
        model, inputs["data"], spec, run, context
    )
    if isinstance(spec.lora, Lora):
        _add_adapter(model, spec.lora, node)
    else:
        model.merge_adapters()
        model.causal.requires_grad_(True)
    splits = ExampleSplit(train_examples, TokenLoss()), ExampleSplit(holdout_examples, TokenLoss())
    _train(model, *splits, record_of, spec, node, run, context, spec.canary_tokens)
    if not context.group.is_main:
        return
    if isinstance(spec.lora, Lora):
        _save_adapter(model, lineage, run, context)
    else:
        _save_full_model(model, run, context)


def align(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Stage `align`: preference optimization (DPO, IPO, SimPO, ORPO) with a LoRA adapter."""
    spec = context.recipe.models[node.name].align
    assert spec is not None
    lineage = Lineage.read(inputs["from"].artifact)
    lineage_below = _lineage_below_adapter(lineage, spec, node)
    model = _load_for_training(lineage, context, spec.lora)
    train_examples, holdout_examples, record_of = _load_examples(
        model, inputs["data"], spec, run, context
    )
    train_logprobs = holdout_logprobs = None
    if spec.has_reference:
        path, model_fingerprint = run.artifact / "reference.safetensors", inputs["from"].path.name
        reference_logprobs = compute_reference_logprobs(
            model,
            model_fingerprint,
            [*train_examples, *holdout_examples],
            path,
            context.should_stop,
            context.group,
            lambda done, total: context.progress("reference log-probabilities", done, total, {}),
        )
        train_logprobs, holdout_logprobs = np.split(reference_logprobs, [len(train_examples)])
    if spec.adapter == "fresh":
        _add_adapter(model, spec.lora, node)
    else:
        adapter.train_top_adapter(model.peft_model)
    train_split = ExampleSplit(train_examples, PreferenceLoss(spec, train_logprobs))
    holdout_split = ExampleSplit(
        holdout_examples, PreferenceLoss(spec, holdout_logprobs), holdout_logprobs
    )
    _train(
        model, train_split, holdout_split, record_of, spec, node, run, context, spec.canary_tokens
    )
    if context.group.is_main:
        _save_adapter(model, lineage_below, run, context)


def _lineage_below_adapter(lineage: Lineage, spec: Align, node: Node) -> Lineage:
    """The lineage below the adapter that is trained: all, or all but the topmost adapter."""
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
    train_split: ExampleSplit,
    holdout_split: ExampleSplit,
    record_of: Callable[[int], Record] | None,
    spec: Optimization,
    node: Node,
    run: Run,
    context: Context,
    canary_tokens: int = 0,
) -> None:
    """Runs preflight checks (unless resumed), then the training loop with all callbacks."""
    if spec.keep != "last" and not holdout_split.examples:
        raise ZephyrError(
            "without a hold-out no evaluation is the best",
            where=f"models.{node.name}",
            found=f"keep: {spec.keep}, and no held out example that fits the model",
            todo=f"raise data.{spec.data}.holdout or `max_length`",
        )
    if model.peft_model is not None:
        _record_reach(model, context)
    group, run_options, seed = context.group, context.recipe.run, node.spec["seed"]
    if spec.keep != "last" and group.is_sharded:
        raise ZephyrError(
            "no copy is kept of weights that are divided",
            where=f"models.{node.name}",
            found=f"keep: {spec.keep}, and run.shard",
            todo="set `keep: last`, or `run.shard: false` and begin anew",
        )
    model.layout = context.resolve_once("layout", lambda: model.layout)
    context.progress("choosing a token budget", 0, 0, {})
    token_budget = budget.TokenBudget(
        **context.resolve_once(
            "budget",
            lambda: budget.choose_token_budget(
                model,
                train_split.examples,
                _memory_shares(model, context),
                run_options.token_budget,
            )._asdict(),
        )
    )
    if token_budget.checkpointing:
        budget.enable_gradient_checkpointing(model)
    model.token_budget = token_budget.tokens
    if not group.broadcast(any((run.path / "checkpoints").glob("step-*"))):
        continues_adapter = isinstance(spec, Align) and spec.adapter == "continue"
        is_fresh_adapter = model.peft_model is not None and not continues_adapter
        context.record(
            "proofs",
            "skipped by --no-proofs"
            if not run_options.proofs
            else SKIPPED_SHARDED
            if group.is_sharded
            else preflight_checks(
                model,
                train_split,
                seed=seed,
                is_fresh_adapter=is_fresh_adapter,
                record_of=record_of,
                progress=lambda done, total: context.progress("preflight checks", done, total, {}),
            ),
        )
    eval_callback = None
    if canary_tokens and group.is_sharded:
        context.record("canary", SKIPPED_SHARDED)
    elif group.is_main:
        eval_callback = _sample_generations(
            model, holdout_split.examples or train_split.examples, canary_tokens, seed, run, context
        )
    tracker_names = run_options.track if group.is_main else ()
    trackers = MetricTrackers(tracker_names, run.path, context.recipe.name, node.name)

    def progress(phase: str, done: int, total: int, row: dict[str, Any]) -> None:
        context.progress(phase, done, total, row)
        if row:
            trackers.log_new_rows()

    options = LoopOptions(
        model.layout,
        token_budget.tokens,
        run_options.checkpoint_every,
        progress,
        context.should_stop,
        context.notify,
        group,
    )
    with closing(trackers):
        kept_step = train(
            model.network,
            train_split,
            holdout_split if holdout_split.examples else None,
            spec,
            seed=seed,
            folder=run.path,
            options=options,
            eval_callback=eval_callback,
        )
    if spec.keep != "last":
        context.record("kept_step", kept_step)


def _record_reach(model: Model, context: Context) -> None:
    """Records how many of the weight matrices LoRA reaches; says so where they are not all."""
    reach = adapter.top_adapter_reach(model.peft_model)
    context.record("lora_reach", reach.row)
    if reach.unreached is not None:
        context.notify(f"LoRA reaches {reach.text}")


def _memory_shares(model: Model, context: Context) -> int:
    """Among how many trainings or ranks the memory of this device is split."""
    if context.group.world_size == 1:
        return context.recipe.run.jobs
    return context.group.local_world_size if model.device.type == "cpu" else 1


def _sample_generations(
    model: Model,
    candidates: Sequence[Example],
    max_new_tokens: int,
    seed: int,
    run: Run,
    context: Context,
) -> SampleGenerations | None:
    """The sample-generation callback; its prompts are written to the run. None without prompts."""
    prompts = choose_prompts(candidates, seed, model.context_length) if max_new_tokens else []
    if not prompts:
        return None

    def on_failure(reason: str) -> None:
        context.record("canary", f"none: {reason}")
        context.notify(f"no sample generations from here on, training goes on: {reason}")

    generations = SampleGenerations(model, prompts, max_new_tokens, on_failure)
    write_json(run.artifact / "canary.json", generations.prompt_texts)
    return generations


def _load_for_training(lineage: Lineage, context: Context, lora: Lora | Literal["none"]) -> Model:
    """Loads the model to be trained; full fine-tuning is in float32."""
    requested_dtype = (
        "float32" if lora == "none" or lineage.quantization else context.recipe.run.dtype
    )
    folder = lineage.weights_folder(context.store)
    dtype = context.resolve_once("dtype", lambda: precision.choose_dtype(requested_dtype, folder))
    context.progress("loading the model", 0, 0, {})
    needs_full_weights = lora == "none" or lora.dora or context.group.is_sharded
    form: WeightForm = "dequantized" if needs_full_weights else "adapter-training"
    return load_model(
        lineage, context.store, token_budget=context.token_budget, dtype=dtype, form=form
    )


def _load_examples(
    model: Model, data: Run, spec: Tune | Align, run: Run, context: Context
) -> tuple[Sequence[Example], Sequence[Example], Callable[[int], Record]]:
    """Builds the training and hold-out examples of a mixture, and a lookup of their records.

    Their summary is written to the run.
    """
    context.progress("tokenizing", 0, 0, {})
    train_examples, holdout_examples, summary, record_indices = build_examples(
        model.template, mixture.load_mixture(data.artifact), spec, model.context_length
    )
    if context.group.is_main:
        write_json(run.artifact / "examples.json", summary)

    def record_of(example: int) -> Record:
        return mixture.load_mixture(data.artifact).train[record_indices[example]]

    return train_examples, holdout_examples, record_of


def _add_adapter(model: Model, lora: Lora, node: Node) -> None:
    """Adds a trainable LoRA adapter to the model."""
    model.peft_model = adapter.add_trainable_adapter(
        model.causal, model.peft_model, lora, node.spec["seed"]
    )


def _save_adapter(model: Model, lineage: Lineage, run: Run, context: Context) -> None:
    """Saves the trained adapter, its tokenizer and the lineage into the run."""
    folder = run.artifact / "adapter"
    adapter.save_adapter(model.peft_model, folder, Path(lineage.weights).name)
    model.tokenizer.save_pretrained(folder)
    lineage.with_adapter(context.store_path(folder)).write(run.artifact)


def _save_full_model(model: Model, run: Run, context: Context) -> None:
    """Saves all weights, the tokenizer and the lineage into the run."""
    folder = run.artifact / "weights"
    model.save(folder)
    Lineage(context.store_path(folder)).write(run.artifact)
