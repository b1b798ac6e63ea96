"""Quantization benchmark: time, memory, bytes and speed on two real models' shapes.

python -m bench.quantization [--only TEXT ...]

Weights are random, for none of this depends on what they have learned. Each model is made in a
process of its own, and measured in another. Results go to results/bench/, and docs/benchmarks.md is
made of them.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.shared.benchmark import Benchmark, argument_parser, read_results, select
from bench.shared.datasets import DATA
from bench.shared.environments import CACHE
from bench.shared.measurement import Measurement
from bench.shared.models import bloom_shape, qwen_shape

MAX_INTERFERENCE = 0.25
GPTQ = {"method": "gptq", "data": "text", "rows": 32, "length": 512}
METHODS: dict[str, Any] = {
    "int8": "int8",
    "nf4": "nf4",
    "nf4, scales not quantized": {"method": "nf4", "double": False},
    "int4, groups of 128": "int4-g128",
    "int4, groups of 32": "int4-g32",
    "gptq": GPTQ,
    "gptq, embeddings int8": {**GPTQ, "embeddings": "int8"},
}


class Shape(NamedTuple):
    """A model, and what it is quantized with."""

    name: str
    base: Any
    methods: tuple[str, ...]


SHAPES = (
    Shape("qwen1.5-0.5b-shape-24-layers", qwen_shape, tuple(METHODS)),
    # GPTQ takes minutes, and layers of the other shape are as large
    Shape("bloom-560m-shape", bloom_shape, tuple(m for m in METHODS if "gptq" not in m)),
)


def recipe(base: Path) -> dict[str, Any]:
    """A base, its quantized models, and the text on which they are calibrated."""
    source = {"name": "gsm8k", "path": str(DATA / "gsm8k" / "train.jsonl.gz")}
    quantized = {m: {"from": "base", "quantize": spec} for m, spec in _models().items()}
    return {
        "name": base.name,
        "data": {"text": {"kind": "chat", "cap": 400, "holdout": 0.05, "sources": [source]}},
        "models": {"base": {"base": str(base)}} | quantized,
    }


def _models() -> dict[str, Any]:
    return {f"Q{at}": spec for at, spec in enumerate(METHODS.values())}


def measure_shape(benchmark: Benchmark, shape: Shape) -> list[dict[str, Any]]:
    """The rows of one shape: the base model, then each method."""
    folder = CACHE / "quantization" / shape.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(shape.base())))

    def run(model: str, part: str) -> Measurement:
        job = {"recipe": str(path), "model": model, "part": part}
        return benchmark.measure("zephyr", "bench.quantization.worker", job, MAX_INTERFERENCE)[-1]

    def footprint(model: str) -> dict[str, Any]:
        found = run(model, "measure")
        first = found["footprint"][0]
        speeds = {key: [each[key] for each in found["footprint"]] for key in ("prompt", "decode")}
        sizes = {key: first[key] for key in ("disk", "memory", "peak")}
        return {**sizes, **speeds, "dtype": found["dtype"], "threads": benchmark.threads}

    run("data.text", "make")
    run("base", "make")
    about = {"shape": shape.name}
    rows = [{**about, "method": "whole", "whole": run("base", "load"), **footprint("base")}]
    for model, method in zip(_models(), METHODS, strict=True):
        if method in shape.methods:
            made = run(model, "make")
            rows.append({**about, "method": method, "made": made, **footprint(model)})
            print(f"{shape.name}, {method}: {made['seconds']:.0f} s", flush=True)
    return rows


def main() -> None:
    given = argument_parser(__doc__).parse_args()
    benchmark, shapes = Benchmark(given), select(SHAPES, given.only)
    path = benchmark.path("quantization-cpu", published=True)
    measured = {shape.name for shape in shapes}
    rows = [row for row in read_results(path).get("rows", []) if row["shape"] not in measured]
    for shape in shapes:
        rows += measure_shape(benchmark, shape)
        benchmark.write(path, {**benchmark.describe(), "rows": rows})


if __name__ == "__main__":
    main()
