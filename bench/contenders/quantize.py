"""Makes one quantized model of a recipe, or measures one, in a process of its own."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from zephyr.engine.plan import make_plan
from zephyr.engine.stages import run_stage
from zephyr.evaluate.footprint import FootprintBenchmark
from zephyr.model.load import Lineage, load_model, silence_libraries
from zephyr.model.precision import choose_dtype
from zephyr.recipe.load import read_recipe
from zephyr.runs.context import Context
from zephyr.runs.store import Store
from zephyr.system.memory import peak_memory


def main() -> None:
    source, goal = map(Path, sys.argv[1:])
    job: dict[str, Any] = json.loads(source.read_text())
    silence_libraries()
    path = Path(job["recipe"])
    recipe, folder = read_recipe(path), path.parent
    store = Store(Path(job["store"]))
    plan = make_plan(recipe, folder, store)
    node = plan.nodes[job["model"]]
    began = time.perf_counter()
    result: dict[str, Any] = {}
    if job["part"] == "measure":
        lineage = Lineage.read(store.find(node.fingerprint).artifact)
        dtype = choose_dtype("auto", lineage.weights_folder(store.root))
        result["readings"] = FootprintBenchmark(lineage, store.root, dtype).measure()
        result["dtype"] = dtype
    elif job["part"] == "whole":
        lineage = Lineage.read(store.find(node.fingerprint).artifact)
        with peak_memory() as peak:
            load_model(lineage, store.root, token_budget=4096)
        result["peak_bytes"] = peak[0]
    else:
        inputs = {role: store.find(plan.nodes[n].fingerprint) for role, n in node.inputs.items()}
        run = store.begin(node.fingerprint, node.to_json())
        with peak_memory() as peak:
            run_stage(node, inputs, run, Context(recipe, folder, store.root, 4096))
        (run.path / "env.json").write_text("{}")
        store.finish(run)
        result["peak_bytes"] = peak[0]
    result |= {"seconds": time.perf_counter() - began, "threads": torch.get_num_threads()}
    goal.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
