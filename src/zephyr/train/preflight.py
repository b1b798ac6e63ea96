"""Preflight checks before the first step: loss masks, packing, fresh adapter, gradients.

They take seconds and save hours of training. Loss masks are checked in all examples. The network is
checked on a few of them, with the layout, the precision and the token budget of the run, at the
cost of about three forward and backward passes. All state is restored to the last bit, random
numbers included, so that training after the preflight checks equals training without them.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.batching import collate, pack_batches
from zephyr.model.example import Example
from zephyr.model.model import Model
from zephyr.model.precision import rounding_tolerance
from zephyr.records import Record
from zephyr.system.devices import fork_rng
from zephyr.train.labels import check_labels, describe_example
from zephyr.train.loop import ExampleSplit

MAX_SAMPLES = 8
"""Examples on which the network is checked, at most."""

CHECKS = 5
"""Checks that `progress` counts: labels, packing, fresh adapter, loss at the start, gradients."""

CompletionLogprobs = list[list[NDArray[np.float32]]]
"""Log-probabilities [N] of each completion of each example."""


def preflight_checks(
    model: Model,
    split: ExampleSplit,
    *,
    seed: int,
    is_fresh_adapter: bool,
    record_of: Callable[[int], Record] | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Runs the preflight checks before a training; returns what they measured.

    Errors are the largest found: `packing_error` of an example's log-probabilities, in nats per
    token, `adapter_off_error` of a token's, `start_loss_error` of an example's loss. `matrices`
    counts the weights that get a gradient. `is_fresh_adapter` says that the topmost adapter
    is untrained; `record_of` is that of `check_labels`. `progress` gets the checks done, of all.

    Raises:
        ZephyrError: a check fails.
    """
    started = time.monotonic()
    progress(0, CHECKS)
    check_labels(split.examples, model.template, record_of)
    _check_trainable_weights(model)
    progress(1, CHECKS)
    indices = sample_indices(split.examples, seed, model.token_budget)
    sampled = ExampleSplit([split.examples[i] for i in indices], split.objective)
    measured: dict[str, Any] = {"examples": len(split.examples), "sampled": len(indices)}
    with fork_rng(model.device):
        torch.manual_seed(seed)
        # The longest example fills a row: with no larger budget, no row would hold two examples.
        budget = max(model.token_budget, 2 * sampled.examples[0].tree_length)
        roomy_model = replace(model, token_budget=budget)
        packed = roomy_model.logprobs(sampled.examples)
        measured["packing_error"] = _packing_error(model, sampled.examples, packed)
        progress(2, CHECKS)
        if is_fresh_adapter:
            measured["adapter_off_error"] = _adapter_off_error(
                roomy_model, sampled.examples, packed
            )
        progress(3, CHECKS)
        if split.objective.initial_loss is not None:
            measured["start_loss_error"] = _start_loss_error(
                model, sampled, indices, packed, lambda number: describe_example(number, record_of)
            )
        progress(4, CHECKS)
        measured["matrices"] = _count_weights_with_gradient(model, sampled, indices)
    return measured | {"seconds": round(time.monotonic() - started, 2)}


def sample_indices(examples: Sequence[Example], seed: int, token_budget: int) -> list[int]:
    """Indices of the longest example, the two shortest (which may share a row), and random others.

    The longest comes first. Others are taken while all together stay within `token_budget` tokens.
    """
    lengths = np.array([e.tree_length for e in examples])
    order = np.argsort(lengths, kind="stable").tolist()
    indices = list(dict.fromkeys([order[-1], *order[:2]]))
    for i in np.random.default_rng(seed).permutation(len(examples))[: 2 * MAX_SAMPLES].tolist():
        fits = lengths[indices].sum() + lengths[i] <= token_budget
        if len(indices) < MAX_SAMPLES and fits and i not in indices:
            indices.append(i)
    return indices


# -- log-probabilities ----------------------------------------------------------------------------


def _packing_error(model: Model, examples: Sequence[Example], packed: CompletionLogprobs) -> float:
    """Packing check: mean difference of packed and unpacked logprobs, of the worst example.

    In nats per token. The mean is over an example: one that attends to others differs in most of
    its tokens, while rounding errors average out.
    """
    single_completions = [Example(e.prompt, (c,)) for e in examples for c in e.completions]
    unpacked = iter(replace(model, layout="rows", token_budget=1).logprobs(single_completions))
    differences = []
    for parts in packed:
        unpacked_logprobs = np.concatenate([next(unpacked)[0] for _ in parts])
        differences.append(float(np.abs(np.concatenate(parts) - unpacked_logprobs).mean()))
    difference = max(differences)
    if not difference <= (allowed := rounding_tolerance(model.network)):
        raise ZephyrError(
            "a packed batch does not give the log-probabilities of its examples alone",
            where=f"layout {model.layout}, {len(examples)} examples of this run",
            found=f"a difference of {difference:.2g} nats per token",
            allowed=f"at most {allowed:g}",
            todo="take another base model, and report the architecture of this one",
        )
    return difference


def _adapter_off_error(
    model: Model, examples: Sequence[Example], adapter_on: CompletionLogprobs
) -> float:
    """Fresh-adapter check: largest difference in logprobs with the adapter on and off.

    B is zero: the adapter adds exact zeros, and no difference is rounding. DoRA alone multiplies by
    a norm and divides by it.
    """
    trainable = _expected_trainable(model)
    nonzero = [name for name, p in trainable.items() if ".lora_B." in name and bool(p.any())]
    if nonzero:
        raise ZephyrError(
            "a fresh adapter changes the model before it has learned anything",
            where=_module_names(nonzero),
            found="a B matrix that is not zero",
            todo="report this: training would start at another model than it says",
        )
    with adapter.disable_top_adapter(model.peft_model):
        adapter_off = model.logprobs(examples)
    difference = _largest_difference(adapter_on, adapter_off)
    is_dora = any("lora_magnitude_vector" in name for name in trainable)
    if not difference <= (allowed := rounding_tolerance(model.network) if is_dora else 0.0):
        raise ZephyrError(
            "the model with its fresh adapter switched off is not the model that it came from",
            where=f"{len(examples)} examples of this run",
            found=f"a difference of {difference:.2g} nats in a token, with all B matrices zero",
            allowed=f"at most {allowed:g}",
            todo="report the architecture of the base model and the `lora` of the recipe",
        )
    return difference


def _start_loss_error(
    model: Model,
    sampled: ExampleSplit,
    indices: Sequence[int],
    packed: CompletionLogprobs,
    name_of: Callable[[int], str],
) -> float:
    """Initial-loss check: difference from the loss where policy equals reference model.

    Where log-probabilities are off by the tolerance on average, with independent signs, the loss is
    off by that times the norm of its gradient in them; three times as much is allowed.
    """
    initial_loss = sampled.objective.initial_loss
    assert initial_loss is not None, "this is asked of objectives that have one"
    differences, allowed = [], []
    for example, index, parts in zip(sampled.examples, indices, packed, strict=True):
        logprobs = torch.from_numpy(np.concatenate(parts)).to(model.device).requires_grad_()
        batch = collate([example], model.layout).to(model.device)
        loss = sampled.objective.compute_loss(logprobs, batch, [index]).loss
        (gradient,) = torch.autograd.grad(loss, logprobs)
        differences.append(abs(float(loss.detach()) - initial_loss))
        allowed.append(3 * rounding_tolerance(model.network) * float(gradient.norm()))
    worst = int(np.argmax(np.array(differences) - allowed))
    if not differences[worst] <= allowed[worst]:
        raise ZephyrError(
            "the loss before the first step is not that of a model against itself",
            where=name_of(indices[worst]),
            found=f"a difference of {differences[worst]:.2g} from {initial_loss:.6g}",
            allowed=f"at most {allowed[worst]:.1g}",
            todo="remove the run's artifact/reference.safetensors: it is of another model or data",
        )
    return max(differences)


def _largest_difference(a: CompletionLogprobs, b: CompletionLogprobs) -> float:
    """Largest absolute difference of two sets of log-probabilities of the same completions."""
    flat = [np.concatenate([part for parts in each for part in parts]) for each in (a, b)]
    return float(np.abs(flat[0] - flat[1]).max())


# -- gradients ------------------------------------------------------------------------------------


def _expected_trainable(model: Model) -> dict[str, nn.Parameter]:
    """The parameters that should be trainable: those of the topmost adapter, or all."""
    peft_model = model.peft_model
    named_parameters = model.network.named_parameters()
    return {
        n: p
        for n, p in named_parameters
        if peft_model is None or adapter.is_top_adapter_parameter(peft_model, n)
    }


def _check_trainable_weights(model: Model) -> None:
    """Checks that exactly the expected parameters have `requires_grad`."""
    expected = _expected_trainable(model)
    actual = {n for n, p in model.network.named_parameters() if p.requires_grad}
    for wrong, problem in (
        ([n for n in actual if n not in expected], "a frozen weight is left trainable"),
        ([n for n in expected if n not in actual], "a weight that is to learn is frozen"),
    ):
        if wrong:
            raise ZephyrError(
                problem,
                where=_module_names(sorted(wrong)),
                found=f"{len(actual)} trainable weights",
                allowed=f"the {len(expected)} that are to learn",
                todo="report the architecture of the base model and the `lora` of the recipe",
            )


def _count_weights_with_gradient(
    model: Model, sampled: ExampleSplit, indices: Sequence[int]
) -> int:
    """Gradient check: each trainable weight gets a gradient; returns how many there are.

    While LoRA's B is zero A gets no gradient: A is checked with a random B in the meantime.
    """
    trainable = _expected_trainable(model)
    lora_a = {n: p for n, p in trainable.items() if ".lora_A." in n}
    others = {n: p for n, p in trainable.items() if n not in lora_a}
    missing = _weights_without_gradient(model, sampled, indices, others)
    if lora_a and not missing:
        saved = {p: p.detach().clone() for n, p in others.items() if ".lora_B." in n}
        with torch.no_grad():
            for matrix in saved:
                matrix.normal_(std=0.01)
        missing = _weights_without_gradient(model, sampled, indices, lora_a)
        with torch.no_grad():
            for matrix, original in saved.items():
                matrix.copy_(original)
    if missing:
        raise ZephyrError(
            "weights that are to learn get no gradient",
            where=_module_names(missing),
            found=f"{len(missing)} of {len(trainable)} with a gradient of exactly zero on "
            f"{len(indices)} examples of this run",
            todo="leave modules that these data do not reach out of `lora.targets`; "
            "where attention or the MLP is among them, report the base model and `load`",
        )
    return len(trainable)


def _weights_without_gradient(
    model: Model, sampled: ExampleSplit, indices: Sequence[int], weights: Mapping[str, nn.Parameter]
) -> list[str]:
    """The names of `weights` whose gradient is zero in every batch of the sampled examples."""
    missing = dict(weights)
    model.network.train()
    for micro_batch in pack_batches(sampled.examples, model.token_budget, model.layout):
        batch = collate([sampled.examples[i] for i in micro_batch], model.layout).to(model.device)
        batch_indices = [indices[i] for i in micro_batch]
        loss = sampled.objective.compute_loss(model.network(batch), batch, batch_indices).loss
        gradients = torch.autograd.grad(loss, tuple(missing.values()), allow_unused=True)
        pairs = zip(missing.items(), gradients, strict=True)
        missing = dict(
            item for item, gradient in pairs if gradient is None or not bool(gradient.any())
        )
        if not missing:
            break
    model.network.eval()
    return list(missing)


def _module_names(names: Collection[str]) -> str:
    """The modules that hold parameters of these names, shortened for an error message."""
    module_names = [name.removeprefix("causal.").removesuffix(".weight") for name in names]
    return ", ".join(module_names[:8]) + (
        f" and {len(module_names) - 8} more" if len(module_names) > 8 else ""
    )
