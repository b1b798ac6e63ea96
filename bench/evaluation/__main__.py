"""Evaluation benchmark: Zephyr and lm-evaluation-harness on the same items.

python -m bench.evaluation [--only TEXT ...] [--rounds N] [--quick]

First lm-eval's best batch size is found in trials, on a part of the items; then all is measured in
rounds, the two taking turns. Where they don't agree on an item, the benchmark stops. Results go to
results/bench/, and docs/benchmarks.md is made of them.
"""

import argparse
from typing import Any, NamedTuple

from bench.evaluation.workloads import ENTRIES, Entry, Workload, agreement, best_batch, workload
from bench.shared.benchmark import Benchmark, argument_parser, print_figures, read_results, select
from bench.shared.datasets import DATA, write_rows
from bench.shared.environments import CACHE
from bench.shared.measurement import MAX_INTERFERENCE, MAX_TRIAL_INTERFERENCE, Measurement
from bench.shared.models import qwen_shape
from zephyr.model.load import load_tokenizer

ROUNDS = 3
FRAMEWORKS = ("zephyr", "lm_eval")


class Line(NamedTuple):
    """What is measured by turns: one of the frameworks on an entry."""

    entry: Entry
    framework: str

    @property
    def name(self) -> str:
        return self.entry.name


class EvaluationBenchmark(Benchmark):
    """Two models, their workloads, and measurements of both frameworks on them."""

    def __init__(self, arguments: argparse.Namespace, entries: list[Entry]) -> None:
        super().__init__(arguments)
        self.entries = entries
        self.models = {"qwen": qwen_shape(), "tinystories": DATA / "models" / "tinystories-656k"}
        self.results_path = self.path("evaluation-cpu", published=self.is_complete)

    def workload(self, entry: Entry, count: int) -> Workload:
        return workload(entry, load_tokenizer(self.models[entry.model]), count)

    def measure_line(
        self, line: Line, batch: int, items: Workload, max_interference: float = MAX_INTERFERENCE
    ) -> list[Measurement]:
        """A measurement with its rate, after those that were discarded."""
        entry, framework = line
        folder = CACHE / "rows" / f"evaluation-{entry.task}-{entry.model}"
        job = {
            "task": entry.task,
            "model": str(self.models[entry.model]),
            "dtype": entry.dtype,
            "context": entry.context,
            "batch": batch,
            "rows": write_rows(folder / "rows.jsonl", items.rows),
            "warmup": write_rows(folder / "warmup.jsonl", items.warmup),
            "few_shot": write_rows(folder / "few-shot.jsonl", items.few_shot),
        }
        module = f"bench.evaluation.{framework}"
        attempts = self.measure(framework, module, job, max_interference)
        if "failed" not in (last := attempts[-1]):
            done = items.tokens if entry.task == "wikitext" else len(items.rows)
            last["rate"] = done / last["seconds"]
        return [{"framework": framework, **attempt} for attempt in attempts]

    def trials(self, entry: Entry, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """lm-eval measured at each batch size that has not been tried, if there are several."""
        if len(entry.batches) == 1:
            return [{"name": entry.name, "batch": entry.batches[0]}]
        found = [trial for trial in known if trial["name"] == entry.name]
        items = self.workload(entry, min(entry.trial, entry.items))
        for batch in sorted(set(entry.batches) - {trial["batch"] for trial in found}):
            line = Line(entry, "lm_eval")
            last = self.measure_line(line, batch, items, MAX_TRIAL_INTERFERENCE)[-1]
            print_figures(f"trial: {entry.name}, batch {batch}", last, figure_text)
            del last["values"]
            found.append({"name": entry.name, "batch": batch, **last})
        return found

    def run_rounds(self) -> None:
        """Trials where there are none yet, then all entries in turn, round by round."""
        known = read_results(self.results_path).get("trials", [])
        trials = {entry.name: self.trials(entry, known) for entry in self.entries}
        items = {entry.name: self.workload(entry, entry.items) for entry in self.entries}

        def measure_line(line: Line, number: int) -> list[Measurement]:
            return self.measure_line(line, best_batch(trials[line.name]), items[line.name])

        def header(measurements: list[Measurement]) -> dict[str, Any]:
            lines = []
            for entry in self.entries:
                last = {m["framework"]: m for m in measurements if m["name"] == entry.name}
                tokens, batch = items[entry.name].tokens, best_batch(trials[entry.name])
                agreed = agreement(entry, tokens, last["zephyr"], last["lm_eval"])
                about = {"name": entry.name, "dtype": entry.dtype, "tokens": tokens}
                lines.append({**entry._asdict(), **about, "batch": batch, "agreement": agreed})
            return {"entries": lines, "trials": [row for rows in trials.values() for row in rows]}

        lines = [Line(entry, framework) for entry in self.entries for framework in FRAMEWORKS]
        self.run(self.results_path, lines, measure_line, figure_text, header)


def figure_text(measurement: Measurement) -> str:
    return f"{measurement['framework']} {measurement['rate']:.3g} a second"


def main() -> None:
    given = argument_parser(__doc__, ROUNDS).parse_args()
    entries = select(ENTRIES, given.only)
    if given.quick:
        entries = [
            e._replace(items=max(2, e.items // 8), trial=2, batches=e.batches[:1]) for e in entries
        ]
    EvaluationBenchmark(given, entries).run_rounds()


if __name__ == "__main__":
    main()
