"""Tables on training of docs/benchmarks.md, of results/bench/training-*.json."""

import json
from collections.abc import Iterator
from typing import Any

from bench.shared.tables import Line, cell, ratios, table, version_table

NAMES = {"zephyr": "Zephyr", "trl": "TRL", "llamafactory": "LLaMA-Factory"}
AGREEMENT = ["work", "contender", "supervised", "after an answer's end", "nats a token"]
Columns = dict[str, tuple[str, float]]
"""A figure for each column, and what it is multiplied with."""
BOTH: Columns = {
    "share of matrix rate, %": ("matrix_share", 100),
    "peak memory, GiB": ("peak_gib", 1),
}
SFT: Columns = {
    "tokens/s": ("tokens_per_second", 1),
    "supervised tokens/s": ("supervised_per_second", 1),
    **BOTH,
}
DPO: Columns = {
    "pairs/s, references kept": ("pairs_per_second", 1),
    "pairs/s, references included": ("pairs_per_second_with_reference", 1),
    **BOTH,
}


RATIOS = [
    ("sft", "SFT, tokens/s", "tokens_per_second"),
    ("sft", "SFT, peak memory", "peak_gib"),
    ("dpo", "DPO, pairs/s, references kept", "pairs_per_second"),
    ("dpo", "DPO, pairs/s, references included", "pairs_per_second_with_reference"),
    ("dpo", "DPO, peak memory", "peak_gib"),
]


def training_tables(result: dict[str, Any]) -> dict[str, str]:
    """What the template needs of the results of one device."""
    machine = result["machine"]
    lines = [Line(entry, result["measurements"]) for entry in result["entries"]]
    sft, dpo = ([line for line in lines if line.entry["work"] == kind] for kind in ("sft", "dpo"))
    settings = (
        [entry["work"].upper(), _label(entry), _options(entry["options"])]
        for entry in result["entries"]
        if entry["targets"] == "q, v"
    )
    return {
        "device_name": machine.get("card")
        or "{processor}, {cores} cores, products in {products}".format(**machine),
        "rate": cell(rate / 1e12 for rate in result["matrix_rate"]),
        "sft": table(["contender", "adapter on", *SFT], (_figures(line, SFT) for line in sft)),
        "dpo": table(["contender", "adapter on", *DPO], (_figures(line, DPO) for line in dpo)),
        "ratios": table(["figure", "adapter on", "against", "ratio"], _ratios(lines)),
        "outside": ", ".join(filter(None, map(_outside, lines))),
        "agreement": table(AGREEMENT, filter(None, map(_agreement, lines))),
        "settings": table(["work", "contender", "settings beyond the task"], settings),
        "version_table": version_table("contender", result["versions"], NAMES),
    }


def _figure(line: Line, name: str, factor: float = 1) -> dict[int, float]:
    """A figure by round, where it was measured."""
    return line.figure(lambda m: m["figures"][name] * factor if name in m["figures"] else None)


def _figures(line: Line, columns: Columns) -> list[str]:
    cells = [line.failure, *[""] * (len(columns) - 1)]
    if not line.failure:
        cells = [cell(_figure(line, *each).values()) for each in columns.values()]
    return [_label(line.entry), line.entry["targets"], *cells]


def _ratios(lines: list[Line]) -> Iterator[list[str]]:
    for kind, label, figure in RATIOS:
        of_kind = [line for line in lines if line.entry["work"] == kind]
        for ours in (line for line in of_kind if line.entry["framework"] == "zephyr"):
            targets = ours.entry["targets"]
            for theirs in (line for line in of_kind if line.entry["targets"] == targets):
                found = ratios(_figure(ours, figure), _figure(theirs, figure))
                if theirs is not ours and found:
                    yield [label, targets, _label(theirs.entry), cell(found)]


def _outside(line: Line) -> str:
    """Zephyr's share of time outside forward, backward and optimizer."""
    shares = _figure(line, "outside", 100).values()
    kind, targets = line.entry["work"].upper(), line.entry["targets"]
    return f"{cell(shares)} % ({kind}, {targets})" if shares else ""


def _agreement(line: Line) -> list[str]:
    """What the first round reported of the task itself."""
    if line.failure:
        return []
    first = next(iter(line.rounds.values()))
    supervised, found = first["passes"][-1]["supervised"], first["agreement"]
    numbers = f"{supervised:,}", f"{found['extra']:g}", f"{found['nats']:.4f}"
    label = f"{_label(line.entry)}, {line.entry['targets']}"
    return [line.entry["work"].upper(), label, *numbers]


def _label(entry: dict[str, Any]) -> str:
    return f"{NAMES[entry['framework']]}, {entry['setting']}"


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"`{k}: {json.dumps(v)}`" for k, v in options.items()) or "none"
