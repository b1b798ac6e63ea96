"""Of a multimodal checkpoint the text part is loaded, by its own class and with the same logits."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests import tiny
from tests.model.attention_networks import make_causal
from tests.model.composite_networks import NETWORKS, make_composite
from zephyr.errors import ZephyrError
from zephyr.export.peft_adapter import rename_for_whole
from zephyr.model import adapter, bnb_quantization
from zephyr.model.base_model import hash_base_model
from zephyr.model.example import make_example
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.model.text_part import SUPPORTED_TYPES, text_weight_name, whole_prefix
from zephyr.recipe.training import Lora
from zephyr.runs.store import read_json, write_json

IDS = (np.arange(40) * 7 + 3) % tiny.VOCAB_SIZE


def save_composite(folder: Path, name: str) -> Any:
    """Saves a composite network with a tokenizer; returns the network."""
    whole = make_composite(name)
    whole.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return whole


def load(folder: Path, **settings: Any) -> Model:
    return load_model(Lineage(str(folder)), folder, token_budget=256, **settings)


def own_logprobs(network: Any) -> np.ndarray:
    """Log-probabilities [T - 1] of `IDS`, by a network's own logits."""
    with torch.no_grad():
        logits = network(input_ids=torch.from_numpy(IDS)[None]).logits[0].float()
    values: np.ndarray = logits.log_softmax(-1)[torch.arange(len(IDS) - 1), IDS[1:]].numpy()
    return values


def trained_adapter(model: Model) -> Any:
    """A LoRA of all linear layers that changes the model."""
    peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(rank=2), seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    return peft_model


def test_every_supported_type_has_a_network_here() -> None:
    types = {getattr(transformers, network[0]).model_type for network in NETWORKS.values()}
    assert types | {"gemma3n"} == set(SUPPORTED_TYPES)


@pytest.mark.parametrize("name", NETWORKS)
def test_logprobs_are_those_of_the_whole(name: str, tmp_path: Path) -> None:
    """Saved by transformers under each family's own names; the towers are not loaded."""
    whole = save_composite(tmp_path / "base", name)
    model = load(tmp_path / "base")
    assert model.context_length == tiny.CONTEXT_LENGTH
    expected = own_logprobs(whole)
    (found,) = model.logprobs([make_example(IDS[:1], IDS[1:])])[0]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_array_equal(own_logprobs(model.causal), expected)
    names = [name for name, _ in model.causal.named_parameters()]
    assert not any("vision" in name or "audio" in name for name in names)


@pytest.mark.parametrize("name", ["gemma3", "gemma4", "mistral3 of ministral3", "qwen3_5_moe"])
def test_a_merged_copy_is_a_text_network(name: str, tmp_path: Path) -> None:
    """With a LoRA merged into it; its weights have the plain names, and transformers reads it."""
    save_composite(tmp_path / "base", name)
    model = load(tmp_path / "base")
    model.peft_model = trained_adapter(model)
    (before,) = model.logprobs([make_example(IDS[:1], IDS[1:])])[0]
    model.merge_adapters()
    model.save(tmp_path / "merged")
    prefixes = ("model.layers.", "model.embed_tokens", "model.norm", "model.per_layer_", "lm_head")
    assert all(key.startswith(prefixes) for key in load_file(tmp_path / "merged/model.safetensors"))
    again, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert "text_config" not in read_json(tmp_path / "merged/config.json")
    np.testing.assert_allclose(own_logprobs(again.eval()), before, atol=2e-4)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_both_names_of_the_hub_are_read(prefix: str, tmp_path: Path) -> None:
    """Gemma 3n's towers need a library more, so that its file is named here as on the hub."""
    settings = {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": tiny.VOCAB_SIZE,
        "num_kv_shared_layers": 2,
        "intermediate_size": [64] * 4,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0] * 4,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "head_dim": 8,
    }
    text = make_causal("Gemma3nTextConfig", **settings)
    text.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    weights = {
        prefix + key.removeprefix("model.").removeprefix("language_model."): value
        for key, value in load_file(tmp_path / "model.safetensors").items()
    }
    weights["model.vision_tower.stem.weight"] = torch.zeros(2, 2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {"model_type": "gemma3n", "text_config": config})
    np.testing.assert_array_equal(own_logprobs(load(tmp_path).causal), own_logprobs(text))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("model.text_model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", None),
        ("model.multi_modal_projector.mm_soft_emb_norm.weight", None),
        ("mtp.layers.0.mlp.up_proj.weight", None),
    ],
)
def test_names_of_text_weights(name: str, expected: str | None) -> None:
    assert text_weight_name(name) == expected


def test_a_second_copy_of_the_weights_is_not_read(tmp_path: Path) -> None:
    """Ministral's folders hold `consolidated.safetensors` for another program."""
    save_composite(tmp_path, "mistral3 of ministral3")
    save_file({"lm_head.weight": torch.zeros(3, 3)}, tmp_path / "consolidated.safetensors")
    load(tmp_path)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_text_parts_are_quantized_for_training(quantization: Any, tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")
    model = load_model(Lineage(str(tmp_path), quantization), tmp_path, token_budget=256)
    kinds = {type(m).__name__ for m in model.causal.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}


@pytest.mark.parametrize("name", ["gemma3", "qwen3_5"])
def test_weights_that_are_stored_in_4_bits(name: str, tmp_path: Path) -> None:
    """By bitsandbytes, with a layer that is left whole under its name in the whole."""
    make_composite(name).save_pretrained(tmp_path / "base")
    prefix = "language_model.model." if name == "gemma3" else "model.language_model."
    config = bnb_quantization.make_bnb_config("nf4")
    config.llm_int8_skip_modules = ["lm_head", "model.language_model.layers.1.mlp"]
    whole = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "base", quantization_config=config, dtype=torch.float32
    )
    bnb_quantization.disable_avx512_bf16_kernel(whole)
    whole.save_pretrained(tmp_path / "quantized")
    tiny.tokenizer().save_pretrained(tmp_path / "quantized")
    change = read_json(tmp_path / "quantized/config.json")["quantization_config"]
    change["llm_int8_skip_modules"] = ["lm_head", f"{prefix}layers.1.mlp"]
    change_config(tmp_path / "quantized", quantization_config=change)
    model = load(tmp_path / "quantized", form="stored")
    kinds = {n: type(m).__name__ for n, m in model.causal.named_modules()}
    assert kinds["model.layers.0.mlp.up_proj"] == "Linear4bit"
    assert kinds["model.layers.1.mlp.up_proj"] == "Linear"
    np.testing.assert_array_equal(own_logprobs(model.causal), own_logprobs(whole))


def test_weights_of_16_bits(tmp_path: Path) -> None:
    whole = make_composite("mistral3 of ministral3").to(torch.bfloat16)
    whole.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    expected = own_logprobs(AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32"))
    for settings in ({}, {"form": "inference"}, {"form": "adapter-training"}):
        (found,) = load(tmp_path, **settings).logprobs([make_example(IDS[:1], IDS[1:])])[0]
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert next(load(tmp_path, dtype="bfloat16").causal.parameters()).dtype == torch.bfloat16


def change_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | settings)


def test_what_has_no_supported_text_part_is_refused_by_name(tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")
    change_config(tmp_path, model_type="paligemma")
    with pytest.raises(ZephyrError) as caught:
        load(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[2] == "  found:   paligemma"
    assert lines[3].startswith("  allowed: gemma3, gemma3n, gemma4")
    assert lines[4] == "  to do:   take a text model of the same family, or another base model"
    with pytest.raises(ZephyrError, match="found:   paligemma"):  # by the plan already
        hash_base_model(tmp_path.name, tmp_path.parent, "models.M0.base")
    change_config(tmp_path, model_type="gemma3", quantization_config={"quant_method": "fp8"})
    with pytest.raises(ZephyrError, match=r"quantized like this\n.*\n  found:   fp8"):
        load(tmp_path)
    change_config(tmp_path, quantization_config={"quant_method": "compressed-tensors"})
    with pytest.raises(ZephyrError, match=r"  found:   compressed-tensors"):
        load(tmp_path)


def test_text_weights_without_a_place_are_refused(tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")
    weights = load_file(tmp_path / "model.safetensors")
    weights["language_model.model.extra.weight"] = torch.zeros(2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZephyrError, match=r"1 weights, such as model\.extra\.weight"):
        load(tmp_path)
    del weights["language_model.model.extra.weight"]
    del weights["language_model.model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZephyrError, match=r"1 missing or of another size, such as model\.norm"):
        load(tmp_path)


WHOLE_PREFIXES = {
    "gemma3": "model.language_model.",
    "gemma4": "model.language_model.",
    "mistral3 of ministral3": "model.language_model.",
    "smolvlm": "model.text_model.",
}


@pytest.mark.parametrize("name", WHOLE_PREFIXES)
def test_an_exported_adapter_fits_the_whole(name: str, tmp_path: Path) -> None:
    """PEFT attaches it to what transformers makes of the base, and to no layer of a tower."""
    from peft import PeftModel

    save_composite(tmp_path / "base", name)
    model = load(tmp_path / "base")
    model.peft_model = trained_adapter(model)
    adapter.save_adapter(model.peft_model, tmp_path / "adapter", "base")
    (expected,) = model.logprobs([make_example(IDS[:1], IDS[1:])])[0]
    prefix = whole_prefix(tmp_path / "base")
    assert prefix == WHOLE_PREFIXES[name]
    rename_for_whole(tmp_path / "adapter", prefix)
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of weights that are missing, or not used
        attached = PeftModel.from_pretrained(whole, tmp_path / "adapter").eval()
    np.testing.assert_allclose(own_logprobs(attached), expected, atol=2e-5)
    adapted = [name for name, _ in attached.named_parameters() if ".lora_A." in name]
    assert adapted
    assert all(f".{prefix}" in name for name in adapted)


def test_an_adapter_for_a_text_network_keeps_its_names(tmp_path: Path) -> None:
    """AutoModelForCausalLM itself takes the text part of Qwen3.5."""
    make_composite("qwen3_5").save_pretrained(tmp_path / "base")
    assert whole_prefix(tmp_path / "base") is None
    tiny.qwen2().save_pretrained(tmp_path / "text")
    assert whole_prefix(tmp_path / "text") is None
