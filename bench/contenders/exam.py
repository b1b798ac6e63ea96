"""What each contender's process does alike when it evaluates: reads a job, asks twice, times it.

The first asking, of a few items, warms the process up; the second counts. What is timed is all from
rows to scores: prompts, tokens, forwards, scores. Loading the model is left out.
"""

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.contenders.job import peak_bytes, read_rows, threads


@dataclass(frozen=True)
class Exam:
    """`work` is hellaswag, mmlu, gsm8k or wikitext; `rows` holds what is asked, a file of JSON
    lines, and `warming` a few rows more; `shown` are MMLU's worked examples.

    `context` bounds the tokens that are read at once, `batch` is lm-eval's.
    """

    work: str
    model: str
    device: str
    dtype: str
    rows: str
    warming: str
    shown: str
    context: int
    batch: int
    folder: str
    memory: int


class Answers(NamedTuple):
    """What was said: log-probabilities of each item, or the tokens of its answer."""

    values: list[list[float]]
    tokens: int


def main(
    ask: Callable[[Exam], Callable[[list[dict[str, Any]]], Answers]], packages: Iterable[str]
) -> None:
    """Runs the exam in the file that the command line names, and writes the result to the other."""
    source, goal = map(Path, sys.argv[1:])
    exam = Exam(**json.loads(source.read_text()))
    if exam.device == "cpu":
        resource.setrlimit(resource.RLIMIT_AS, (exam.memory, exam.memory))
    asked = ask(exam)
    asked(read_rows(exam.warming))
    start = time.perf_counter()
    answers = asked(read_rows(exam.rows))
    seconds = time.perf_counter() - start
    result = {
        "seconds": seconds,
        "values": answers.values,
        "tokens": answers.tokens,
        "peak_bytes": peak_bytes(exam.device),
        "threads": threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    goal.write_text(json.dumps(result))
