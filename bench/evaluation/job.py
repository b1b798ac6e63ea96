"""Evaluation job: what the worker processes of both frameworks have in common.

The first pass, over a few items, warms the process up; the second counts. What is timed is all from
rows to scores: prompts, tokens, forwards, scores. Loading the model is left out.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bench.shared import worker
from bench.shared.worker import Job, Row, read_rows


class Scores(NamedTuple):
    """The log-probabilities of each item, or how many tokens were generated."""

    values: list[list[float]]
    tokens: int


Scorer = Callable[[list[Row]], Scores]


def main(load: Callable[[Job], Scorer], packages: Iterable[str]) -> None:
    """Runs the job that the command line names; `load` loads the model that scores the items."""

    def run(job: Job) -> dict[str, Any]:
        worker.limit_memory(job)
        score = load(job)
        score(read_rows(job.warmup))
        start = time.perf_counter()
        scores = score(read_rows(job.rows))
        return {"seconds": time.perf_counter() - start, **scores._asdict()}

    worker.main(run, packages)
