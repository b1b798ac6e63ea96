"""bitsandbytes on the CPU, kept on the path that is exact (what goes wrong otherwise is silent)."""

from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests import tiny
from zephyr.model import adapter
from zephyr.model.batching import collate
from zephyr.model.bnb_quantization import cast_unquantized, is_stored_quantized
from zephyr.model.example import make_example
from zephyr.model.fp16_linear import weight_bytes
from zephyr.model.load import Lineage, load_model, load_network
from zephyr.model.model import Model
from zephyr.recipe.training import Lora

EXAMPLE = make_example(range(1, 9), range(20, 40), [3, 4, 5])


def save_network(path: Path, family: str) -> Path:
    shape: dict[str, Any] = {
        "vocab_size": tiny.VOCAB_SIZE,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    torch.manual_seed(0)
    qwen = family == "qwen2"
    causal = (
        Qwen2ForCausalLM(Qwen2Config(**shape)) if qwen else LlamaForCausalLM(LlamaConfig(**shape))
    )
    causal.save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def load_quantized(path: Path, method: Any) -> Model:
    return load_model(Lineage(str(path), method), Path("/"), token_budget=512)


def example_logprobs(model: Model) -> np.ndarray:
    return np.concatenate(model.logprobs([EXAMPLE])[0])


def lora_gradients(model: Model) -> dict[str, torch.Tensor]:
    model.network.train()
    batch = collate([EXAMPLE], model.layout)
    model.network(batch).sum().backward()
    found = {n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None}
    model.network.zero_grad()
    return found


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_nf4_trains_the_same_before_and_after_an_evaluation(tmp_path: Path, family: str) -> None:
    model = load_quantized(save_network(tmp_path, family), "nf4")
    model.peft_model = adapter.add_trainable_adapter(
        model.causal, model.peft_model, Lora(rank=4), seed=0
    )
    before = lora_gradients(model)
    example_logprobs(model)
    after = lora_gradients(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    with_gradient = [n for n, g in before.items() if "lora_B" in n and float(g.abs().max()) > 0]
    assert len(with_gradient) == 2 * 7, (
        "B of all seven linear layers of both blocks learns at step 0"
    )


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_evaluated_saved_and_loaded_gives_the_same_bits(tmp_path: Path, method: str) -> None:
    model = load_quantized(save_network(tmp_path / "full", "qwen2"), method)
    first = example_logprobs(model)
    model.causal.save_pretrained(tmp_path / "small")
    model.tokenizer.save_pretrained(tmp_path / "small")
    np.testing.assert_array_equal(
        example_logprobs(load_quantized(tmp_path / "small", method)), first
    )


def test_nf4_is_the_librarys_own_dequantized_computation(tmp_path: Path) -> None:
    path = save_network(tmp_path, "qwen2")
    small, full = load_quantized(path, "nf4"), load_quantized(path, None)
    with torch.no_grad():
        weights = dict(full.causal.named_modules())
        for name, module in small.causal.named_modules():
            if isinstance(module, bnb.nn.Linear4bit):
                plain = bnb.functional.dequantize_4bit(
                    module.weight.data, module.weight.quant_state
                )
                weights[name].weight.copy_(plain)
    np.testing.assert_allclose(example_logprobs(small), example_logprobs(full), atol=1e-5)


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_a_batch_changes_nothing(tmp_path: Path, method: str) -> None:
    model = load_quantized(save_network(tmp_path, "qwen2"), method)
    alone = example_logprobs(model)
    together = np.concatenate(model.logprobs([make_example([1, 2], [3] * 30), EXAMPLE])[1])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("method", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_bytes_count_the_state_of_quantization(tmp_path: Path, method: Any, double: bool) -> None:
    """Half a byte a weight, and for 64 of them four bytes, or one and four for 256 of these."""
    options = {"double_quant": double}
    causal = load_network(save_network(tmp_path, "qwen2"), method, options=options)
    linear = [m for m in causal.modules() if isinstance(m, bnb.nn.Linear4bit)]
    weights = sum(m.in_features * m.out_features for m in linear)
    blocks = weights / 64
    scales = blocks * (1 + 4 / 256) if double else blocks * 4
    whole = 4 * sum(p.numel() for p in causal.parameters() if p.dtype == torch.float32)
    tables = sum(4 * (16 + 256 * double) + 200 for _ in linear)  # of codes, and words about them
    found = weight_bytes(causal)
    assert whole + weights / 2 + scales <= found <= whole + weights / 2 + scales + tables


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_whole_weights_are_what_quantized_ones_stand_for(tmp_path: Path, method: Any) -> None:
    path = save_network(tmp_path / "full", "llama")
    small = load_quantized(path, method)
    small.save(tmp_path / "small")
    whole = load_model(
        Lineage(str(tmp_path / "small")), Path("/"), token_budget=512, form="unquantized"
    )
    assert all(type(m) is torch.nn.Linear for m in whole.causal.modules() if hasattr(m, "bias"))
    tolerance = 0.05 if method == "int8" else 1e-5  # int8 rounds activations as well
    np.testing.assert_allclose(example_logprobs(whole), example_logprobs(small), atol=tolerance)
    assert not is_stored_quantized(save_network(tmp_path / "other", "llama"))
    assert is_stored_quantized(tmp_path / "small")


@pytest.mark.parametrize("method", ["int8", "nf4"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_16_bits_they_compute_in_one_dtype(
    tmp_path: Path, method: Any, dtype: torch.dtype
) -> None:
    """What is not quantized is stored in the dtype of the base, and read in the one requested."""
    small = load_quantized(save_network(tmp_path / "full", "qwen2"), method)
    before = example_logprobs(small)
    cast_unquantized(small.network, dtype)
    small.save(tmp_path / "small")
    lineage = Lineage(str(tmp_path / "small"), method)
    for form, expected in (("dequantized", torch.float32), ("stored", torch.bfloat16)):
        model = load_model(lineage, Path("/"), token_budget=512, dtype="bfloat16", form=form)
        plain = {  # bitsandbytes puts biases into the dtype of its products
            p.dtype
            for name, p in model.network.named_parameters()
            if type(p) is torch.nn.Parameter and not name.endswith("bias")
        }
        assert plain == {expected}
        np.testing.assert_allclose(
            example_logprobs(model), before, atol=0.35 if form == "stored" else 0.05
        )
