"""From readings to figures: rates, memory, the share of the matrix rate, agreement, ratios."""

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from bench.rows import Count
from bench.settings import Entry
from bench.shape import SHAPE, linear_parameters

Reading = dict[str, Any]
RANK = 8


class Spread(NamedTuple):
    """The median of some rounds, the least and the most."""

    median: float
    least: float
    most: float


def figures(
    entry: Entry, reading: Reading, counted: Count, rate: float, layers: int
) -> dict[str, float]:
    """What a reading says of its contender; every rate divides the same counts by its seconds."""
    timed = reading["passes"][-1]
    seconds, reference = timed["seconds"], timed["reference_seconds"]
    found = {
        "tokens_per_second": counted.tokens / seconds,
        "supervised_per_second": counted.supervised / seconds,
        "matrix_share": useful_operations(entry, counted, layers) / seconds / rate,
        "peak_gib": reading["peak_bytes"] / 2**30,
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
    hidden, mlp, head = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["vocab_size"]
    assert isinstance(hidden, int)
    assert isinstance(mlp, int)
    assert isinstance(head, int)
    sides = 4 * hidden if entry.targets == "q, v" else 8 * hidden + 3 * (hidden + mlp)
    adapters = layers * RANK * sides
    trunk = counted.tokens * (4 * linear_parameters(layers) + 6 * adapters)
    return float(trunk + counted.supervised * 4 * head * hidden)


def agreement(reading: Reading, counted: Count) -> dict[str, float]:
    """What a contender says of the work itself, before the adapter has moved much.

    `extra` is how many tokens it supervises after the end token of each answer; `nats` the mean
    negative log-likelihood of the tokens that it supervises (in DPO: of the chosen answers).
    """
    timed = reading["passes"][-1]
    pairs = bool(timed["chosen"])
    answers = counted.rows * (2 if pairs else 1)
    extra = (timed["supervised"] - counted.supervised) / answers
    if not pairs:
        return {"extra": extra, "nats": statistics.mean(timed["loss"])}
    tokens = (counted.chosen + extra * counted.rows) / counted.rows
    return {"extra": extra, "nats": -statistics.mean(timed["chosen"]) / tokens}


def spread(values: Iterable[float]) -> Spread:
    kept = list(values)
    return Spread(statistics.median(kept), min(kept), max(kept))


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> Spread | None:
    """Ours divided by theirs in each round that has both."""
    both = sorted(ours.keys() & theirs.keys())
    return spread(ours[r] / theirs[r] for r in both) if both else None
