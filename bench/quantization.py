"""Quantization measured on the shapes of Qwen1.5-0.5B and BLOOM-560M: time, memory, bytes, speed.

python -m bench.quantization [--only SHAPE ...] [--data FOLDER]

Weights are random, for none of this depends on what they have learned. Each model is made in a
process of its own, and measured in another. Results go to results/bench/, and docs/benchmarks.md is
made of them.
"""

import argparse
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench import page, shape
from bench.machine import commit, machine, write
from bench.peers import FOLDER, ROOT
from bench.reading import alone, take

QUIET = 0.25
RESULTS = ROOT / "results" / "bench"
CALIBRATED = "qwen1.5-0.5b-shape-24-layers"
"""The shape on which GPTQ is measured: it takes minutes, and layers of the other are as large."""
METHODS: dict[str, Any] = {
    "int8": "int8",
    "nf4": "nf4",
    "nf4, scales not quantized": {"method": "nf4", "double": False},
    "int4, groups of 128": "int4-g128",
    "int4, groups of 32": "int4-g32",
    "gptq": {"method": "gptq", "data": "text", "rows": 32, "length": 512},
    "gptq, embeddings int8": {
        "method": "gptq",
        "data": "text",
        "rows": 32,
        "length": 512,
        "embeddings": "int8",
    },
}


def recipe(base: Path, data: Path) -> dict[str, Any]:
    """A base, what is made of it, and the text on which it is calibrated."""
    source = {"name": "gsm8k", "path": str(data / "gsm8k" / "train.jsonl.gz")}
    quantized = {
        f"Q{at}": {"from": "base", "quantize": spec} for at, spec in enumerate(METHODS.values())
    }
    return {
        "name": base.name,
        "data": {"text": {"kind": "chat", "cap": 400, "holdout": 0.05, "sources": [source]}},
        "models": {"base": {"base": str(base)}} | quantized,
    }


def measure(name: str, data: Path) -> list[dict[str, Any]]:
    """The rows of one shape: the whole model, then each method."""
    base = FOLDER / "models" / name
    if not (base / "model.safetensors").exists():
        shape.MAKERS[name](base, data / "tokenizers")
    folder = FOLDER / "quantization" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(base, data)))
    job = {"recipe": str(path), "store": str(folder / "runs"), "device": "cpu"}

    def read(model: str, part: str) -> dict[str, Any]:
        reading, _ = take("quantize", {**job, "model": model, "part": part}, QUIET)
        return reading

    for node in ("data.text", "base"):
        read(node, "make")
    whole = read("base", "whole")
    rows = [
        {"shape": name, "method": "whole", "whole": whole, **_measured(read("base", "measure"))}
    ]
    for at, method in enumerate(METHODS):
        if method.startswith("gptq") and name != CALIBRATED:
            continue
        made = read(f"Q{at}", "make")
        row = {"shape": name, "method": method, "made": made}
        rows.append(row | _measured(read(f"Q{at}", "measure")))
        print(f"{name}, {method}: {made['seconds']:.0f} s", flush=True)
    return rows


def _measured(reading: dict[str, Any]) -> dict[str, Any]:
    first, *rest = reading["readings"]
    readings = [first, *rest]
    speeds = {key: [r[key] for r in readings] for key in ("prompt", "decode")}
    sizes = {key: first[key] for key in ("disk", "memory", "peak")}
    return {**sizes, **speeds, "dtype": reading["dtype"], "threads": reading["threads"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=list(shape.MAKERS))
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("ZEPHYR_REAL_DATA", ROOT.parent / "shared" / "data")),
    )
    given = parser.parse_args()
    path = RESULTS / "quantization-cpu.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in before if row["shape"] not in given.only]
    with alone():
        for name in given.only:
            rows += measure(name, given.data.resolve())
            result = {
                "machine": machine("cpu"),
                "commit": commit(),
                "date": datetime.now(UTC).date().isoformat(),
                "rows": rows,
            }
            write(path, result)
    page.write()


if __name__ == "__main__":
    main()
