"""Adapters: a fresh one changes nothing, saved ones come back, merged equals attached."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.load import Lineage, load
from zephyr.model.model import Model
from zephyr.recipe import Lora


def flat(model: Model) -> np.ndarray:
    return np.concatenate([part for parts in model.logprobs(tiny.forks()) for part in parts])


def saved(folder: Path, family: str) -> Lineage:
    model = tiny.model(family)
    model.causal.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return Lineage(str(folder))


def reload(lineage: Lineage) -> Model:
    return load(lineage, Path("/"), token_budget=256)


def stir(wrapper: Any, number: int) -> None:
    """Gives an adapter weights that do something."""
    torch.manual_seed(number)
    with torch.no_grad():
        for name, parameter in wrapper.named_parameters():
            if f"lora_B.stage{number}." in name:
                parameter.normal_(std=0.1)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "bloom"])
def test_two_adapters_stack_save_load_and_merge(tmp_path: Path, family: str) -> None:
    lineage = saved(tmp_path / "base", family)
    model = reload(lineage)
    base = flat(model)

    model.wrapper = adapter.add_fresh(model.causal, model.wrapper, Lora(rank=4), seed=0)
    np.testing.assert_array_equal(flat(model), base)
    stir(model.wrapper, 0)
    tuned = flat(model)
    assert np.abs(tuned - base).max() > 0.1
    adapter.save(model.wrapper, tmp_path / "first", "base")

    model = reload(lineage.with_adapter(str(tmp_path / "first")))
    np.testing.assert_allclose(flat(model), tuned, atol=1e-5)
    assert not any(p.requires_grad for p in model.network.parameters())
    model.wrapper = adapter.add_fresh(model.causal, model.wrapper, Lora(rank=2), seed=1)
    np.testing.assert_allclose(flat(model), tuned, atol=1e-5)
    trainable = [n for n, p in model.network.named_parameters() if p.requires_grad]
    assert trainable
    assert all(n.endswith((".lora_A.stage1.weight", ".lora_B.stage1.weight")) for n in trainable)
    stir(model.wrapper, 1)
    aligned = flat(model)
    adapter.save(model.wrapper, tmp_path / "second", "base")

    both = lineage.with_adapter(str(tmp_path / "first")).with_adapter(str(tmp_path / "second"))
    model = reload(both)
    np.testing.assert_allclose(flat(model), aligned, atol=1e-5)
    model.network.causal = adapter.merge(model.wrapper)
    np.testing.assert_allclose(flat(model), aligned, atol=1e-4)


def test_the_fresh_adapter_depends_on_the_seed_alone() -> None:
    def first(seed: int) -> torch.Tensor:
        torch.rand(seed + 3)
        wrapper = adapter.add_fresh(tiny.model("qwen2").causal, None, Lora(), seed)
        return next(p for n, p in wrapper.named_parameters() if "lora_A" in n).clone()

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_targets() -> None:
    def names(family: str, lora: Lora) -> set[str]:
        wrapper = adapter.add_fresh(tiny.model(family).causal, None, lora, 0)
        return set(wrapper.peft_config["stage0"].target_modules)

    assert names("qwen2", Lora(targets="attention-inputs")) == {"q_proj", "v_proj"}
    assert names("bloom", Lora(targets="attention-inputs")) == {"query_key_value"}
    assert "lm_head" not in names("llama", Lora())
    assert names("qwen2", Lora(targets=("o_proj",))) == {"o_proj"}
    with pytest.raises(ZephyrError, match="lm_head"):
        names("llama", Lora(targets=("q_proj", "lm_head")))


def test_the_seeds_number_of_weights() -> None:
    """Rank 8 on all linear layers of the Qwen1.5-0.5B shape: 3,784,704; on q and v: 786,432."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=8,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
    )
    for targets, expected in (("all-linear", 3_784_704), ("attention-inputs", 786_432)):
        with torch.device("meta"):
            causal = Qwen2ForCausalLM(config)
            adapter.add_fresh(causal, None, Lora(targets=targets), 0)
        assert sum(p.numel() for p in causal.parameters() if p.requires_grad) == expected
