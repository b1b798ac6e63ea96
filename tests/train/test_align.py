"""Aligning a tiny model: every loss, a fresh adapter or the one that is there, on four bits too."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.load import Lineage, load_model
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Lora
from zephyr.records import Message, Pair, to_json
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, write_json_lines
from zephyr.train.stages import align

WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of widths that four bits allow, a tuned model on it, and pairs."""
    root = tmp_path_factory.mktemp("store")
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=tiny.VOCAB_SIZE,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=tiny.CONTEXT_LENGTH,
            eos_token_id=0,
        )
    ).save_pretrained(root / "base")
    tiny.tokenizer().save_pretrained(root / "base")
    Lineage(str(root / "base")).write(make_run(root, "m0").artifact)
    for load_as, name in ((None, "m1"), ("nf4", "m1-nf4")):
        lineage = Lineage(str(root / "base"), load_as)  # type: ignore[arg-type]  # it is a method
        model = load_model(lineage, root, token_budget=256)
        model.peft_model = adapter.add_trainable_adapter(
            model.causal, None, Lora(rank=4, alpha=8), seed=0
        )
        torch.manual_seed(1)
        with torch.no_grad():
            for weight, parameter in model.peft_model.named_parameters():
                if "lora_B" in weight:
                    parameter.normal_(std=0.02)
        adapter.save_adapter(model.peft_model, make_run(root, name).artifact / "adapter", "base")
        lineage.with_adapter(f"objects/{name}/artifact/adapter").write(
            make_run(root, name).artifact
        )
    pairs = [
        Pair("p", (Message("user", f"{question} {n}"),), "It moves.", "No idea.")
        for question in ("Why?", "Who?", "What is 2 + 2?")
        for n in range(4)
    ]
    for file, some in (("records", pairs[:8]), ("holdout", pairs[8:])):
        write_json_lines(make_run(root, "data").artifact / f"{file}.jsonl", map(to_json, some))
    return root


def make_run(root: Path, name: str) -> Run:
    run = Run(root / "objects" / name)
    run.artifact.mkdir(parents=True, exist_ok=True)
    return run


def run_align(store: Path, origin: str, name: str, **settings: Any) -> tuple[Run, list[Any]]:
    """The finished run of an align stage, and its metric rows."""
    spec = {"data": "pairs", "steps": 6, "batch": 4, "lr": 1e-2, "log_every": 1, **settings}
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "data": {"pairs": {"kind": "pair", "sources": ["orca_dpo_pairs"]}},
            "models": {"M1": {"base": "folder"}, "M2": {"from": "M1", "align": spec}},
        }
    )
    run = make_run(store, f"{name}.part")
    inputs = {"from": make_run(store, origin), "data": make_run(store, "data")}
    node = Node("M2", "align", {"seed": 1}, {}, parent="M1")
    align(node, inputs, run, Context(recipe, store, store, 256))
    finished = Run(run.path.with_suffix(""))
    run.path.rename(finished.path)
    rows = (finished.path / "metrics.jsonl").read_text().splitlines()
    return finished, [json.loads(row) for row in rows]


@pytest.mark.parametrize("origin", ["m1", "m1-nf4"])
@pytest.mark.parametrize("adapter_mode", ["fresh", "continue"])
def test_the_start_is_the_model_that_was_there(store: Path, origin: str, adapter_mode: str) -> None:
    """So that the loss is ln 2; the adapter that was there stays as it is, and counts on or not."""
    before = (make_run(store, origin).artifact / WEIGHTS).read_bytes()
    run, rows = run_align(store, origin, f"{origin}-{adapter_mode}", adapter=adapter_mode)
    first = next(row for row in rows if row["split"] == "train")
    last = [row for row in rows if row["split"] == "holdout"][-1]
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last["margin"] > 0.01
    assert (make_run(store, origin).artifact / WEIGHTS).read_bytes() == before
    own = f"objects/{origin}-{adapter_mode}/artifact/adapter"
    lineage = Lineage.read(run.artifact)
    frozen_adapters = () if adapter_mode == "continue" else (f"objects/{origin}/artifact/adapter",)
    assert lineage.adapters == (*frozen_adapters, own)
    assert lineage.quantization == (None if origin == "m1" else "nf4")
    rank = 4 if adapter_mode == "continue" else 8
    assert json.loads((run.artifact / "adapter/adapter_config.json").read_text())["r"] == rank
    old, new = (
        load_file(make_run(store, origin).artifact / WEIGHTS),
        load_file(run.artifact / WEIGHTS),
    )
    assert old.keys() == new.keys()
    assert not any(torch.equal(old[name], new[name]) for name in old)
    model = load_model(lineage, store, token_budget=256)
    assert len(model.peft_model.peft_config) == len(lineage.adapters)


def test_only_an_adapter_can_continue(store: Path) -> None:
    with pytest.raises(ZephyrError, match=r"no adapter to continue(.|\n)*M2.align.adapter"):
        run_align(store, "m0", "refused", adapter="continue")


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "ipo", "length_normalized": True},
        {"loss": "simpo", "beta": 2.0, "gamma": 0.5},
        {"loss": "orpo"},
        {"sft_weight": 1.0, "label_smoothing": 0.1},
    ],
    ids=["ipo", "simpo", "orpo", "dpo"],
)
def test_every_loss_learns_and_asks_for_a_reference_if_it_has_one(
    store: Path, settings: dict[str, Any]
) -> None:
    name = settings.get("loss", "dpo")
    run, rows = run_align(store, "m1", name, **settings)
    train = [row for row in rows if row["split"] == "train"]
    assert train[-1]["loss"] < train[0]["loss"]
    assert train[-1]["margin"] > train[0]["margin"]
    assert (run.artifact / "reference.safetensors").exists() == (name in ("dpo", "ipo"))
