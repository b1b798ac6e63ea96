"""The stage `tune` on text parts, and where LoRA reaches a part of a network: to merged weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.model.attention_networks import make_causal
from tests.model.composite_networks import make_composite
from tests.model.test_lora_targets import NETWORKS
from zephyr.export.merged import write_merged
from zephyr.model.example import make_example
from zephyr.model.load import Lineage, load_model
from zephyr.recipe.schema import Recipe
from zephyr.records import Chat, Message, to_json
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, read_json_lines, write_json_lines
from zephyr.train.stages import tune

IDS = (np.arange(40) * 7 + 3) % tiny.VOCAB_SIZE
CHATS = [
    Chat("c", (Message("user", f"What is {n} + 2?"), Message("assistant", f"{n} + 2 = {n + 2}.")))
    for n in range(10)
]
REACHED = {
    "gemma3": (28, 28),
    "mistral3 of ministral3": (28, 28),
    "Qwen3MoeConfig": (16, 52),
    "FalconH1Config": (32, 36),
    "NemotronHConfig": (8, 10),
}
"""Networks, and how many of their matrices LoRA reaches."""


def make_run(root: Path, name: str) -> Run:
    run = Run(root / "objects" / name)
    run.artifact.mkdir(parents=True, exist_ok=True)
    return run


@pytest.mark.parametrize("name", REACHED)
def test_from_a_base_to_merged_weights(name: str, tmp_path: Path) -> None:
    """Checks, steps and sample generations pass; transformers reads the merged copy alone."""
    network = make_causal(name, **NETWORKS[name]) if name in NETWORKS else make_composite(name)
    network.save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    base, data, run = (make_run(tmp_path, key) for key in ("m0", "data", "m1"))
    Lineage(str(tmp_path / "base")).write(base.artifact)
    for file, chats in (("records", CHATS[:8]), ("holdout", CHATS[8:])):
        write_json_lines(data.artifact / f"{file}.jsonl", map(to_json, chats))
    stage = {"data": "sft", "steps": 3, "batch": 4, "lr": 1e-2, "log_every": 1, "canary_tokens": 4}
    recipe = Recipe.model_validate(
        {
            "name": "t",
            "data": {"sft": {"kind": "chat", "sources": ["gsm8k"]}},
            "models": {"M0": {"base": "base"}, "M1": {"from": "M0", "tune": stage}},
        }
    )
    recorded: dict[str, Any] = {}
    told: list[str] = []
    context = Context(
        recipe, tmp_path, tmp_path, 512, record=recorded.__setitem__, notify=told.append
    )
    node = Node("M1", "tune", {"seed": 0}, {}, parent="M0")
    tune(node, {"from": base, "data": data}, run, context)

    reached, of = REACHED[name]
    reach = recorded["lora_reach"]
    assert (reach["matrices"], reach["of_matrices"]) == (reached, of)
    assert recorded["proofs"]["matrices"] == 2 * reached
    share = 100 * reach["weights"] / reach["of_weights"]
    sentence = (
        f"LoRA reaches {reached} of {of} matrices ({share:.3g} % of their weights); the largest of "
        f"the others is {reach['unreached']}"
    )
    assert told == ([] if reached == of else [sentence])
    rows = list(read_json_lines(run.path / "metrics.jsonl"))
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert losses[-1] < losses[0]
    assert [row["step"] for row in rows if row["split"] == "canary"] == [0, 3]

    lineage = Lineage.read(run.artifact)
    model = load_model(lineage, tmp_path, token_budget=256)
    (expected,) = model.logprobs([make_example(IDS[:1], IDS[1:])])[0]
    (tmp_path / "merged").mkdir()
    _, notes = write_merged(lineage, tmp_path, tmp_path / "merged")
    is_text_part = name not in NETWORKS
    assert any("the text part alone" in note for note in notes) is is_text_part
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    with torch.no_grad():
        logprobs = merged(torch.from_numpy(IDS)[None]).logits[0].log_softmax(-1)
    found = logprobs[torch.arange(len(IDS) - 1), IDS[1:]].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)
