"""What must hold before the first step: seconds of looking that save hours of training.

Labels are looked at in all examples. The network is looked at on a few of them, with the layout,
the precision and the token budget of the run, at the cost of about three of its forwards and
backwards. What is tried out is put back to the last bit, random numbers included, so that training
after the proofs equals training without them.
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
from zephyr.model.fork import Fork
from zephyr.model.layout import lay_out, pack
from zephyr.model.model import Model
from zephyr.model.precision import rounding
from zephyr.records import Record
from zephyr.train.labels import place, refuse_wrong_labels
from zephyr.train.loop import Split

SAMPLED = 8
"""Examples on which the network is looked at, at most."""

LogProbs = list[list[NDArray[np.float32]]]


def prove(
    model: Model,
    data: Split,
    *,
    seed: int,
    fresh: bool,
    record_of: Callable[[int], Record] | None,
) -> dict[str, Any]:
    """What was measured in the proofs of a training that is about to start.

    Errors are the largest found: `packing_error` of an example's log-probabilities, in nats per
    token, `adapter_off_error` of a token's, `start_loss_error` of an example's loss. `matrices`
    counts the weights that get a gradient. `fresh` says that the topmost adapter has learned
    nothing yet; `record_of` is that of `refuse_wrong_labels`.

    Raises:
        ZephyrError: one of them fails.
    """
    started = time.monotonic()
    refuse_wrong_labels(data.forks, model.template, record_of)
    _refuse_wrong_weights(model)
    members = sample(data.forks, seed, model.token_budget)
    few = Split([data.forks[i] for i in members], data.objective)
    figures: dict[str, Any] = {"examples": len(data.forks), "sampled": len(members)}
    devices = [] if model.device.type == "cpu" else [model.device]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        # The longest fork fills a row: no other row would be shared where the budget ends with it.
        budget = max(model.token_budget, 2 * few.forks[0].length)
        roomy = replace(model, token_budget=budget)
        packed = roomy.logprobs(few.forks)
        figures["packing_error"] = _packing_error(model, few.forks, packed)
        if fresh:
            figures["adapter_off_error"] = _adapter_off_error(roomy, few.forks, packed)
        if data.objective.start is not None:
            figures["start_loss_error"] = _start_loss_error(
                model, few, members, packed, lambda number: place(number, record_of)
            )
        figures["matrices"] = _matrices_reached(model, few, members)
    return figures | {"seconds": round(time.monotonic() - started, 2)}


def sample(forks: Sequence[Fork], seed: int, budget: int) -> list[int]:
    """The longest fork, the two shortest (which share a row if any do), and others by `seed`.

    The longest comes first. Others are taken while all together stay within `budget` tokens.
    """
    lengths = np.array([f.length for f in forks])
    order = np.argsort(lengths, kind="stable").tolist()
    members = list(dict.fromkeys([order[-1], *order[:2]]))
    for i in np.random.default_rng(seed).permutation(len(forks))[: 2 * SAMPLED].tolist():
        fits = lengths[members].sum() + lengths[i] <= budget
        if len(members) < SAMPLED and fits and i not in members:
            members.append(i)
    return members


# -- log-probabilities ----------------------------------------------------------------------------


def _packing_error(model: Model, forks: Sequence[Fork], packed: LogProbs) -> float:
    """The difference between examples packed with others and by themselves, in nats per token.

    The largest mean over an example: who sees others differs in most of its tokens, while rounding
    spreads.
    """
    single = [Fork(f.prompt, (c,)) for f in forks for c in f.continuations]
    alone = iter(replace(model, layout="rows", token_budget=1).logprobs(single))
    gaps = []
    for parts in packed:
        by_itself = np.concatenate([next(alone)[0] for _ in parts])
        gaps.append(float(np.abs(np.concatenate(parts) - by_itself).mean()))
    gap = max(gaps)
    if not gap <= (allowed := rounding(model.network)):
        raise ZephyrError(
            "a packed batch does not give the log-probabilities of its examples alone",
            where=f"layout {model.layout}, {len(forks)} examples of this run",
            found=f"a difference of {gap:.2g} nats per token",
            allowed=f"at most {allowed:g}",
            todo="take another base model, and report the architecture of this one",
        )
    return gap


def _adapter_off_error(model: Model, forks: Sequence[Fork], fresh: LogProbs) -> float:
    """The difference between the model with its fresh adapter and the model that it came from.

    B is zero: the adapter adds exact zeros, and no difference is rounding. DoRA alone multiplies by
    a norm and divides by it.
    """
    learning = _learning(model)
    grown = [name for name, p in learning.items() if ".lora_B." in name and bool(p.any())]
    if grown:
        raise ZephyrError(
            "a fresh adapter changes the model before it has learned anything",
            where=_modules(grown),
            found="a B matrix that is not zero",
            todo="report this: training would start at another model than it says",
        )
    with adapter.without_top(model.wrapper):
        off = model.logprobs(forks)
    gap = _largest_difference(fresh, off)
    is_dora = any("lora_magnitude_vector" in name for name in learning)
    if not gap <= (allowed := rounding(model.network) if is_dora else 0.0):
        raise ZephyrError(
            "the model with its fresh adapter switched off is not the model that it came from",
            where=f"{len(forks)} examples of this run",
            found=f"a difference of {gap:.2g} nats in a token, with all B matrices zero",
            allowed=f"at most {allowed:g}",
            todo="report the architecture of the base model and the `lora` of the recipe",
        )
    return gap


def _start_loss_error(
    model: Model,
    few: Split,
    members: Sequence[int],
    packed: LogProbs,
    name_of: Callable[[int], str],
) -> float:
    """The difference between an example's loss and what it is where policy equals reference.

    Where log-probabilities are off by the tolerance on average, with independent signs, the loss is
    off by that times the root of the sum of its squared slopes; three times as much is allowed.
    """
    start = few.objective.start
    assert start is not None, "this is asked of objectives that have one"
    gaps, allowed = [], []
    for fork, number, parts in zip(few.forks, members, packed, strict=True):
        logprobs = torch.from_numpy(np.concatenate(parts)).to(model.device).requires_grad_()
        batch = lay_out([fork], model.layout).to(model.device)
        loss = few.objective.terms(logprobs, batch, [number]).loss
        (slope,) = torch.autograd.grad(loss, logprobs)
        gaps.append(abs(float(loss.detach()) - start))
        allowed.append(3 * rounding(model.network) * float(slope.norm()))
    worst = int(np.argmax(np.array(gaps) - allowed))
    if not gaps[worst] <= allowed[worst]:
        raise ZephyrError(
            "the loss before the first step is not that of a model against itself",
            where=name_of(members[worst]),
            found=f"a difference of {gaps[worst]:.2g} from {start:.6g}",
            allowed=f"at most {allowed[worst]:.1g}",
            todo="remove the run's artifact/reference.safetensors: it is of another model or data",
        )
    return max(gaps)


def _largest_difference(a: LogProbs, b: LogProbs) -> float:
    """Of two lists of the same continuations, however they are grouped."""
    flat = [np.concatenate([part for parts in each for part in parts]) for each in (a, b)]
    return float(np.abs(flat[0] - flat[1]).max())


# -- gradients ------------------------------------------------------------------------------------


def _learning(model: Model) -> dict[str, nn.Parameter]:
    """The parameters that are to learn: those of the topmost adapter, or all."""
    wrapper = model.wrapper
    named = model.network.named_parameters()
    return {n: p for n, p in named if wrapper is None or adapter.is_top(wrapper, n)}


def _refuse_wrong_weights(model: Model) -> None:
    """Autograd gives a gradient to no weight that does not ask for one."""
    learning = _learning(model)
    asking = {n for n, p in model.network.named_parameters() if p.requires_grad}
    for wrong, problem in (
        ([n for n in asking if n not in learning], "a frozen weight is left trainable"),
        ([n for n in learning if n not in asking], "a weight that is to learn is frozen"),
    ):
        if wrong:
            raise ZephyrError(
                problem,
                where=_modules(sorted(wrong)),
                found=f"{len(asking)} trainable weights",
                allowed=f"the {len(learning)} that are to learn",
                todo="report the architecture of the base model and the `lora` of the recipe",
            )


def _matrices_reached(model: Model, few: Split, members: Sequence[int]) -> int:
    """How many weights learn, after all have been seen to get a gradient.

    While B is zero no gradient passes it: A is looked at with B changed for the time.
    """
    learning = _learning(model)
    behind = {n: p for n, p in learning.items() if ".lora_A." in n}
    first = {n: p for n, p in learning.items() if n not in behind}
    missing = _unreached(model, few, members, first)
    if behind and not missing:
        kept = {p: p.detach().clone() for n, p in first.items() if ".lora_B." in n}
        with torch.no_grad():
            for matrix in kept:
                matrix.normal_(std=0.01)
        missing = _unreached(model, few, members, behind)
        with torch.no_grad():
            for matrix, zeros in kept.items():
                matrix.copy_(zeros)
    if missing:
        raise ZephyrError(
            "weights that are to learn get no gradient",
            where=_modules(missing),
            found=f"{len(missing)} of {len(learning)} with a gradient of exactly zero on "
            f"{len(members)} examples of this run",
            todo="leave modules that these data do not reach out of `lora.targets`; "
            "where attention or the MLP is among them, report the base model and `load`",
        )
    return len(learning)


def _unreached(
    model: Model, few: Split, members: Sequence[int], wanted: Mapping[str, nn.Parameter]
) -> list[str]:
    """The names of `wanted` whose gradient is zero in every batch of a few examples."""
    missing = dict(wanted)
    model.network.train()
    for part in pack(few.forks, model.token_budget, model.layout):
        batch = lay_out([few.forks[i] for i in part], model.layout).to(model.device)
        numbers = [members[i] for i in part]
        loss = few.objective.terms(model.network(batch), batch, numbers).loss
        slopes = torch.autograd.grad(loss, tuple(missing.values()), allow_unused=True)
        found = zip(missing.items(), slopes, strict=True)
        missing = dict(each for each, slope in found if slope is None or not bool(slope.any()))
        if not missing:
            break
    model.network.eval()
    return list(missing)


def _modules(names: Collection[str]) -> str:
    """The modules that hold parameters of these names, as the base model calls them."""
    short = [name.removeprefix("causal.").removesuffix(".weight") for name in names]
    return ", ".join(short[:8]) + (f" and {len(short) - 8} more" if len(short) > 8 else "")
