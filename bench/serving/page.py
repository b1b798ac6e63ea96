"""Tables on servers of docs/benchmarks.md, of results/bench/serving-*.json."""

import statistics
from typing import Any

from bench.shared.tables import Line, cell, percentile, ratios, table, version_table

MODELS = {
    "qwen1.5-0.5b-shape": "Shape of Qwen1.5-0.5B (weights in bfloat16)",
    "small": "Shape of the embedded recipe (weights in float32)",
}
NAMES = {"zephyr": "Zephyr"}
USERS = (1, 8)
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
SAME = ["server", "dtype", "same answers", "tokens of a prompt"]
RATIOS = ["against", "dtype", "1 user: tokens/s", "8 users: tokens/s", "start", "peak"]


def serving_tables(result: dict[str, Any]) -> dict[str, Any]:
    """What the template needs of the results of one device."""
    entries = result["entries"]
    defaults = {e["dtype"] for e in entries if e["server"] == "zephyr" and e["default"]}
    models = []
    for key in dict.fromkeys(entry["model"] for entry in entries):
        lines = [Line(e, result["measurements"]) for e in entries if e["model"] == key]
        pairs = [(ours, theirs) for ours in lines for theirs in lines if _are_peers(ours, theirs)]
        models.append(
            {
                "name": MODELS.get(key, key),
                "figures": table(HEAD, map(_figures, lines)),
                "ratios": table(RATIOS, (_ratios(*pair) for pair in pairs)),
                "same_answers": table(SAME, (_same_answers(*pair) for pair in pairs)),
            }
        )
    return {
        "default_dtype": " and ".join(sorted(defaults)),
        "models": models,
        "version_table": version_table("server", result["versions"], NAMES),
    }


def _are_peers(ours: Line, theirs: Line) -> bool:
    """Whether one is Zephyr, and the other another server in the same dtype."""
    is_zephyr = [line.entry["server"] == "zephyr" for line in (ours, theirs)]
    return is_zephyr == [True, False] and ours.entry["dtype"] == theirs.entry["dtype"]


def _label(line: Line) -> str:
    return NAMES.get(line.entry["server"], line.entry["server"])


def _loads(line: Line, users: int) -> dict[int, dict[str, Any]]:
    """What so many users measured, by round."""
    return {
        number: load
        for number, measurement in line.rounds.items()
        for load in measurement.get("loads", ())
        if load["users"] == users
    }


def _comparable(line: Line) -> list[dict[int, float]]:
    """Figures by round: throughput of one user and of eight, start, peak of memory."""
    rates = ({r: m["tokens_per_second"] for r, m in _loads(line, users).items()} for users in USERS)
    peaks = line.figure(lambda m: m["peak_bytes"] / 2**30)
    return [*rates, line.figure(lambda m: m["start"]), peaks]


def _figures(line: Line) -> list[str]:
    found = [_label(line), line.entry["dtype"] + (", default" if line.entry["default"] else "")]
    if line.failure:
        return [*found, line.failure, *[""] * (len(HEAD) - 3)]
    *rates, start, peak = (cell(figure.values()) for figure in _comparable(line))
    for users, rate in zip(USERS, rates, strict=True):
        first = [1000 * s for load in _loads(line, users).values() for s in load["first"]]
        found += [f"{statistics.median(first):,.0f}", f"{percentile(first, 0.9):,.0f}", rate]
    return [*found, start, peak]


def _ratios(ours: Line, theirs: Line) -> list[str]:
    found = map(ratios, _comparable(ours), _comparable(theirs))
    return [_label(theirs), theirs.entry["dtype"], *map(cell, found)]


def _same_answers(ours: Line, theirs: Line) -> list[str]:
    own, other = _answers(ours), _answers(theirs)
    both = own.keys() & other.keys()
    same = sum(own[key] == other[key] for key in both)
    lengths = [
        f"{statistics.mean(load['prompt_tokens'] for load in loads.values()):.1f}"
        for loads in (_loads(ours, 1), _loads(theirs, 1))
        if loads
    ]
    prompt_tokens = " and ".join(dict.fromkeys(lengths))
    return [_label(theirs), theirs.entry["dtype"], f"{same} of {len(both)}", prompt_tokens]


def _answers(line: Line) -> dict[tuple[int, int], str]:
    """Digest of each answer of the first round, by the number of users and of the prompt."""
    return {
        (users, at): text
        for users in USERS
        for load in list(_loads(line, users).values())[:1]
        for at, text in enumerate(load["texts"])
    }
