"""The stage `quantize`: what it writes for each method, and what it says that it changed."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests import workspace as places
from zephyr.engine.plan import make_plan
from zephyr.errors import ZephyrError
from zephyr.evaluate.footprint import FootprintBenchmark
from zephyr.model.example import make_example
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.quantize.divergence import compute_divergence, compute_predictions
from zephyr.recipe.load import read_recipe
from zephyr.runs.store import Run, Store

SPECS: dict[str, Any] = {
    "merged": "merged",
    "int8": "int8",
    "nf4": "nf4",
    "fp4": {"method": "fp4", "double": False},
    "int4": {"method": "int4", "group": 32},
    "gptq": {"method": "gptq", "group": 32, "data": "chat", "rows": 8, "length": 64},
    "small": {"method": "int4", "group": 32, "embeddings": "int8"},
}
EXAMPLE = make_example(range(1, 9), range(20, 40), [3, 4, 5])


class QuantizedRuns:
    """The finished runs of a tiny recipe by the names of their nodes."""

    def __init__(self, workspace: places.Workspace) -> None:
        recipe = read_recipe(workspace.recipe_path)
        self.store = Store(workspace.runs)
        self.plan = make_plan(recipe, workspace.recipe_path.parent, self.store)

    def run(self, name: str) -> Run:
        found = self.store.find(self.plan.nodes[name].fingerprint)
        assert found.is_finished, (name, found.failure)
        return found

    def load_model_of(self, name: str, **options: Any) -> Model:
        lineage = Lineage.read(self.run(name).artifact)
        return load_model(lineage, self.store.root, token_budget=512, **options)

    def divergence_steps(self, name: str) -> list[dict[str, Any]]:
        found = json.loads((self.run(name).artifact / "divergence.json").read_text())
        return list(found["steps"])


@pytest.fixture(scope="session")
def quantized_runs(tmp_path_factory: pytest.TempPathFactory) -> QuantizedRuns:
    """A tutor on float32 weights, one on 4 bits, and each quantization of them."""
    recipe = places.tiny_recipe()
    models = recipe["models"]
    for name in ("M2", "M1-nf4"):
        del models[name]
    models["Q"] = {"from": "M0", "tune": {**models["M1"]["tune"], "load": "nf4"}}
    models |= {f"M1-{name}": {"from": "M1", "quantize": spec} for name, spec in SPECS.items()}
    models |= {f"Q-{name}": {"from": "Q", "quantize": name} for name in ("whole", "merged", "nf4")}
    models["twice"] = {"from": "M1-nf4", "quantize": "merged"}
    recipe["evaluate"] = {
        "models": ["M1", "M1-int4", "M1-nf4"],
        "tasks": ["footprint", {"name": "wikitext2", "n": 20, "sources": [{"path": "text.jsonl"}]}],
    }
    return QuantizedRuns(places.run_once(tmp_path_factory.getbasetemp(), "quantizing", recipe))


def example_logprobs(model: Model) -> np.ndarray:
    return np.concatenate(model.logprobs([EXAMPLE])[0])


@pytest.mark.parametrize("name", SPECS)
def test_steps_say_what_was_changed(quantized_runs: QuantizedRuns, name: str) -> None:
    """Merging changes nothing but rounding; bits change more; each is what the models say."""
    steps = quantized_runs.divergence_steps(f"M1-{name}")
    assert steps[0]["step"] == "adapters merged, in float32"
    assert steps[0]["kl"] < 1e-6
    assert steps[0]["greatest"] < 1e-3
    if name != "merged":
        assert steps[1]["kl"] > 1e-5
    texts = [np.arange(3, 60, dtype=np.int32), np.arange(100, 20, -1, dtype=np.int32)]
    before, after = (
        compute_predictions(quantized_runs.load_model_of(m), texts) for m in ("M1", f"M1-{name}")
    )
    found = compute_divergence(before, after)
    assert found.tokens == 56 + 79
    assert (found.kl < 1e-6) == (name == "merged")


def test_divergence_by_hand(quantized_runs: QuantizedRuns) -> None:
    """The definition, token by token, beside the library's own sum."""
    before, after = (
        compute_predictions(quantized_runs.load_model_of(m), [np.arange(3, 20, dtype=np.int32)])
        for m in ("M0", "M1")
    )
    old, new = (p.logprobs(slice(None)) for p in (before, after))
    expected = torch.nn.functional.kl_div(new, old, log_target=True, reduction="none").sum(dim=1)
    found = compute_divergence(before, after)
    assert found.kl == pytest.approx(float(expected.mean()), rel=1e-4)
    targets = torch.arange(4, 20)
    logprob_changes = (old - new).abs()[torch.arange(16), targets]
    assert found.greatest == pytest.approx(float(logprob_changes.max()), rel=1e-4)


def test_ways_back_from_qlora(quantized_runs: QuantizedRuns) -> None:
    """On whole weights it is M0 and its adapter, merged it is the same, and 4 bits move it."""
    whole, merged, again = (
        quantized_runs.load_model_of(f"Q-{name}") for name in ("whole", "merged", "nf4")
    )
    np.testing.assert_allclose(example_logprobs(whole), example_logprobs(merged), atol=1e-4)
    assert float(np.abs(example_logprobs(again) - example_logprobs(merged)).max()) > 1e-3
    assert [s["step"] for s in quantized_runs.divergence_steps("Q-whole")] == [
        "adapters on whole weights"
    ]
    assert quantized_runs.divergence_steps("Q-nf4")[0]["step"] == "adapters on whole weights"
    lineage = Lineage.read(quantized_runs.run("Q-whole").artifact)
    assert lineage.quantization is None
    assert len(lineage.adapters) == 1


def test_quantized_weights_are_made_whole_before_anything_else(
    quantized_runs: QuantizedRuns,
) -> None:
    lineage = Lineage.read(quantized_runs.run("twice").artifact)
    assert lineage.quantization is None
    np.testing.assert_allclose(
        example_logprobs(quantized_runs.load_model_of("twice")),
        example_logprobs(quantized_runs.load_model_of("M1-nf4")),
        atol=1e-4,
    )


def test_files_and_memory_shrink(quantized_runs: QuantizedRuns) -> None:
    sizes = {
        name: FootprintBenchmark(
            Lineage.read(quantized_runs.run(name).artifact), quantized_runs.store.root, "float32"
        ).stored_bytes()
        for name in ("M1-merged", *(f"M1-{n}" for n in SPECS))
    }
    assert sizes["M1-int8"] < 0.6 * sizes["M1-merged"]
    assert sizes["M1-int4"] == sizes["M1-gptq"]
    assert sizes["M1-small"] < 0.7 * sizes["M1-int4"]


def test_a_footprint_has_sizes_once_and_five_readings(quantized_runs: QuantizedRuns) -> None:
    scores = json.loads(
        (quantized_runs.run("M1-int4/footprint").artifact / "scores.json").read_text()
    )
    found = {metric["name"]: metric for metric in scores["metrics"]}
    assert found["disk"]["n"] == 1
    assert found["decode"]["n"] == 5
    weights = quantized_runs.run("M1-int4").artifact / "weights" / "model.safetensors"
    assert found["disk"]["value"] == weights.stat().st_size
    assert 0 <= found["prompt"]["low"] <= found["prompt"]["value"]  # few readings, which vary
    report = (quantized_runs.store.recipe_folder("tiny") / "report.html").read_text()
    assert "What the models cost" in report
    assert "The smallest of the" in report


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        ("M1", "whole", "whole weights already"),
        ("M1-nf4", "whole", "stored quantized"),
        ("M1", {"method": "int4", "group": 128}, "in groups of 128"),
        ("M1", {"method": "gptq", "group": 32, "data": "chat", "length": 10**6}, None),
    ],
)
def test_what_cannot_be_done_is_refused(
    quantized_runs: QuantizedRuns, model: str, spec: Any, message: str | None
) -> None:
    from zephyr.quantize.stage import quantize_model
    from zephyr.runs.context import Context

    recipe = quantized_runs.plan.recipe
    raw = recipe.spec()
    raw["models"]["X"] = {"from": model, "quantize": spec}
    changed = type(recipe).model_validate(raw)
    plan = make_plan(changed, quantized_runs.plan.folder, quantized_runs.store)
    node = plan.nodes["X"]
    run = quantized_runs.store.begin(node.fingerprint, node.to_json())
    inputs = {role: quantized_runs.run(name) for role, name in node.inputs.items()}
    notices: list[str] = []
    context = Context(changed, plan.folder, quantized_runs.store.root, 512, notify=notices.append)
    if message is None:  # a row is cut to the context, and fewer rows are reported
        quantize_model(node, inputs, run, context)
        assert any("calibrated on" in text for text in notices)
        return
    with pytest.raises(ZephyrError, match=message):
        quantize_model(node, inputs, run, context)


def test_a_base_that_is_stored_quantized_is_made_whole_before_it_is_merged(
    quantized_runs: QuantizedRuns,
) -> None:
    """One of the user's own says nothing of how it is loaded: its folder does."""
    from zephyr.quantize.stage import quantize_model
    from zephyr.runs.context import Context

    raw = quantized_runs.plan.recipe.spec()
    folder = Lineage.read(quantized_runs.run("M1-nf4").artifact).weights_folder(
        quantized_runs.store.root
    )
    raw["models"] |= {"B": {"base": str(folder)}, "X": {"from": "B", "quantize": "merged"}}
    recipe = type(quantized_runs.plan.recipe).model_validate(raw)
    plan = make_plan(recipe, quantized_runs.plan.folder, quantized_runs.store)
    base, node = (plan.nodes[name] for name in ("B", "X"))
    runs = {n.name: quantized_runs.store.begin(n.fingerprint, n.to_json()) for n in (base, node)}
    Lineage(str(folder)).write(runs["B"].artifact)
    context = Context(recipe, plan.folder, quantized_runs.store.root, 512)
    quantize_model(node, {"from": runs["B"]}, runs["X"], context)
    weights = runs["X"].artifact / "weights"
    assert "quantization_config" not in json.loads((weights / "config.json").read_text())
    whole = load_model(Lineage(str(weights)), quantized_runs.store.root, token_budget=512)
    np.testing.assert_allclose(
        example_logprobs(whole), example_logprobs(quantized_runs.load_model_of("M1-nf4")), atol=1e-4
    )
