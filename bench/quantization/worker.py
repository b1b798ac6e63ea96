"""Quantization worker: makes one model of a recipe, or measures one."""

import time
from pathlib import Path
from typing import Any

from bench.shared.worker import Job, main
from zephyr.engine.plan import make_plan
from zephyr.engine.stages import run_stage
from zephyr.evaluate.footprint import FootprintBenchmark
from zephyr.model.load import Lineage, load_model, silence_libraries
from zephyr.model.precision import choose_dtype
from zephyr.recipe.load import read_recipe
from zephyr.runs.context import Context
from zephyr.runs.store import Store
from zephyr.system.memory import peak_memory

TOKEN_BUDGET = 4096


def run(job: Job) -> dict[str, Any]:
    """Does the `part` of the job: `make` a model, `load` it in float32, or `measure` it."""
    silence_libraries()
    path = Path(job.recipe)
    recipe, folder = read_recipe(path), path.parent
    store = Store(folder / "runs")
    plan = make_plan(recipe, folder, store)
    node = plan.nodes[job.model]
    start = time.perf_counter()
    if job.part == "make":
        inputs = {role: store.find(plan.nodes[n].fingerprint) for role, n in node.inputs.items()}
        unfinished = store.begin(node.fingerprint, node.to_json())
        with peak_memory() as peak:
            run_stage(node, inputs, unfinished, Context(recipe, folder, store.root, TOKEN_BUDGET))
        (unfinished.path / "env.json").write_text("{}")
        store.finish(unfinished)
        return {"peak_bytes": peak[0], "seconds": time.perf_counter() - start}
    lineage = Lineage.read(store.find(node.fingerprint).artifact)
    if job.part == "load":
        with peak_memory() as peak:
            load_model(lineage, store.root, token_budget=TOKEN_BUDGET)
        return {"peak_bytes": peak[0], "seconds": time.perf_counter() - start}
    dtype = choose_dtype("auto", lineage.weights_folder(store.root))
    return {"footprint": FootprintBenchmark(lineage, store.root, dtype).measure(), "dtype": dtype}


if __name__ == "__main__":
    main(run)
