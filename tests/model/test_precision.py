"""The dtype of a network: chosen by how it is stored, cast without its adapters and buffers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.model import adapter, precision
from zephyr.model.batching import collate
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.recipe.training import Lora


def save_in_dtype(folder: Path, dtype: torch.dtype) -> Path:
    model = tiny.make_model("qwen2")
    model.causal.to(dtype).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def flat_logprobs(model: Model) -> np.ndarray:
    return np.concatenate(
        [part for parts in model.logprobs(tiny.random_examples()) for part in parts]
    )


@pytest.mark.parametrize(
    ("dtype", "native", "expected"),
    [
        (torch.bfloat16, True, "bfloat16"),
        (torch.float16, True, "bfloat16"),
        (torch.bfloat16, False, "float32"),
        (torch.float32, True, "float32"),
    ],
)
def test_what_is_stored_and_the_machine_decide(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    native: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(precision, "has_native_bfloat16", lambda: native)
    folder = save_in_dtype(tmp_path, dtype)
    assert precision.choose_dtype("auto", folder) == expected
    assert precision.choose_dtype("float32", folder) == "float32"
    assert precision.choose_dtype("bfloat16", folder) == "bfloat16"


def test_weights_are_cast_and_adapters_and_frequencies_are_not(tmp_path: Path) -> None:
    lineage = Lineage(str(save_in_dtype(tmp_path, torch.bfloat16)))
    exact = load_model(lineage, Path("/"), token_budget=256)
    model = load_model(lineage, Path("/"), token_budget=256, dtype="bfloat16")
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(), seed=0)
    dtypes = {
        part: {p.dtype for n, p in model.network.named_parameters() if (".lora_" in n) == adapted}
        for part, adapted in (("weights", False), ("adapters", True))
    }
    assert dtypes == {"weights": {torch.bfloat16}, "adapters": {torch.float32}}
    assert {b.dtype for n, b in model.causal.named_buffers() if "inv_freq" in n} == {torch.float32}
    assert model.layout == exact.layout == "tree"
    adapter.save_adapter(model.peft_model, tmp_path / "adapter", "base")
    reloaded = load_model(
        lineage.with_adapter(str(tmp_path / "adapter")),
        Path("/"),
        token_budget=256,
        dtype="bfloat16",
    )
    assert {p.dtype for n, p in reloaded.network.named_parameters() if ".lora_" in n} == {
        torch.float32
    }
    difference = np.abs(flat_logprobs(model) - flat_logprobs(exact))
    assert 1e-4 < difference.mean() < 0.1  # eight bits of a logit of about ten


def test_an_adapter_learns_on_bfloat16_as_it_does_on_float32(tmp_path: Path) -> None:
    """The loss falls by as much, to two in a hundred, over fifty steps of the same rows."""
    lineage = Lineage(str(save_in_dtype(tmp_path, torch.bfloat16)))
    examples = tiny.random_examples(count=4)

    def first_and_last_loss(dtype: precision.Dtype) -> tuple[float, float]:
        model = load_model(lineage, Path("/"), token_budget=256, dtype=dtype)
        model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(), seed=0)
        weights = [p for p in model.network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0)
        batch = collate(examples, model.layout)
        losses = []
        for _ in range(50):
            loss = -model.network(batch).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses[0], losses[-1]

    (start, end), (start16, end16) = first_and_last_loss("float32"), first_and_last_loss("bfloat16")
    assert start16 == pytest.approx(start, abs=0.05)
    assert start - end > 1
    assert start16 - end16 == pytest.approx(start - end, rel=0.02)
