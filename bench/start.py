"""How long a training of D_S's size takes to its first step, and whether its memory stays flat.

python bench/start.py FOLDER [--out results/training-start.json]

FOLDER gets a finished mixture of 102,030 made-up chats of D_S's lengths (180 MB), and a small base
of Qwen2's architecture. With ZEPHYR_REAL_DATA the tokenizer is Qwen2's and the sentences are those
of Open-Platypus; without, the tokenizer is made here and the words are made up. The stage is the
one that `zephyr run` makes, in a process of its own:

start    from the beginning of the stage to the first step: the base and the mixture are loaded, all
         chats are cut into tokens, sixteen of them are trained on; and how long the tokenizer alone
         takes for the same texts
memory   what the process holds every 50 of 500 steps (batches of 4: ten minutes and more)
"""

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from data import CAP, CHARACTERS, Pool

from zephyr.data import mixture
from zephyr.data.table import SOURCES
from zephyr.records import Chat, Message, to_json
from zephyr.runs.store import Store, write_json, write_json_lines

HELD_OUT = 5_102
STEPS = 500
EVERY = 50


def real() -> Path | None:
    folder = os.environ.get("ZEPHYR_REAL_DATA")
    return Path(folder) if folder else None


def pool() -> Pool:
    made = Pool(1)
    folder = real()
    if folder is not None:
        with gzip.open(folder / "sft" / "open_platypus.jsonl.gz", "rt") as file:
            texts = [row["output"] for row in map(json.loads, file)]
        made.sentences = [f"{s}." for text in texts for s in text.split(". ") if 20 < len(s) < 300]
        made.mean = float(np.mean([len(s) + 1 for s in made.sentences]))
    return made


def chats() -> Iterator[Chat]:
    """As many chats of each source as D_S has, three tenths of each the question."""
    texts = pool()
    for name, characters in CHARACTERS.items():
        rows = SOURCES[name].splits["train"]
        assert rows is not None
        for _ in range(min(rows, CAP)):
            asked, answered = texts.text(characters * 0.3), texts.text(characters * 0.7)
            yield Chat(name, (Message("user", asked), Message("assistant", answered)))


def make_files(store: Store) -> None:
    """The runs of the mixture and of the base, finished."""
    from zephyr.model import from_scratch
    from zephyr.model.load import Lineage, load_tokenizer
    from zephyr.recipe.training import Shape

    if not store.find("data").is_finished:
        made = list(chats())
        made = [made[i] for i in np.random.default_rng(1).permutation(len(made))]
        run = store.begin("data", {})
        for name, side in zip(
            mixture.RECORD_FILES, (made[HELD_OUT:], made[:HELD_OUT]), strict=True
        ):
            write_json_lines(run.artifact / name, map(to_json, side))
        store.finish(run)
    if not store.find("base").is_finished:
        folder = real()
        run = store.begin("base", {})
        weights = run.artifact / "weights"
        if folder is not None:
            weights.mkdir(exist_ok=True)
            for path in (folder / "tokenizers" / "qwen2").glob("*.gz"):
                (weights / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
            tokenizer = load_tokenizer(weights)
        else:
            tokenizer = from_scratch.train_tokenizer(pool().sentences[:20_000], 4096)
        shape = Shape(vocabulary=len(tokenizer), hidden=32, layers=2, heads=2, mlp=64, context=2048)
        from_scratch.make_network(
            shape, eos_token_id=tokenizer.eos_token_id, seed=1
        ).save_pretrained(weights)
        tokenizer.save_pretrained(weights)
        Lineage("objects/base/artifact/weights").write(run.artifact)
        store.finish(run)


def tune(store: Store, *, steps: int, batch: int, every: int) -> list[dict[str, Any]]:
    """Runs the stage; seconds since its start and memory at each row that is logged."""
    import torch

    from zephyr.recipe.schema import Recipe
    from zephyr.runs.context import Context
    from zephyr.runs.graph import Node
    from zephyr.train import stages

    torch.set_num_threads(os.cpu_count() or 1)
    learning = {"data": "sft", "steps": steps, "batch": batch, "log_every": every}
    recipe = Recipe.model_validate(
        {
            "name": "start",
            "data": {"sft": {"kind": "chat", "sources": ["lima"]}},
            "models": {"M0": {"base": "base"}, "M1": {"from": "M0", "tune": learning}},
        }
    )
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()

    def progress(phase: str, done: int, of: int, row: dict[str, Any]) -> None:
        seconds = round(time.perf_counter() - start, 2)
        rows.append({"step": done, "seconds": seconds, "MB": resident(), "peak MB": peak()})
        if phase == "training" and done == of:
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


def resident() -> int:
    """Megabytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6)


def peak() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def measure_start(store: Store) -> dict[str, Any]:
    [row] = tune(store, steps=1, batch=16, every=1)
    account = json.loads(
        next(store.root.glob(f"objects/tune-{os.getpid()}.part/artifact/examples.json")).read_text()
    )
    examples = account["train"] + account["holdout"]
    tokens = sum(source["tokens"] for source in account["sources"].values())
    return {
        "seconds": row["seconds"],
        "examples": examples,
        "left out": account["train_overlong"] + account["holdout_overlong"],
        "tokens": tokens,
        "peak MB": row["peak MB"],
    }


def measure_tokenizer(store: Store) -> dict[str, Any]:
    """The tokenizer alone, on as many cores: no start can be quicker."""
    from zephyr.model.load import load_tokenizer

    tokenizer = load_tokenizer(store.find("base").artifact / "weights")
    texts = [
        t
        for side in mixture.load_mixture(store.find("data").artifact)
        for r in side
        for t in r.texts
    ]
    start = time.perf_counter()
    for at in range(0, len(texts), 2048):
        tokenizer(texts[at : at + 2048], add_special_tokens=False, return_attention_mask=False)
    return {"seconds": round(time.perf_counter() - start, 2), "characters": sum(map(len, texts))}


def measure_memory(store: Store) -> dict[str, Any]:
    rows = tune(store, steps=STEPS, batch=4, every=EVERY)
    slope = np.polyfit([r["step"] for r in rows], [r["MB"] for r in rows], 1)[0]
    return {
        "MB at each 50 steps": [r["MB"] for r in rows],
        "MB more for each 100 steps": round(100 * float(slope), 2),
        "peak MB": rows[-1]["peak MB"],
        "seconds": rows[-1]["seconds"],
    }


PARTS = {"start": measure_start, "tokenizer alone": measure_tokenizer, "memory": measure_memory}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=PARTS)
    arguments = parser.parse_args()
    store = Store(arguments.folder.resolve())
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](store)))
        return
    make_files(store)
    found: dict[str, Any] = {}
    if arguments.out and arguments.out.exists():
        found = json.loads(arguments.out.read_text())
    found |= {
        "what": "bench/start.py",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}; load {os.getloadavg()[0]:.2f}",
        "tokenizer": "Qwen2's" if real() else "made here",
        "versions": {n: version(n) for n in ("torch", "transformers", "tokenizers", "numpy")},
        "python": platform.python_version(),
    }
    for part in PARTS:
        command = [sys.executable, __file__, str(arguments.folder), "--part", part]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[part] = json.loads(output.splitlines()[-1])
        print(part, found[part], flush=True)
    if arguments.out:
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
