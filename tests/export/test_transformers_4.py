"""Exports read by transformers 4: its names in the files, and the program itself."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests import tiny
from tests.model.attention_networks import LONGROPE, SHORT_CONTEXT, make_causal
from zephyr.export.transformers_4 import TESTED_MODEL_TYPES, add_older_names

IDS = (np.arange(1, 61) * 5 % tiny.VOCAB_SIZE)[None]
TEXT = "It's 2 + 23 = 25.<|im_end|> ok"


def rope(rope_type: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 4e5, **settings}}


_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LAYER_TYPES = {
    "full_attention": rope("linear", factor=8.0)["rope_parameters"],
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", rope("default")),
    "llama linear": ("LlamaConfig", rope("linear", factor=2.0)),
    "llama llama3": (
        "LlamaConfig",
        rope("llama3", **_LLAMA3, original_max_position_embeddings=32),
    ),
    "qwen2 yarn": ("Qwen2Config", rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "qwen3": ("Qwen3Config", {"head_dim": 8, **rope("default")}),
    "mistral": ("MistralConfig", rope("default")),
    "starcoder2": ("Starcoder2Config", rope("default")),
    "phi3 partial": ("Phi3Config", rope("default", partial_rotary_factor=0.5)),
    "phi3 longrope": (
        "Phi3Config",
        {
            "sliding_window": None,
            "rope_parameters": LONGROPE,
            "original_max_position_embeddings": SHORT_CONTEXT,
        },
    ),
    "gemma3": ("Gemma3TextConfig", {"rope_parameters": _LAYER_TYPES}),
    "cohere2": ("Cohere2Config", rope("default")),
    "gpt2": ("gpt2", {}),
    "bloom": ("bloom", {}),
}


def version_5_tokenizer() -> Any:
    """A tokenizer whose class and extra special tokens have names of version 5 alone."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    return tokenizer


def write_export(folder: Path, name: str) -> torch.Tensor:
    """Saves a network and a tokenizer with older names beside; the network's logits [1, T, V]."""
    config, settings = NETWORKS[name]
    if config in tiny.FAMILIES:
        causal = tiny.make_model(config).causal
    else:
        causal = make_causal(config, **json.loads(json.dumps(settings)))
    causal.save_pretrained(folder)
    version_5_tokenizer().save_pretrained(folder)
    [note] = add_older_names(folder)
    assert note.startswith("It loads in transformers 4.53")
    with torch.no_grad():
        logits: torch.Tensor = causal(torch.from_numpy(IDS)).logits
    return logits


@pytest.mark.parametrize("name", NETWORKS)
def test_version_5_reads_the_same_from_files_with_older_names(name: str, tmp_path: Path) -> None:
    expected = write_export(tmp_path, name)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(torch.from_numpy(IDS)).logits, expected)
    own = version_5_tokenizer()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(TEXT)["input_ids"] == own(TEXT)["input_ids"]
    assert tokenizer.eos_token == own.eos_token
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["additional_special_tokens"] == ["<|im_end|>"]
    assert "extra_special_tokens" not in settings
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert config["model_type"] in TESTED_MODEL_TYPES


def test_networks_of_which_it_is_not_known_say_so(tmp_path: Path) -> None:
    make_causal("Olmo3Config").save_pretrained(tmp_path)
    [note] = add_older_names(tmp_path)
    assert "whether version 4 reads an export of olmo3 has not been tested" in note


def test_quantized_weights_are_not_said_to_be_tested(tmp_path: Path) -> None:
    write_export(tmp_path, "llama")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {}}))
    [note] = add_older_names(tmp_path)
    assert "an export of quantized llama has not been tested" in note


_READ = """
import sys, numpy as np, torch, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
for folder in sys.argv[1:]:
    causal = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = causal(torch.from_numpy(np.load(folder + "/ids.npy"))).logits
    np.save(folder + "/logits.npy", logits.float().numpy())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = open(folder + "/text.txt", encoding="utf-8").read()
    np.save(folder + "/tokens.npy", tokenizer(text)["input_ids"])
"""


def test_version_4_itself_computes_the_same_logits_and_tokens(tmp_path: Path) -> None:
    """In an environment of its own, whose Python `ZEPHYR_TRANSFORMERS_4` names."""
    python = os.environ.get("ZEPHYR_TRANSFORMERS_4")
    if python is None:
        pytest.skip("set ZEPHYR_TRANSFORMERS_4 to a Python that has transformers 4.53 and torch")
    expected = {}
    for name in NETWORKS:
        folder = tmp_path / name
        folder.mkdir()
        expected[folder] = write_export(folder, name)
        np.save(folder / "ids.npy", IDS)
        (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([python, "-c", _READ, *expected], check=True, env=variables)
    for folder, logits in expected.items():
        np.testing.assert_allclose(np.load(folder / "logits.npy"), logits.numpy(), atol=1e-5)
        own = version_5_tokenizer()(TEXT)["input_ids"]
        assert np.load(folder / "tokens.npy").tolist() == own
