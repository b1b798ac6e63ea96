"""The part of docs/benchmarks.md on evaluation, made of results/bench/evaluation-*.json."""

from typing import Any

from bench.figures import ratios, spread
from bench.tables import cell, table

INTRODUCTION = """\
# Benchmarks of evaluation

Zephyr's own tasks beside lm-evaluation-harness's on its own model class, each in a process and a
virtual environment of its own, on the same items: `make bench`.

{rounds}, in which the two take turns; figures, ratios and disturbed readings as above.
Seconds run from rows to scores: prompts, tokens, forwards, scores. Loading the model and a first
asking of two items, which warms the process up, are left out. The Qwen shape is the model above in
bfloat16 with texts of up to 2,048 tokens; TinyStories is a real network of 656,000 parameters, in
float32, whose context is 512 tokens. lm-eval's batch size is the fastest of those that were tried
on this machine.

HellaSwag is ranked without examples; MMLU after five, whose tokens one subject shares (its real
subjects have 246 questions in the mean: the more there are, the more is saved by reading the
examples once). GSM8K is a question without examples, and each answer ends after as many tokens as
the reference answer has: in lm-eval by a logits processor, in Zephyr by a limit of its own for each
prompt. WikiText-2 is whole pages, each for itself.
"""

AGREEMENT = """\
That both do the same work is checked: log-probabilities differ by less than rounding in the mean of
their tokens, the likeliest option is the same one in nine items of ten and more, and answers have
as many tokens. Otherwise the bench stops without a result.
"""

WORKS = {
    "hellaswag": "HellaSwag",
    "mmlu": "MMLU, 5-shot",
    "gsm8k": "GSM8K",
    "wikitext": "WikiText-2",
}
MODELS = {"qwen": "Qwen shape", "tinystories": "TinyStories"}
UNITS = {"gsm8k": "answers/s", "wikitext": "tokens/s"}


def section(result: dict[str, Any]) -> str:
    """The part of one device."""
    machine = result["machine"]
    thrown = sum(not r["kept"] for r in result["readings"])
    measured = (
        f"Measured on {result['date']} at commit {result['commit']} ({machine['processor']}, "
        f"{machine['cores']} cores), Python {machine['python']}, {result['threads']} threads; "
        f"{thrown} readings thrown away."
    )
    rates = [_row(entry, result["readings"]) for entry in result["entries"]]
    head = ["task", "model", "items", "in", "Zephyr", "lm-eval", "ratio", "lm-eval's batch"]
    versions = [
        [name, ", ".join(f"{k} {v}" for k, v in found.items())]
        for name, found in sorted(result["versions"].items(), reverse=True)
    ]
    return "\n".join(
        [
            INTRODUCTION.format(rounds=_rounds(result["rounds"])),
            f"{measured}\n",
            table(head, rates),
            f"### The same answers\n\n{AGREEMENT}",
            table(["task", "model", "what is compared"], list(map(_agreed, result["entries"]))),
            "### Batch sizes of lm-eval\n\nThe rate at each, on a part of the items.\n",
            table(["task", "model", "batch: rate"], [_tried(e, result) for e in result["entries"]]),
            table(["contender", "versions"], versions),
        ]
    )


def _rounds(count: int) -> str:
    return "One round" if count == 1 else f"{count} rounds"


def _row(entry: dict[str, Any], readings: list[dict[str, Any]]) -> list[str]:
    rates = {
        contender: {
            r["round"]: r["rate"]
            for r in readings
            if (r["name"], r["contender"]) == (entry["name"], contender) and r["kept"]
        }
        for contender in ("zephyr", "lm_eval")
    }
    found = ratios(rates["zephyr"], rates["lm_eval"])
    assert found is not None, "both were measured in every round"
    return [
        *_labels(entry),
        f"{entry['items']}",
        UNITS.get(entry["work"], "items/s"),
        *(cell(spread(values.values())) for values in rates.values()),
        cell(found),
        f"{entry['batch']}",
    ]


def _agreed(entry: dict[str, Any]) -> list[str]:
    found = entry["agreement"]
    if "tokens" in found:
        return [*_labels(entry), f"{found['tokens']:,.0f} tokens written by both"]
    told = f"{found['nats']:.2g} nats a token apart"
    if entry["work"] != "wikitext":
        told += f", the same option in {found['same']:.1%}"
    return [*_labels(entry), told]


def _tried(entry: dict[str, Any], result: dict[str, Any]) -> list[str]:
    rows = [r for r in result["trials"] if r["name"] == entry["name"]]
    cells = [
        f"{r['batch']}: {r['rate']:.3g}" if "rate" in r else r.get("failed", f"{r['batch']} alone")
        for r in rows
    ]
    return [*_labels(entry), ", ".join(cells)]


def _labels(entry: dict[str, Any]) -> tuple[str, str]:
    return WORKS[entry["work"]], MODELS[entry["model"]]
