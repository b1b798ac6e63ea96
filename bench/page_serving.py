"""The part of docs/benchmarks.md on servers, made of results/bench/serving-*.json."""

import math
import statistics
from collections.abc import Iterable
from typing import Any

from bench.figures import ratios, spread
from bench.tables import cell, table

INTRODUCTION = """\
# Benchmarks of serving

`zephyr serve` beside `transformers serve`, as it is and with `--continuous-batching`, over HTTP
with streamed answers: `python -m bench.serving`. One server runs at a time, in a process and a
virtual environment of its own, on all cores; {rounds}, the order turned from one to the next.
Measured on {date} at commit {commit}: {processor}, {cores} cores, Python {python}; {thrown}
readings thrown away.

One user makes one request after the other, eight do so at once. Each request is another question
of GSM8K, the same ones in the same order for every server, of 90 to 110 tokens in the chat form of
the model. Each answer is greedy and has {tokens} tokens, which is checked by the usage that the
server itself gives: weights are random, and made so that no answer ends before. Requests that warm
the server up, as many at once as there will be users, are left out.

The first text is that of the first event that holds any: one that only names a role is none. Times
are of all requests of all rounds, the median and the 90th percentile. Tokens a second are those of
all users together, from the first request to the end of the last answer; the median of the rounds,
with the least and the most in brackets. The start is from starting the process to the end of a
first answer of one token, with all files in the cache of the system. The peak is the most memory
that was resident, mapped weights included.

Each is measured as it is when it is told nothing, and transformers in the other dtype, too:
Zephyr's default here is {ours}, transformers' the dtype in which the weights are stored.
"""

AGREEMENT = """\
How many answers are the same to the last whole character as Zephyr's in the same dtype, and how
many tokens each server counts in a prompt. In bfloat16 two ways of one forward round differently,
and answers of random weights part soon.
"""

MODELS = {
    "qwen1.5-0.5b-shape": "Shape of Qwen1.5-0.5B (weights in bfloat16)",
    "small": "Shape of the embedded recipe (weights in float32)",
}
NAMES = {
    "zephyr": "Zephyr",
    "transformers": "transformers",
    "transformers, continuous batching": "transformers, continuous batching",
}
USERS = (1, 8)


def section(result: dict[str, Any]) -> str:
    about = result["machine"]
    thrown = sum(not r["kept"] for r in result["readings"])
    ours = sorted(
        {e["dtype"] for e in result["entries"] if e["server"] == "zephyr" and e["default"]}
    )
    parts = [
        INTRODUCTION.format(
            rounds="one round" if result["rounds"] == 1 else f"{result['rounds']} rounds",
            date=result["date"],
            commit=result["commit"],
            processor=about["processor"],
            cores=about["cores"],
            python=about["python"],
            thrown=thrown,
            tokens=result["tokens"],
            ours=" and ".join(ours),
        )
    ]
    for key in dict.fromkeys(e["model"] for e in result["entries"]):
        lines = [_Line(e, result["readings"]) for e in result["entries"] if e["model"] == key]
        parts += [
            f"## {MODELS.get(key, key)}\n",
            table(HEAD, [line.cells() for line in lines]),
            "### Ratios\n\nZephyr's figure divided by the other's in the same dtype.\n",
            table(RATIOS, list(_ratios(lines))),
            f"### The same answers\n\n{AGREEMENT}",
            table(["server", "dtype", "same answers", "tokens of a prompt"], list(_same(lines))),
        ]
    versions = {
        NAMES[e["server"]]: r["versions"]
        for e in result["entries"]
        for r in result["readings"]
        if r["name"] == e["name"] and "versions" in r
    }
    rows = [
        [name, ", ".join(f"{k} {v}" for k, v in found.items())] for name, found in versions.items()
    ]
    return "\n".join([*parts, table(["server", "versions"], rows)])


HEAD = [
    "server",
    "dtype",
    "1 user: first text, ms",
    "90 %",
    "tokens/s",
    "8 users: first text, ms",
    "90 %",
    "tokens/s",
    "start, s",
    "peak, GiB",
]
RATIOS = ["against", "dtype", "1 user: tokens/s", "8 users: tokens/s", "start", "peak"]


def percentile(values: Iterable[float], share: float) -> float:
    """The least of the values that is not exceeded by a share of them."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class _Line:
    """The readings of one server in one dtype."""

    def __init__(self, entry: dict[str, Any], readings: list[dict[str, Any]]) -> None:
        self.entry = entry
        kept = [r for r in readings if r["name"] == entry["name"] and r["kept"]]
        self.failed = next((r["failed"] for r in kept if "failed" in r), None)
        self.readings = {} if self.failed else {r["round"]: r for r in kept}
        self.label = NAMES[entry["server"]]
        self.dtype = entry["dtype"] + (", default" if entry["default"] else "")

    def loads(self, users: int) -> dict[int, dict[str, Any]]:
        """What so many users met, by round."""
        return {
            number: load
            for number, reading in self.readings.items()
            for load in reading["loads"]
            if load["users"] == users
        }

    def rates(self, users: int) -> dict[int, float]:
        return {number: load["tokens_per_second"] for number, load in self.loads(users).items()}

    def figure(self, key: str) -> dict[int, float]:
        return {number: float(reading[key]) for number, reading in self.readings.items()}

    def cells(self) -> list[str]:
        if self.failed:
            return [self.label, self.dtype, self.failed, *[""] * (len(HEAD) - 3)]
        found = [self.label, self.dtype]
        for users in USERS:
            first = [1000 * s for load in self.loads(users).values() for s in load["first"]]
            found += [f"{statistics.median(first):,.0f}", f"{percentile(first, 0.9):,.0f}"]
            found.append(cell(spread(self.rates(users).values())))
        start = self.figure("start").values()
        peak = (value / 2**30 for value in self.figure("peak_bytes").values())
        return [*found, cell(spread(start)), cell(spread(peak))]

    def said(self) -> dict[tuple[int, int], str]:
        """What stands for the text of each answer, by the number of users and of the prompt.

        It is the same in each round, or the first round's.
        """
        return {
            (users, at): text
            for users in USERS
            for load in list(self.loads(users).values())[:1]
            for at, text in enumerate(load["said"])
        }


def _pairs(lines: list[_Line]) -> Iterable[tuple[_Line, _Line]]:
    """Zephyr's line and another's in the same dtype."""
    for ours in lines:
        for theirs in lines:
            same = ours.entry["dtype"] == theirs.entry["dtype"]
            other = theirs.entry["server"] != "zephyr"
            if ours.entry["server"] == "zephyr" and other and same:
                yield ours, theirs


def _ratios(lines: list[_Line]) -> Iterable[list[str]]:
    for ours, theirs in _pairs(lines):
        found = [
            *(ratios(ours.rates(users), theirs.rates(users)) for users in USERS),
            *(ratios(ours.figure(key), theirs.figure(key)) for key in ("start", "peak_bytes")),
        ]
        cells = [cell(ratio) if ratio else "–" for ratio in found]
        yield [theirs.label, theirs.entry["dtype"], *cells]


def _same(lines: list[_Line]) -> Iterable[list[str]]:
    for ours, theirs in _pairs(lines):
        mine, other = ours.said(), theirs.said()
        both = mine.keys() & other.keys()
        same = sum(mine[key] == other[key] for key in both)
        lengths = [
            f"{statistics.mean(load['prompt_tokens'] for load in line.loads(1).values()):.1f}"
            for line in (ours, theirs)
            if line.readings
        ]
        told = " and ".join(dict.fromkeys(lengths))
        yield [theirs.label, theirs.entry["dtype"], f"{same} of {len(both)}", told]
