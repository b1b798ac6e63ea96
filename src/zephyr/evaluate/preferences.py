"""Preferences: does a model find the preferred answer likelier than the model it came from does?

Reward accuracy as DPO defines it (Rafailov et al. 2023): the implicit reward of an answer is beta
times the log-probability of its tokens, end token included and prompt left out, under the model
minus that under its reference; a pair is right where the chosen answer has the greater reward. Beta
does not change which is greater, so margins stand in nats, as if it were 1; TRL and LLaMA-Factory
log beta times as much. A tie counts one half: a model measured against itself scores 0.5, not the 0
that a strict comparison gives (kept beside).

Summed log-probabilities fall with each token, so beside every accuracy stands one by the mean over
the tokens of an answer. And beside the rewards stand what a reader must hold them against: which
answer the model itself finds likelier, without a reference, and which one is longer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zephyr.evaluate.asking import Asked, Item, Model, Settings, item
from zephyr.model.fork import Fork
from zephyr.records import Pair

REWARDS = (
    "reward_accuracy",
    "reward_accuracy_strict",
    "reward_accuracy_per_token",
    "reward_margin",
)
NO_REFERENCE = "a base model has no reference: its reward is zero for every answer"


def ask_pairs(model: Model, records: Sequence[Pair], settings: Settings) -> Asked:
    """Both answers to each prompt, as the model's own template renders them.

    A pair that does not fit into the context is left out and counted: cut, it would be another.
    Answers of the same tokens are a tie, whatever rounding says, and are counted too.
    """
    forks = [model.template.pair_fork(record) for record in records]
    fitting = [
        (record, made)
        for record, made in zip(records, forks, strict=True)
        if made.longest <= model.context
    ]
    logprobs = model.logprobs([made for _, made in fitting])
    items = [
        _score(model, record, made.prompt, _told_apart(made, sides), settings.reference)
        for (record, made), sides in zip(fitting, logprobs, strict=True)
    ]
    counts = {
        "longer than the context": len(records) - len(fitting),
        "both answers of the same tokens": sum(_same(made) for _, made in fitting),
    }
    return Asked(
        items,
        {reason: count for reason, count in counts.items() if count},
        (),
        dict.fromkeys(REWARDS, NO_REFERENCE) if settings.reference is None else {},
    )


def _told_apart(made: Fork, sides: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
    return (sides[0], sides[0]) if _same(made) else sides


def _same(made: Fork) -> bool:
    chosen, rejected = (side.ids for side in made.continuations)
    return np.array_equal(chosen, rejected)


def _score(
    model: Model,
    record: Pair,
    prompt: Any,
    sides: Sequence[NDArray[np.float32]],
    reference: Mapping[str, Item] | None,
) -> Item:
    chosen, rejected = (float(side.sum(dtype=np.float64)) for side in sides)
    tokens = [len(side) for side in sides]
    scores = {
        "policy_accuracy": _win(chosen - rejected),
        "policy_accuracy_per_token": _win(chosen / tokens[0] - rejected / tokens[1]),
        "longer_accuracy": _win(len(record.chosen) - len(record.rejected)),
    }
    detail = {
        "request": model.tokenizer.decode(prompt.tolist()),
        "chosen": record.chosen,
        "rejected": record.rejected,
        "logprobs": [chosen, rejected],
        "tokens": tokens,
    }
    if reference is not None:
        assert record.id in reference, "the reference has been asked the same pairs"
        before = reference[record.id]["detail"]["logprobs"]
        rewards = chosen - before[0], rejected - before[1]
        margin = rewards[0] - rewards[1]
        scores = {
            "reward_accuracy": _win(margin),
            "reward_accuracy_strict": _win(margin, tie=0.0),
            "reward_accuracy_per_token": _win(rewards[0] / tokens[0] - rewards[1] / tokens[1]),
            "reward_margin": margin,
            **scores,
        }
        detail["reference_logprobs"] = before
    return item(record, scores, detail, record.aspect)


def _win(gap: float, tie: float = 0.5) -> float:
    """1 for a gap above zero, 0 below, `tie` for none; not a number for what isn't one."""
    if not np.isfinite(gap):
        return float("nan")
    return tie if gap == 0 else float(gap > 0)
