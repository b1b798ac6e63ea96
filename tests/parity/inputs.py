"""The inputs of both programs: real rows, and the networks that are evaluated."""

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

ITEMS_PER_TASK = 200
"""Items of each task."""

FEW_SHOT_SUBJECT = "high_school_geography"
"""The subject that is asked with five few-shot examples."""

SEED = 7


def read_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file.read().split("\n") if line]


def evenly_spaced(values: list[Any], n: int = ITEMS_PER_TASK) -> list[Any]:
    """`n` of the values, at equal distances."""
    return [values[i * len(values) // n] for i in range(min(n, len(values)))]


def read_wikitext(data: Path) -> str:
    packed = (data / "wikitext2" / "wiki.test.raw.txt.gz").read_bytes()
    return gzip.decompress(packed).decode().replace("\r\n", "\n")


def load_tinystories(data: Path) -> tuple[Any, Any]:
    """A real network in float32, and its tokenizer as its own file says."""
    folder = data / "models" / "tinystories-656k"
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return network.eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def make_random_qwen2(data: Path, folder: Path) -> tuple[Any, Any]:
    """A network of Qwen2's architecture with random weights, and Qwen2's real tokenizer."""
    for file in (data / "tokenizers" / "qwen2").glob("*.gz"):
        (folder / file.name.removesuffix(".gz")).write_bytes(gzip.decompress(file.read_bytes()))
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=151_645,
    )
    return Qwen2ForCausalLM(config).eval(), AutoTokenizer.from_pretrained(folder)
