"""Reward accuracy (DPO): does a model prefer the chosen answer more than its reference does?

Reward accuracy as DPO defines it (Rafailov et al. 2023): the implicit reward of an answer is beta
times the log-probability of its tokens, end token included and prompt left out, under the model
minus that under its reference; a pair is right if the chosen answer has the greater reward. Beta
does not change which is greater, so margins are in nats, as for beta 1; TRL and LLaMA-Factory log
beta times as much. A tie counts one half: a model compared with itself scores 0.5, not the 0 of a
strict comparison (reported too).

Summed log-probabilities fall with each token, so every accuracy is also computed with the mean over
the tokens of an answer. Two baselines are reported beside the rewards: which answer the model finds
more likely without a reference, and which one is longer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, make_item
from zephyr.model.example import Example
from zephyr.records import Pair

REWARD_METRICS = (
    "reward_accuracy",
    "reward_accuracy_strict",
    "reward_accuracy_per_token",
    "reward_margin",
)
NO_REFERENCE = "a base model has no reference: its reward is zero for every answer"


def evaluate_preference_pairs(
    model: EvalModel, records: Sequence[Pair], settings: EvalSettings
) -> TaskOutput:
    """Both answers to each prompt, as the model's own template renders them.

    A pair that does not fit into the context is left out and counted: cut, it would be another.
    Answers of the same tokens are a tie, whatever rounding says, and are counted too.
    """
    examples = [model.template.make_pair_example(record) for record in records]
    pairs_in_context = [
        (record, made)
        for record, made in zip(records, examples, strict=True)
        if made.max_sequence_length <= model.context_length
    ]
    logprobs = model.logprobs([made for _, made in pairs_in_context])
    items = [
        _score_pair(
            model,
            record,
            made.prompt,
            _tie_identical_answers(made, sides),
            settings.reference_items,
        )
        for (record, made), sides in zip(pairs_in_context, logprobs, strict=True)
    ]
    counts = {
        "longer than the context": len(records) - len(pairs_in_context),
        "both answers of the same tokens": sum(
            _has_identical_answers(made) for _, made in pairs_in_context
        ),
    }
    return TaskOutput(
        items,
        {reason: count for reason, count in counts.items() if count},
        (),
        dict.fromkeys(REWARD_METRICS, NO_REFERENCE) if settings.reference_items is None else {},
    )


def _tie_identical_answers(
    example: Example, logprobs: Sequence[NDArray[np.float32]]
) -> Sequence[NDArray[np.float32]]:
    """Gives both answers the same log-probabilities where their token ids are identical."""
    return (logprobs[0], logprobs[0]) if _has_identical_answers(example) else logprobs


def _has_identical_answers(example: Example) -> bool:
    chosen, rejected = (side.ids for side in example.completions)
    return np.array_equal(chosen, rejected)


def _score_pair(
    model: EvalModel,
    record: Pair,
    prompt: Any,
    logprobs: Sequence[NDArray[np.float32]],
    reference_items: Mapping[str, Item] | None,
) -> Item:
    chosen, rejected = (float(side.sum(dtype=np.float64)) for side in logprobs)
    tokens = [len(side) for side in logprobs]
    scores = {
        "policy_accuracy": _win_score(chosen - rejected),
        "policy_accuracy_per_token": _win_score(chosen / tokens[0] - rejected / tokens[1]),
        "longer_accuracy": _win_score(len(record.chosen) - len(record.rejected)),
    }
    detail = {
        "request": model.tokenizer.decode(prompt.tolist()),
        "chosen": record.chosen,
        "rejected": record.rejected,
        "logprobs": [chosen, rejected],
        "tokens": tokens,
    }
    if reference_items is not None:
        assert record.id in reference_items, "the reference has been asked the same pairs"
        reference_logprobs = reference_items[record.id]["detail"]["logprobs"]
        rewards = chosen - reference_logprobs[0], rejected - reference_logprobs[1]
        margin = rewards[0] - rewards[1]
        scores = {
            "reward_accuracy": _win_score(margin),
            "reward_accuracy_strict": _win_score(margin, tie=0.0),
            "reward_accuracy_per_token": _win_score(
                rewards[0] / tokens[0] - rewards[1] / tokens[1]
            ),
            "reward_margin": margin,
            **scores,
        }
        detail["reference_logprobs"] = reference_logprobs
    return make_item(record, scores, detail, record.aspect)


def _win_score(difference: float, tie: float = 0.5) -> float:
    """1 for a difference above zero, 0 below, `tie` for none; NaN where it is not finite."""
    if not np.isfinite(difference):
        return float("nan")
    return tie if difference == 0 else float(difference > 0)
