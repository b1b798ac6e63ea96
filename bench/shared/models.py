"""Model folders of benchmarks: the shapes of real models with random weights, made once.

Speed and memory depend on shapes and on the texts, and not on what the weights have learned.
Free of Zephyr at import, for the baselines' workers read the chat template.
"""

import gzip
import shutil
from pathlib import Path
from typing import Any

from bench.shared.datasets import DATA, read_rows
from bench.shared.environments import CACHE

SYSTEM = "You are a helpful assistant"
"""What the template says before a conversation that has no system message."""
TEMPLATE = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}"
    f"{{{{ '<|im_start|>system\n{SYSTEM}<|im_end|>\n' }}}}"
    "{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What the chat template of Qwen1.5 renders."""

HIDDEN, MLP, VOCABULARY = 1024, 2816, 151_936
EOS = 151_645
QWEN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": EOS,
}
SPREAD = 0.06
"""Standard deviation of the weights: three times the usual, so that the log-probabilities of tokens
differ by several nats, and two ways of computing them agree only if they read the same tokens."""


def linear_parameters(layers: int) -> int:
    """Weights of the linear layers of a Qwen shape, without embeddings and head."""
    return layers * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * MLP)


def qwen_shape(layers: int = 24, *, endless: bool = False) -> Path:
    """The shape of Qwen1.5-0.5B in bfloat16, with its own tokenizer and chat template.

    The greedy answers of an endless model never end: the row of the end token is zero in the
    embeddings, and so in the head that is tied to them. Its logit is zero, and among thousands of
    others drawn around zero it is never the largest.
    """
    folder = _folder(f"qwen1.5-0.5b-shape-{layers}-layers" + ("-endless" if endless else ""))
    if _is_made(folder):
        return folder
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    _unpack("qwen2", folder, "vocab.json", "merges.txt", "tokenizer_config.json")
    AutoTokenizer.from_pretrained(folder, chat_template=TEMPLATE).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(**QWEN, num_hidden_layers=layers, initializer_range=SPREAD)
    _save(Qwen2ForCausalLM(config).to(torch.bfloat16), folder, EOS if endless else None)
    return folder


def bloom_shape() -> Path:
    """The shape of BLOOM-560M in float16; its own tokenizer is not at hand, GPT-2's is."""
    folder = _folder("bloom-560m-shape")
    if _is_made(folder):
        return folder
    import torch
    from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

    _unpack("gpt2", folder, "tokenizer.json")
    end, path = "<|endoftext|>", str(folder / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, bos_token=end, eos_token=end)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=250_880, hidden_size=1024, n_layer=24, n_head=16, initializer_range=SPREAD
    )
    _save(BloomForCausalLM(config).to(torch.float16), folder)
    return folder


def small_shape() -> Path:
    """The shape of the embedded recipe's models in float32, endless, with 1,024 tokens of its own.

    Two more are the markers of the same chat template: without them `transformers serve` streams
    the prompt back before the answer.
    """
    folder = _folder("small-endless")
    if _is_made(folder):
        return folder
    from zephyr.model import from_scratch
    from zephyr.recipe.training import Shape

    texts = [row["question"] for row in read_rows("gsm8k/train")]
    tokenizer = from_scratch.train_tokenizer(texts, Shape().vocabulary)
    markers = {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"}
    tokenizer.add_special_tokens(markers)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    shape, end = Shape(vocabulary=len(tokenizer)), tokenizer.eos_token_id
    _save(from_scratch.make_network(shape, eos_token_id=end, seed=0), folder, end)
    return folder


def in_float32(folder: Path) -> Path:
    """The same model stored in float32, beside it."""
    copy = folder.with_name(f"{folder.name}-float32")
    if not _is_made(copy):
        from transformers import AutoModelForCausalLM

        shutil.copytree(folder, copy, ignore=lambda *_: ["model.safetensors"], dirs_exist_ok=True)
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32").save_pretrained(copy)
    return copy


def _folder(name: str) -> Path:
    folder = CACHE / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_made(folder: Path) -> bool:
    return (folder / "model.safetensors").exists()


def _unpack(tokenizer: str, folder: Path, *names: str) -> None:
    for name in names:
        packed = (DATA / "tokenizers" / tokenizer / f"{name}.gz").read_bytes()
        (folder / name).write_bytes(gzip.decompress(packed))


def _save(network: Any, folder: Path, never: int | None = None) -> None:
    """Writes config and weights; the token `never` is never the likeliest."""
    import torch

    if never is not None:
        with torch.no_grad():
            network.get_input_embeddings().weight[never] = 0
    network.save_pretrained(folder)
