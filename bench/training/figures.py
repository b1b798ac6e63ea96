"""Figures of a training measurement: throughput, memory, share of the matrix rate, agreement."""

import statistics
from typing import Any

from bench.shared.models import HIDDEN, MLP, VOCABULARY, linear_parameters
from bench.training.rows import Count
from bench.training.settings import HYPERPARAMETERS, Entry


def figures(
    entry: Entry, measurement: dict[str, Any], counted: Count, matrix_rate: float, layers: int
) -> dict[str, float]:
    """Figures of a framework; every rate divides the same counts by its seconds."""
    timed = measurement["passes"][-1]
    seconds, reference = timed["seconds"], timed["reference_seconds"]
    found = {
        "tokens_per_second": counted.tokens / seconds,
        "supervised_per_second": counted.supervised / seconds,
        "matrix_share": useful_operations(entry, counted, layers) / seconds / matrix_rate,
        "peak_gib": measurement["peak_bytes"] / 2**30,
    }
    if entry.work == "dpo":
        found["pairs_per_second"] = counted.rows / seconds
        found["pairs_per_second_with_reference"] = counted.rows / (seconds + reference)
    if timed["outside"] is not None:
        found["outside"] = timed["outside"]
    return found


def useful_operations(entry: Entry, counted: Count, layers: int) -> float:
    """Operations that training these rows can't do without, attention left out.

    Of each token: 2 for a weight of the linear layers forward, and 2 backward, since the gradient
    of a frozen layer's input must be had and that of its weights not; 6 for a weight of an adapter.
    Of each supervised token: 2 and 2 for a weight of the head. A reference is not counted.
    """
    sides = 4 * HIDDEN if entry.targets == "q, v" else 8 * HIDDEN + 3 * (HIDDEN + MLP)
    adapters = layers * HYPERPARAMETERS["rank"] * sides
    trunk = counted.tokens * (4 * linear_parameters(layers) + 6 * adapters)
    return float(trunk + counted.supervised * 4 * VOCABULARY * HIDDEN)


def agreement(measurement: dict[str, Any], counted: Count) -> dict[str, float]:
    """What a framework reports of the task itself, before the adapter has moved much.

    `extra` is how many tokens it supervises after the end token of each answer; `nats` the mean
    negative log-likelihood of the tokens that it supervises (in DPO: of the chosen answers).
    """
    timed = measurement["passes"][-1]
    pairs = bool(timed["chosen"])
    answers = counted.rows * (2 if pairs else 1)
    extra = (timed["supervised"] - counted.supervised) / answers
    if not pairs:
        return {"extra": extra, "nats": statistics.mean(timed["loss"])}
    tokens = (counted.chosen + extra * counted.rows) / counted.rows
    return {"extra": extra, "nats": -statistics.mean(timed["chosen"]) / tokens}
