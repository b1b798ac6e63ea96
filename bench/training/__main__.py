"""Training benchmark: Zephyr, TRL and LLaMA-Factory on the same rows.

python -m bench.training [--trials] [--device cpu|cuda] [--only TEXT ...] [--rounds N] [--quick]

The fastest setting of each peer is found in trials, one measurement a candidate: of those that this
device has not had yet, or with --trials of all, and of nothing else. Then all is measured in
rounds, the frameworks taking turns. Results go to results/bench/, and docs/benchmarks.md is made of
them.
"""

import argparse
from typing import Any, NamedTuple

from bench.shared import benchmark
from bench.shared.benchmark import Benchmark, fast_dtype
from bench.shared.datasets import write_rows
from bench.shared.environments import CACHE
from bench.shared.measurement import MAX_INTERFERENCE, MAX_TRIAL_INTERFERENCE, Measurement
from bench.shared.models import in_float32, qwen_shape
from bench.training import rows, settings
from bench.training.figures import agreement, figures
from bench.training.settings import Candidate, Entry, Options

LAYERS, QUICK_LAYERS = 24, 2


class Workload(NamedTuple):
    """The files of one kind of rows (warm-up, timed), and what the timed ones hold."""

    files: list[str]
    counted: rows.Count
    batch: int


class TrainingBenchmark(Benchmark):
    """A model, its rows, and measurements of training it on them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from transformers import AutoTokenizer

        super().__init__(arguments)
        self.plan = settings.PLANS[self.device]
        self.rounds = self.rounds or self.plan.rounds
        self.layers = QUICK_LAYERS if self.quick else LAYERS
        self.model = qwen_shape(self.layers)
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.workloads = {
            "sft": self._workload("sft", rows.chats(), self.plan.chats),
            "dpo": self._workload("dpo", rows.pairs(), self.plan.pairs),
        }
        self.matrix_rates: list[float] = []
        kind = self.device if self.device == "cuda" else f"{self.device}-{fast_dtype()}"
        self.candidates = settings.CANDIDATES[kind]
        self.results_path = self.path(f"training-{kind}", published=self.is_complete)
        self.trials_path = self.path(f"trials-{kind}", published=not self.quick)

    def _workload(self, kind: str, sources: list[list[rows.Row]], batch: int) -> Workload:
        timed = batch * self.plan.steps
        drawn = rows.draw(sources, timed + settings.WARMUP_ROWS, self.tokenizer)
        files = [
            write_rows(CACHE / "rows" / f"{kind}-{name}-{timed}.jsonl", part)
            for name, part in (("warmup", drawn[timed:]), ("timed", drawn[:timed]))
        ]
        return Workload(files, rows.count(drawn[:timed], self.tokenizer), batch)

    def measure_training(
        self, entry: Entry, options: Options, max_interference: float = MAX_INTERFERENCE
    ) -> list[Measurement]:
        """A measurement with its figures, after those that were discarded."""
        workload = self.workloads[entry.work]
        float32 = options.get("weights") == "float32"
        job = {
            "kind": entry.work,
            "model": str(in_float32(self.model) if float32 else self.model),
            "targets": settings.TARGETS[entry.targets],
            "rows": workload.files,
            "batch": workload.batch,
            "max_length": rows.MAX_LENGTH,
            "tokens_per_row": workload.counted.tokens / workload.counted.rows,
            "options": {key: value for key, value in options.items() if key != "weights"},
            **settings.HYPERPARAMETERS,
        }
        module = f"bench.training.{entry.framework}"
        attempts = self.measure(entry.framework, module, job, max_interference)
        if "failed" not in (last := attempts[-1]):
            rate = self.matrix_rates[-1]
            last["figures"] = figures(entry, last, workload.counted, rate, self.layers)
            last["agreement"] = agreement(last, workload.counted)
        return attempts

    def measure_matrix_rate(self) -> None:
        """Operations a second of matrix products, in the dtype that is fastest here."""
        job = {"dtype": fast_dtype()}
        found = self.measure("matrix", "bench.training.matrix", job, MAX_TRIAL_INTERFERENCE)
        self.matrix_rates.append(float(found[-1]["rate"]))

    def describe(self) -> dict[str, Any]:
        self.versions.pop("matrix", None)
        return {
            **super().describe(),
            "layers": self.layers,
            "plan": self.plan._replace(rounds=self.rounds)._asdict(),
            "rows": {kind: each.counted._asdict() for kind, each in self.workloads.items()},
        }

    def trials(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = benchmark.read_results(self.trials_path).get("trials", [])
        return found

    def run_trials(self, candidates: list[Candidate]) -> None:
        """One measurement of each of these candidates; the file keeps those of the others."""
        for candidate in candidates:
            if not self.matrix_rates:
                self.measure_matrix_rate()
            entry = Entry(candidate.work, candidate.framework, "trial")
            last = self.measure_training(entry, candidate.options, MAX_TRIAL_INTERFERENCE)[-1]
            benchmark.print_figures(candidate.name, last, figure_text)
            others = [row for row in self.trials() if row["name"] != candidate.name]
            row = {**candidate._asdict(), "name": candidate.name, **last}
            self.write(self.trials_path, {**self.describe(), "trials": [*others, row]})
        self.matrix_rates.clear()

    def best_options(self, entry: Entry) -> Options:
        """The candidate with the highest throughput in the trials; nothing for other settings."""
        if entry.setting != "best":
            return {}
        figure = "tokens_per_second" if entry.work == "sft" else "pairs_per_second"
        tried = [
            row
            for row in self.trials()
            if (row["work"], row["framework"]) == (entry.work, entry.framework) and "figures" in row
        ]
        fastest: Options = max(tried, key=lambda row: row["figures"][figure])["options"]
        return fastest

    def run_rounds(self, entries: list[Entry]) -> None:
        options = {entry.name: self.best_options(entry) for entry in entries}
        lines = [{**e._asdict(), "name": e.name, "options": options[e.name]} for e in entries]

        def measure_entry(entry: Entry, number: int) -> list[Measurement]:
            if len(self.matrix_rates) <= number:
                self.measure_matrix_rate()
            in_few = entry.setting == "default" or entry.targets != "q, v"
            if in_few and number >= self.plan.defaults:
                return []
            return self.measure_training(entry, options[entry.name])

        def header(_: list[Measurement]) -> dict[str, Any]:
            return {"matrix_rate": self.matrix_rates, "entries": lines}

        self.run(self.results_path, entries, measure_entry, figure_text, header)


def figure_text(measurement: Measurement) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in measurement["figures"].items())


def main() -> None:
    parser = benchmark.argument_parser(__doc__, rounds=0)
    parser.add_argument("--trials", action="store_true", help="try the peers' candidates again")
    parser.add_argument("--device", choices=tuple(settings.PLANS), default="cpu")
    given = parser.parse_args()
    training = TrainingBenchmark(given)
    if given.trials:
        training.run_trials(benchmark.select(training.candidates, given.only))
        return
    entries = benchmark.select(settings.ENTRIES, given.only)
    best = {(e.work, e.framework) for e in entries if e.setting == "best"}
    tried = {row["name"] for row in training.trials()}
    training.run_trials(
        [c for c in training.candidates if (c.work, c.framework) in best and c.name not in tried]
    )
    training.run_rounds(entries)


if __name__ == "__main__":
    main()
