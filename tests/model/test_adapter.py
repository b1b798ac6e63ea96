"""Adapters: a fresh one changes nothing, saved ones come back, merged equals attached."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.recipe.training import Lora


def flat_logprobs(model: Model) -> np.ndarray:
    return np.concatenate(
        [part for parts in model.logprobs(tiny.random_examples()) for part in parts]
    )


def save_model(folder: Path, family: str) -> Lineage:
    model = tiny.make_model(family)
    model.causal.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return Lineage(str(folder))


def reload_model(lineage: Lineage) -> Model:
    return load_model(lineage, Path("/"), token_budget=256)


def randomize_lora_b(wrapper: Any, number: int) -> None:
    """Gives an adapter weights that do something."""
    torch.manual_seed(number)
    with torch.no_grad():
        for name, parameter in wrapper.named_parameters():
            if f"lora_B.stage{number}." in name:
                parameter.normal_(std=0.1)
    wrapper.train()  # DoRA keeps lengths of rows while a network is not in training
    wrapper.eval()


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("qwen2", {}),
        ("gpt2", {}),
        ("bloom", {}),
        ("qwen2", {"rslora": True}),
        ("qwen2", {"dora": True}),
        ("gpt2", {"dora": True}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_two_adapters_stack_save_load_and_merge(
    tmp_path: Path, family: str, options: dict[str, bool]
) -> None:
    lineage = save_model(tmp_path / "base", family)
    model = reload_model(lineage)
    base_logprobs = flat_logprobs(model)
    tolerance = 1e-4 if options.get("dora") else 0.0  # lengths are taken and divided by again

    first = Lora(rank=4, **options)
    model.peft_model = adapter.add_trainable_adapter(model.causal, model.peft_model, first, seed=0)
    np.testing.assert_allclose(flat_logprobs(model), base_logprobs, rtol=0, atol=tolerance)
    randomize_lora_b(model.peft_model, 0)
    tuned_logprobs = flat_logprobs(model)
    assert np.abs(tuned_logprobs - base_logprobs).max() > 0.1
    adapter.save_adapter(model.peft_model, tmp_path / "first", "base")

    model = reload_model(lineage.with_adapter(str(tmp_path / "first")))
    np.testing.assert_allclose(flat_logprobs(model), tuned_logprobs, atol=1e-5)
    assert not any(p.requires_grad for p in model.network.parameters())
    second = Lora(rank=2, **options)
    model.peft_model = adapter.add_trainable_adapter(model.causal, model.peft_model, second, seed=1)
    np.testing.assert_allclose(flat_logprobs(model), tuned_logprobs, atol=tolerance or 1e-5)
    trainable = [n for n, p in model.network.named_parameters() if p.requires_grad]
    kinds = {".lora_A.stage1.weight", ".lora_B.stage1.weight"}
    if options.get("dora"):
        kinds.add(".lora_magnitude_vector.stage1.weight")
    assert {n[n.index(".lora_") :] for n in trainable} == kinds
    randomize_lora_b(model.peft_model, 1)
    aligned_logprobs = flat_logprobs(model)
    adapter.save_adapter(model.peft_model, tmp_path / "second", "base")

    both = lineage.with_adapter(str(tmp_path / "first")).with_adapter(str(tmp_path / "second"))
    model = reload_model(both)
    np.testing.assert_allclose(flat_logprobs(model), aligned_logprobs, atol=1e-5)
    model.network.causal = adapter.merge_adapters(model.peft_model)
    np.testing.assert_allclose(flat_logprobs(model), aligned_logprobs, atol=1e-4)


def test_the_scale_of_an_adapter() -> None:
    """alpha / rank; with rsLoRA alpha / sqrt(rank)."""
    from peft.tuners.lora import LoraLayer

    def scale(**options: Any) -> float:
        lora = Lora(rank=4, alpha=6, targets=("q_proj",), **options)
        wrapper = adapter.add_trainable_adapter(tiny.make_model("qwen2").causal, None, lora, 0)
        return next(m.scaling["stage0"] for m in wrapper.modules() if isinstance(m, LoraLayer))

    assert (scale(), scale(rslora=True)) == (1.5, 3)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "bloom"])
def test_stacked_adapters_as_one_are_the_same_in_plain_peft(tmp_path: Path, family: str) -> None:
    """Of other ranks, scales and targets."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = save_model(tmp_path / "base", family)
    model = reload_model(base)
    loras = (
        Lora(rank=4, targets="attention-inputs", rslora=True),
        Lora(rank=2, alpha=3),
        Lora(rank=3, alpha=5, targets="attention-inputs"),
    )
    folders = [tmp_path / str(number) for number in range(3)]
    for number, lora in enumerate(loras):
        model.peft_model = adapter.add_trainable_adapter(
            model.causal, model.peft_model, lora, seed=number
        )
        randomize_lora_b(model.peft_model, number)
        adapter.save_adapter(model.peft_model, folders[number], "base")
    adapter.save_concatenated(folders, tmp_path / "one", "somebody/base")

    config = json.loads((tmp_path / "one" / adapter.CONFIG_FILE).read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (9, "somebody/base")
    plain = AutoModelForCausalLM.from_pretrained(base.weights, dtype=torch.float32)
    alone = PeftModel.from_pretrained(plain, tmp_path / "one")
    ids = torch.tensor([tiny.random_examples()[0].prompt.tolist()])
    with torch.no_grad():
        ours, theirs = model.peft_model(ids).logits, alone(ids).logits
        with model.peft_model.disable_adapter():
            assert float((model.peft_model(ids).logits - ours).abs().max()) > 0.1
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_one_adapter_is_itself_and_dora_is_no_sum(tmp_path: Path) -> None:
    wrapper = None
    causal = tiny.make_model("qwen2").causal
    for number in (0, 1):
        wrapper = adapter.add_trainable_adapter(
            causal, wrapper, Lora(rank=2, dora=number == 0), seed=0
        )
        adapter.save_adapter(wrapper, tmp_path / str(number), "base")
    adapter.save_concatenated([tmp_path / "0"], tmp_path / "one", "other")
    weights = [(tmp_path / name / adapter.WEIGHTS_FILE).read_bytes() for name in ("0", "one")]
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "one" / adapter.CONFIG_FILE).read_text())["use_dora"]
    with pytest.raises(ZephyrError, match="one of them is DoRA"):
        adapter.save_concatenated([tmp_path / "0", tmp_path / "1"], tmp_path / "both", "base")


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_merged_for_a_while_is_the_same_network_and_leaves_no_trace(family: str) -> None:
    model = tiny.make_model(family)
    for number in (0, 1):
        model.peft_model = adapter.add_trainable_adapter(
            model.causal, model.peft_model, Lora(rank=4), seed=number
        )
        randomize_lora_b(model.peft_model, number)
    before = {n: (p.data_ptr(), p.clone()) for n, p in model.peft_model.named_parameters()}
    attached_logprobs = flat_logprobs(model)
    with adapter.temporarily_merged(model.peft_model):
        changed = [
            n for n, p in model.peft_model.named_parameters() if p.data_ptr() != before[n][0]
        ]
        assert changed
        assert all(".base_layer." in name for name in changed)
        np.testing.assert_allclose(flat_logprobs(model), attached_logprobs, atol=1e-4)
    for name, parameter in model.peft_model.named_parameters():
        assert parameter.data_ptr() == before[name][0]
        assert torch.equal(parameter, before[name][1])
    np.testing.assert_array_equal(flat_logprobs(model), attached_logprobs)


def test_rounded_weights_are_not_merged() -> None:
    model = tiny.make_model("qwen2")
    model.causal.to(torch.bfloat16)
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(), seed=0)
    before = [p.data_ptr() for p in model.peft_model.parameters()]
    with adapter.temporarily_merged(model.peft_model):
        assert [p.data_ptr() for p in model.peft_model.parameters()] == before


def test_the_fresh_adapter_depends_on_the_seed_alone() -> None:
    def first(seed: int) -> torch.Tensor:
        torch.rand(seed + 3)
        wrapper = adapter.add_trainable_adapter(tiny.make_model("qwen2").causal, None, Lora(), seed)
        return next(p for n, p in wrapper.named_parameters() if "lora_A" in n).clone()

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_targets() -> None:
    def names(family: str, lora: Lora) -> set[str]:
        wrapper = adapter.add_trainable_adapter(tiny.make_model(family).causal, None, lora, 0)
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
            adapter.add_trainable_adapter(causal, None, Lora(targets=targets), 0)
        assert sum(p.numel() for p in causal.parameters() if p.requires_grad) == expected
