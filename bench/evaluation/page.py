"""Tables on evaluation of docs/benchmarks.md, of results/bench/evaluation-*.json."""

from collections.abc import Callable
from typing import Any

from bench.shared.tables import Line, cell, ratios, table, version_table

TASKS = {
    "hellaswag": "HellaSwag",
    "mmlu": "MMLU, 5-shot",
    "gsm8k": "GSM8K",
    "wikitext": "WikiText-2",
}
MODELS = {"qwen": "Qwen shape", "tinystories": "TinyStories"}
UNITS = {"gsm8k": "answers/s", "wikitext": "tokens/s"}
RATES = ["items", "in", "Zephyr", "lm-eval", "ratio", "lm-eval's batch"]


def evaluation_tables(result: dict[str, Any]) -> dict[str, str]:
    """What the template needs of the results of one device."""
    entries, measurements, trials = result["entries"], result["measurements"], result["trials"]
    versions = dict(sorted(result["versions"].items(), reverse=True))
    return {
        "rates": _table(RATES, entries, lambda entry: _rates(entry, measurements)),
        "agreement": _table(["what is compared"], entries, _agreement),
        "batches": _table(["batch: rate"], entries, lambda entry: _trials(entry, trials)),
        "version_table": version_table("contender", versions, {}),
    }


def _table(
    head: list[str], entries: list[dict[str, Any]], cells: Callable[[dict[str, Any]], list[str]]
) -> str:
    """A table with a row for each entry."""
    rows = ([TASKS[e["task"]], MODELS[e["model"]], *cells(e)] for e in entries)
    return table(["task", "model", *head], rows)


def _rates(entry: dict[str, Any], measurements: list[dict[str, Any]]) -> list[str]:
    ours, theirs = (
        Line(entry, (m for m in measurements if m["framework"] == framework)).figure(
            lambda m: m["rate"]
        )
        for framework in ("zephyr", "lm_eval")
    )
    cells = map(cell, (ours.values(), theirs.values(), ratios(ours, theirs)))
    unit = UNITS.get(entry["task"], "items/s")
    return [f"{entry['items']}", unit, *cells, f"{entry['batch']}"]


def _agreement(entry: dict[str, Any]) -> list[str]:
    found = entry["agreement"]
    if "tokens" in found:
        return [f"{found['tokens']:,.0f} tokens written by both"]
    text = f"{found['nats']:.2g} nats a token apart"
    if entry["task"] != "wikitext":
        text += f", the same option in {found['same']:.1%}"
    return [text]


def _trials(entry: dict[str, Any], trials: list[dict[str, Any]]) -> list[str]:
    cells = [
        f"{t['batch']}: {t['rate']:.3g}" if "rate" in t else t.get("failed", f"{t['batch']} alone")
        for t in trials
        if t["name"] == entry["name"]
    ]
    return [", ".join(cells)]
