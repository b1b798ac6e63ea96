"""docs/benchmarks.md, made of the results in results/bench.

python -m bench.page [--check]
"""

import json
import sys
from typing import Any

from bench import page_evaluation, page_quantization, page_serving
from bench.figures import ratios, spread
from bench.peers import ROOT
from bench.tables import cell, table

RESULTS = ROOT / "results" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"
NOTE = "<!-- Made by bench/page.py from results/bench; don't edit. -->\n\n"
NAMES = {"zephyr": "Zephyr", "trl": "TRL", "llamafactory": "LLaMA-Factory"}

INTRODUCTION = """\
# Benchmarks of training

Zephyr beside TRL and LLaMA-Factory, each in a process and a virtual environment of its own, on the
same rows: `make bench` (`make bench DEVICE=cuda` on a GPU).

The model has the shape of Qwen1.5-0.5B ({layers} layers, width 1,024, vocabulary 151,936, tied
embeddings) with random bf16 weights, and the real tokenizer. All train a LoRA adapter of rank 8
with AdamW at a rate of 5e-5, no text longer than 2,048 tokens, without evaluation or checkpoints.
A figure is the median of several rounds, in which the contenders take turns, with the least and
the most in brackets, or one reading; a ratio is the median of the ratios within each round. A
reading during which other processes took more than 5 % of the machine is thrown away and repeated.

Tokens are those of the rows by one tokenization, for all contenders alike: no padding, the prompt
of a pair once, and a row once, whatever a contender does with it inside. Seconds run from the start
of the first step to the end of the last: loader, collation, forward, backward, optimizer, logging.
Loading the model, encoding the texts, and a first small pass that warms the process up are left
out.

Default is what a contender does when it is told the task alone; best is the fastest of the settings
that were tried on the machine of the table. References are kept where a contender can find them
before the first step (Zephyr always, TRL with `precompute_ref_log_probs`); one that finds them anew
at each step has one figure for both columns.
"""

SHARE = """\
The share of the matrix rate counts the operations that the work can't do without. Of each token: 2
for a weight of the linear layers forward and 2 backward, 6 for a weight of an adapter. Of each
supervised token: 2 and 2 for a weight of the head. Attention and references are left out. The sum
is divided by the seconds and by the rate of {dtype} products of 1,024 tokens, width 1,024 and
2,816, measured at the start of each round: {rate}.
"""

AGREEMENT = """\
That all do the same work shows in what they say of it themselves: how many tokens they supervise,
and their mean negative log-likelihood before the adapter has learned anything (in DPO of the chosen
answers). TRL and LLaMA-Factory also supervise the line break that the chat template writes after
the end token of an answer.
"""


def render() -> str:
    """The page, one section for each device that was measured."""
    paths = sorted(RESULTS.glob("training-*.json"))
    found = [json.loads(path.read_text()) for path in paths]
    parts = [INTRODUCTION.format(layers=found[0]["layers"])]
    parts += [_device(result, path.name) for path, result in zip(paths, found, strict=True)]
    parts += [
        page_evaluation.section(json.loads(path.read_text()))
        for path in sorted(RESULTS.glob("evaluation-*.json"))
    ]
    parts += [
        page_quantization.section(json.loads(path.read_text()))
        for path in sorted(RESULTS.glob("quantization-*.json"))
    ]
    parts += [
        page_serving.section(json.loads(path.read_text()))
        for path in sorted(RESULTS.glob("serving-*.json"))
    ]
    return NOTE + "\n".join(parts)


def write() -> None:
    PAGE.write_text(render(), encoding="utf-8")


def _device(result: dict[str, Any], file: str) -> str:
    """The section of one file of results, whose trials lie beside it."""
    machine = result["machine"]
    name = machine.get("card") or (
        f"{machine['processor']}, {machine['cores']} cores, products in {machine['products']}"
    )
    works = {kind: _Work(result, kind) for kind in ("sft", "dpo")}
    plan, rates = result["plan"], spread(rate / 1e12 for rate in result["matrix_rate"])
    thrown = sum(not r["kept"] for r in result["readings"])
    measured = (
        f"Measured on {result['date']} at commit {result['commit']}, Python {machine['python']}, "
        f"{result['threads']} threads, rounds: {plan['rounds']}; {thrown} readings thrown away. "
        f"[All settings that were tried](../results/bench/{file.replace('training', 'trials')})."
    )
    chats = _rows("rows of GSM8K and Open-Platypus", plan["chats"], result["rows"]["sft"])
    pairs = _rows("pairs of hh-rlhf", plan["pairs"], result["rows"]["dpo"])
    parts = [
        f"## {name}\n\n{measured}\n",
        f"### SFT\n\n{chats}\n",
        works["sft"].table(_SFT),
        f"### DPO\n\n{pairs}\n",
        works["dpo"].table(_DPO),
        "### Ratios\n\nZephyr's figure divided by the other's.\n",
        _ratios(works),
        _outside(works),
        SHARE.format(rate=f"{cell(rates)} Top/s", dtype=machine["products"]),
        f"### The same work\n\n{AGREEMENT}",
        _agreement(result, works),
        "### Settings\n",
        _settings(result),
    ]
    return "\n".join(parts)


def _rows(what: str, batch: int, counted: dict[str, int]) -> str:
    return (
        f"{counted['rows']} {what}, {batch} to a step: {counted['tokens']:,} tokens, "
        f"{counted['supervised']:,} of them supervised."
    )


_Columns = dict[str, tuple[str, float]]
_SFT: _Columns = {
    "tokens/s": ("tokens_per_second", 1),
    "supervised tokens/s": ("supervised_per_second", 1),
    "share of matrix rate, %": ("matrix_share", 100),
    "peak memory, GiB": ("peak_gib", 1),
}
_DPO: _Columns = {
    "pairs/s, references kept": ("pairs_per_second", 1),
    "pairs/s, references included": ("pairs_per_second_with_reference", 1),
    "share of matrix rate, %": ("matrix_share", 100),
    "peak memory, GiB": ("peak_gib", 1),
}


class _Work:
    """The readings of one kind of rows."""

    def __init__(self, result: dict[str, Any], kind: str) -> None:
        self.entries = [e for e in result["entries"] if e["work"] == kind]
        self.readings = {
            e["name"]: [r for r in result["readings"] if r["name"] == e["name"] and r["kept"]]
            for e in self.entries
        }

    def rounds(self, name: str, figure: str) -> dict[int, float]:
        """A figure of an entry by round, where it has one."""
        rows = (r for r in self.readings[name] if figure in r.get("figures", {}))
        return {r["round"]: r["figures"][figure] for r in rows}

    def table(self, columns: _Columns) -> str:
        rows = []
        for entry in self.entries:
            first = self.readings[entry["name"]][0]
            if "failed" in first:
                cells = [first["failed"], *[""] * (len(columns) - 1)]
            else:
                found = ((self.rounds(entry["name"], f), by) for f, by in columns.values())
                cells = [cell(spread(v * by for v in values.values())) for values, by in found]
            rows.append([_label(entry), entry["targets"], *cells])
        return table(["contender", "adapter on", *columns], rows)


def _ratios(works: dict[str, _Work]) -> str:
    asked = [
        ("sft", "SFT, tokens/s", "tokens_per_second"),
        ("sft", "SFT, peak memory", "peak_gib"),
        ("dpo", "DPO, pairs/s, references kept", "pairs_per_second"),
        ("dpo", "DPO, pairs/s, references included", "pairs_per_second_with_reference"),
        ("dpo", "DPO, peak memory", "peak_gib"),
    ]
    rows = []
    for kind, label, figure in asked:
        work = works[kind]
        for ours in (e for e in work.entries if e["contender"] == "zephyr"):
            for theirs in (e for e in work.entries if e["targets"] == ours["targets"]):
                found = ratios(
                    work.rounds(ours["name"], figure), work.rounds(theirs["name"], figure)
                )
                if theirs is not ours and found:
                    rows.append([label, ours["targets"], _label(theirs), cell(found)])
    return table(["figure", "adapter on", "against", "ratio"], rows)


def _outside(works: dict[str, _Work]) -> str:
    shares = [
        f"{cell(spread(100 * v for v in values.values()))} % ({kind.upper()}, {entry['targets']})"
        for kind, work in works.items()
        for entry in work.entries
        if (values := work.rounds(entry["name"], "outside"))
    ]
    return f"Zephyr's time outside forward, backward and optimizer: {', '.join(shares)}.\n"


def _agreement(result: dict[str, Any], works: dict[str, _Work]) -> str:
    rows = []
    for kind, work in works.items():
        for entry in work.entries:
            first = work.readings[entry["name"]][0]
            if "failed" not in first:
                seen = first["passes"][-1]["supervised"]
                nats, extra = first["agreement"]["nats"], first["agreement"]["extra"]
                label = f"{_label(entry)}, {entry['targets']}"
                rows.append([kind.upper(), label, f"{seen:,}", f"{extra:g}", f"{nats:.4f}"])
    head = ["work", "contender", "supervised", "after an answer's end", "nats a token"]
    return table(head, rows)


def _settings(result: dict[str, Any]) -> str:
    rows = [
        [e["work"].upper(), _label(e), _options(e["options"])]
        for e in result["entries"]
        if e["targets"] == "q, v"
    ]
    versions = [
        [NAMES[contender], ", ".join(f"{k} {v}" for k, v in found.items())]
        for contender, found in result["versions"].items()
    ]
    settings = table(["work", "contender", "settings beyond the task"], rows)
    return settings + "\n" + table(["contender", "versions"], versions)


def _label(entry: dict[str, Any]) -> str:
    return f"{NAMES[entry['contender']]}, {entry['setting']}"


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"`{k}: {json.dumps(v)}`" for k, v in options.items()) or "none"


def main() -> int:
    """1 where --check finds the page stale, else 0; without results there is no page."""
    if not any(RESULTS.glob("training-*.json")):
        return 0
    if sys.argv[1:] != ["--check"]:
        write()
        return 0
    stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != render()
    if stale:
        print("docs/benchmarks.md is stale: make docs")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
