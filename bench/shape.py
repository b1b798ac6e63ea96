"""Model folders of the shapes of Qwen1.5-0.5B and BLOOM-560M: random weights in 16 bits.

The first has its real tokenizer, the second, whose own is not at hand, that of GPT-2.

Speed and memory depend on shapes and on the texts, and not on what the weights have learned.
"""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What the chat template of Qwen1.5 renders."""

SYSTEM = "You are a helpful assistant"
"""What it says before a conversation that has no system message."""

SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": True,
}

SPREAD = 0.06
"""Standard deviation of the weights: three times the usual, so that the log-probabilities of tokens
differ by several nats, and two ways of computing them agree only if they read the same tokens."""


def make_model(folder: Path, tokenizer: Path, *, layers: int, seed: int = 0) -> None:
    """Writes config, weights and tokenizer to `folder`; `tokenizer` holds gzipped files."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).write_bytes(gzip.decompress((tokenizer / f"{name}.gz").read_bytes()))
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text()) | {"chat_template": TEMPLATE}
    config.write_text(json.dumps(settings, indent=1))
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)

    torch.manual_seed(seed)
    shape: dict[str, Any] = SHAPE | {"num_hidden_layers": layers, "initializer_range": SPREAD}
    ends = {"bos_token_id": None, "eos_token_id": 151_645}
    network = Qwen2ForCausalLM(Qwen2Config(**shape, **ends)).to(torch.bfloat16)
    network.save_pretrained(folder)


def make_bloom(folder: Path, tokenizer: Path, *, seed: int = 0) -> None:
    """Writes config, weights in float16, and a tokenizer, whose files `tokenizer` holds gzipped."""
    import torch
    from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_bytes(gzip.decompress((tokenizer / "tokenizer.json.gz").read_bytes()))
    end = "<|endoftext|>"
    own = PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token=end, eos_token=end)
    own.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BloomConfig(
        vocab_size=250_880, hidden_size=1024, n_layer=24, n_head=16, initializer_range=SPREAD
    )
    BloomForCausalLM(config).to(torch.float16).save_pretrained(folder)


def widened(folder: Path) -> Path:
    """The same model stored in float32, beside it; made where it is not there."""
    from safetensors.torch import load_file, save_file

    copy = folder.with_name(f"{folder.name}-float32")
    if not (copy / "model.safetensors").exists():
        shutil.copytree(folder, copy, ignore=lambda *_: ["model.safetensors"], dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text()) | {"dtype": "float32"}
        (copy / "config.json").write_text(json.dumps(config, indent=1))
        tensors = load_file(folder / "model.safetensors")
        wide = {name: tensor.float() for name, tensor in tensors.items()}
        save_file(wide, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


MAKERS = {
    "qwen1.5-0.5b-shape-24-layers": lambda folder, tokenizers: make_model(
        folder, tokenizers / "qwen2", layers=24
    ),
    "bloom-560m-shape": lambda folder, tokenizers: make_bloom(folder, tokenizers / "gpt2"),
}


def linear_parameters(layers: int) -> int:
    """Weights of the linear layers, without embeddings and head."""
    hidden, mlp = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    assert isinstance(hidden, int)
    assert isinstance(mlp, int)
    return layers * (4 * hidden * hidden + 3 * hidden * mlp)
