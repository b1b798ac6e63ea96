"""Start-up benchmark: how long training on D_S's size takes to its first step; its memory.

python -m bench.training.startup [--only TEXT ...]

A finished mixture of 102,030 synthetic chats of D_S's lengths (180 MB), and a small base of Qwen2's
architecture, are made once, with Qwen2's tokenizer. The stage is the one that `zephyr run` makes,
in a process of its own. Results go to results/training-start.json:

start            from the beginning of the stage to the first step: the base and the mixture are
                 loaded, all chats are tokenized, sixteen of them are trained on
tokenizer alone  how long the tokenizer takes for the same texts: no start can be quicker
memory           what the process holds every 50 of 500 steps (batches of 4: ten minutes and more)
"""

import gzip
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.data.corpus import SentencePool, chats, platypus_sentences
from bench.shared.benchmark import measure_parts
from bench.shared.datasets import DATA
from bench.shared.environments import ROOT
from bench.shared.worker import peak_bytes
from zephyr.data import mixture
from zephyr.records import to_json
from zephyr.runs.store import Store, write_json_lines

HELD_OUT = 5_102
STEPS, LOGGED_STEPS = 500, 50
PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def make_runs(folder: Path) -> dict[str, Any]:
    """The runs of the mixture and of the base, finished."""
    store = Store(folder)
    if not store.find("data").is_finished:
        records = list(chats(SentencePool(1, platypus_sentences())))
        records = [records[i] for i in np.random.default_rng(1).permutation(len(records))]
        run = store.begin("data", {})
        splits = (records[HELD_OUT:], records[:HELD_OUT])
        for name, split in zip(mixture.RECORD_FILES, splits, strict=True):
            write_json_lines(run.artifact / name, map(to_json, split))
        store.finish(run)
    if not store.find("base").is_finished:
        _make_base(store)
    return {"tokenizer": "Qwen2's", "versions": {name: version(name) for name in PACKAGES}}


def _make_base(store: Store) -> None:
    from zephyr.model import from_scratch
    from zephyr.model.load import Lineage, load_tokenizer
    from zephyr.recipe.training import Shape

    run = store.begin("base", {})
    weights = run.artifact / "weights"
    weights.mkdir(exist_ok=True)
    for path in (DATA / "tokenizers" / "qwen2").glob("*.gz"):
        (weights / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    tokenizer = load_tokenizer(weights)
    shape = Shape(vocabulary=len(tokenizer), hidden=32, layers=2, heads=2, mlp=64, context=2048)
    network = from_scratch.make_network(shape, eos_token_id=tokenizer.eos_token_id, seed=1)
    network.save_pretrained(weights)
    tokenizer.save_pretrained(weights)
    Lineage("objects/base/artifact/weights").write(run.artifact)
    store.finish(run)


def tune(store: Store, *, steps: int, batch: int, log_every: int) -> list[dict[str, Any]]:
    """Runs the stage; seconds since its start and memory at each step that is logged."""
    from zephyr.recipe.schema import Recipe
    from zephyr.runs.context import Context
    from zephyr.runs.graph import Node
    from zephyr.train import stages

    spec = {"data": "sft", "steps": steps, "batch": batch, "log_every": log_every}
    recipe = Recipe.model_validate(
        {
            "name": "start",
            "data": {"sft": {"kind": "chat", "sources": ["lima"]}},
            "models": {"M0": {"base": "base"}, "M1": {"from": "M0", "tune": spec}},
        }
    )
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()

    def progress(phase: str, done: int, total: int, row: dict[str, Any]) -> None:
        if phase != "training" or not row:
            return  # another phase, or a step that is not logged
        megabytes = round(psutil.Process().memory_info().rss / 1e6)
        seconds = round(time.perf_counter() - start, 2)
        rows.append({"step": done, "seconds": seconds, "MB": megabytes})
        if done == total:
            raise KeyboardInterrupt  # the hold-out need not be looked at

    node = Node("M1", "tune", {"seed": 1}, {"from": "M0", "data": "data.sft"})
    inputs = {"from": store.find("base"), "data": store.find("data")}
    run = store.begin(f"tune-{os.getpid()}", {})
    context = Context(recipe, store.root, store.root, 4096, progress=progress)
    try:
        stages.tune(node, inputs, run, context)
    except KeyboardInterrupt:
        return rows
    raise AssertionError("the last step is logged")


def measure_start(folder: Path) -> dict[str, Any]:
    [row] = tune(Store(folder), steps=1, batch=16, log_every=1)
    [path] = folder.glob(f"objects/tune-{os.getpid()}.part/artifact/examples.json")
    counts = json.loads(path.read_text())
    return {
        "seconds": row["seconds"],
        "examples": counts["train"] + counts["holdout"],
        "left out": counts["train_overlong"] + counts["holdout_overlong"],
        "tokens": sum(source["tokens"] for source in counts["sources"].values()),
        "peak_bytes": peak_bytes("cpu"),
    }


def measure_tokenizer(folder: Path) -> dict[str, Any]:
    from zephyr.model.load import load_tokenizer

    store = Store(folder)
    tokenizer = load_tokenizer(store.find("base").artifact / "weights")
    splits = mixture.load_mixture(store.find("data").artifact)
    texts = [text for split in splits for record in split for text in record.texts]
    start = time.perf_counter()
    for at in range(0, len(texts), 2048):
        tokenizer(texts[at : at + 2048], add_special_tokens=False, return_attention_mask=False)
    return {"seconds": round(time.perf_counter() - start, 2), "characters": sum(map(len, texts))}


def measure_memory(folder: Path) -> dict[str, Any]:
    rows = tune(Store(folder), steps=STEPS, batch=4, log_every=LOGGED_STEPS)
    slope = np.polyfit([row["step"] for row in rows], [row["MB"] for row in rows], 1)[0]
    return {
        "MB at each 50 steps": [row["MB"] for row in rows],
        "MB more for each 100 steps": round(100 * float(slope), 2),
        "seconds": rows[-1]["seconds"],
    }


PARTS = {"start": measure_start, "tokenizer alone": measure_tokenizer, "memory": measure_memory}

if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    path = ROOT / "results" / "training-start.json"
    measure_parts(__doc__, "bench.training.startup", PARTS, make_runs, path)
