"""Serving benchmark: `zephyr serve` and `transformers serve`, over HTTP.

python -m bench.serving [--only TEXT ...] [--rounds N] [--quick] [--transformers PYTHON]

The same prompts go to each, by one user and by eight at once, and every answer is as long. One
server runs at a time, in a process of its own; the order turns from round to round. Results go to
results/bench/, and docs/benchmarks.md is made of them. `--transformers` is an interpreter that has
transformers[serving], where bench.shared.environments has made none.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from transformers import AutoTokenizer

from bench.shared.benchmark import Benchmark, argument_parser, select
from bench.shared.datasets import read_rows
from bench.shared.environments import CACHE, interpreter
from bench.shared.measurement import Measurement
from bench.shared.models import qwen_shape, small_shape
from zephyr.model.precision import choose_dtype, stored_dtype

ROUNDS = 2
TOKENS, QUICK_TOKENS = 128, 16
PROMPT_TOKENS = 90, 110
"""The least and the most tokens of a prompt in a model's own chat form."""
MAX_SECONDS = 90.0
USERS = 8
MODEL = "base"
PACKAGES = ["torch", "transformers", "fastapi", "uvicorn"]


class Model(NamedTuple):
    """A model, and how many requests one user makes and eight make together."""

    name: str
    make: Callable[[], Path]
    alone: int
    together: int


MODELS = (
    Model("qwen1.5-0.5b-shape", lambda: qwen_shape(endless=True), 3, 8),
    Model("small", small_shape, 16, 64),
)
QUICK = (Model("small", small_shape, 2, 8),)
DTYPES: dict[str, tuple[str | None, ...]] = {
    "zephyr": (None,),
    "transformers": (None, "float32", "bfloat16"),
    "transformers, continuous batching": (None, "float32", "bfloat16"),
}
"""The dtypes in which each server computes; None is its default."""


class Entry(NamedTuple):
    """A line of the tables: a server on a model, in its default dtype or in another."""

    model: Model
    server: str
    dtype: str | None

    @property
    def name(self) -> str:
        return f"{self.model.name} · {self.server} · {self.dtype or 'default'}"


def all_entries(models: tuple[Model, ...]) -> list[Entry]:
    return [
        Entry(model, server, dtype)
        for model in models
        for server, dtypes in DTYPES.items()
        for dtype in dtypes
    ]


def default_dtype(entry: Entry) -> str:
    """The dtype in which a server computes by default."""
    if entry.server == "zephyr":
        return choose_dtype("auto", entry.model.make())
    return str(stored_dtype(entry.model.make())).removeprefix("torch.")  # that of the weights


def prompts(folder: Path, count: int) -> list[str]:
    """So many questions of GSM8K's test of about a hundred tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def length(question: str) -> int:
        chat = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    questions = [row["question"] for row in read_rows("gsm8k/test")]
    random.Random(0).shuffle(questions)
    found = list(
        islice((q for q in questions if PROMPT_TOKENS[0] <= length(q) <= PROMPT_TOKENS[1]), count)
    )
    assert len(found) == count, f"only {len(found)} questions have such lengths"
    return found


def job(entry: Entry, transformers: str, *, quick: bool) -> dict[str, Any]:
    """The job of the worker that starts a server and measures it."""
    folder, requests = entry.model.make(), entry.model.together
    drawn = prompts(folder, requests + USERS)
    found = {
        "prompts": drawn[:requests],
        "warmup": drawn[requests:],
        "tokens": QUICK_TOKENS if quick else TOKENS,
        "loads": [(1, entry.model.alone), (USERS, requests)],
        "max_seconds": MAX_SECONDS,
    }
    if entry.server == "zephyr":
        recipe, environment = _run_recipe(entry.model)
        command = [sys.executable, "-m", "zephyr", "serve", MODEL, "--recipe", str(recipe)]
        more = {"model": MODEL, "packages": ["zephyr-tutor", *PACKAGES], "environment": environment}
    else:
        command = [transformers, "-m", "transformers.cli.transformers", "serve", str(folder)]
        command += ["--host", "127.0.0.1"]
        command += ["--continuous-batching"] if entry.server != "transformers" else []
        command += ["--dtype", entry.dtype] if entry.dtype else []
        more = {"model": str(folder), "packages": PACKAGES, "environment": {}}
    return {**found, **more, "command": [*command, "--port", "{port}"]}


def _run_recipe(model: Model) -> tuple[Path, dict[str, str]]:
    """A recipe that has nothing but the model, run for `zephyr serve`, and its environment."""
    folder = CACHE / "serving" / model.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.jsonl").write_text('{"text": "Nothing is learned from this line."}\n')
    data = {"kind": "passage", "clean": "report", "sources": [{"path": "text.jsonl"}]}
    models = {MODEL: {"base": str(model.make())}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": model.name, "data": {"text": data}, "models": models}))
    environment = {"ZEPHYR_RUNS": str(folder / "runs")}
    command = [sys.executable, "-m", "zephyr", "run", str(path)]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    return path, environment


def figure_text(measurement: Measurement) -> str:
    return ", ".join(
        f"{load['users']} at once {load['tokens_per_second']:.3g} tokens/s"
        for load in measurement["loads"]
    )


def main() -> None:
    parser = argument_parser(__doc__, ROUNDS)
    parser.add_argument("--transformers", default=str(interpreter("transformers")))
    given = parser.parse_args()
    benchmark = Benchmark(given)
    wanted = select(all_entries(QUICK if given.quick else MODELS), given.only)
    entries = [entry for entry in wanted if entry.dtype != default_dtype(entry)]
    jobs = {entry.name: job(entry, given.transformers, quick=given.quick) for entry in entries}
    lines = [
        {
            "name": entry.name,
            "model": entry.model.name,
            "server": entry.server,
            "default": entry.dtype is None,
            "dtype": entry.dtype or default_dtype(entry),
        }
        for entry in entries
    ]

    def measure_entry(entry: Entry, number: int) -> list[Measurement]:
        return benchmark.measure(entry.server, "bench.serving.worker", jobs[entry.name])

    def header(_: list[Measurement]) -> dict[str, Any]:
        return {"tokens": TOKENS, "entries": lines}

    path = benchmark.path("serving-cpu", published=benchmark.is_complete)
    benchmark.run(path, entries, measure_entry, figure_text, header)


if __name__ == "__main__":
    main()
