"""Tiny networks with random weights, and a tokenizer for them."""

from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from zephyr.model import from_scratch
from zephyr.model.example import Example, make_example
from zephyr.model.load import build_model
from zephyr.model.model import Model

VOCAB_SIZE = 320
CONTEXT_LENGTH = 128
TEXT = [
    "Human: What is 2 + 2?\nAssistant: 2 + 2 = 4. #### 4\n",
    "A force changes how a body moves. Energy is kept. The student asks the tutor for a hint.",
]

torch.set_num_threads(1)


@cache
def tokenizer() -> Any:
    return from_scratch.train_tokenizer(TEXT * 5, VOCAB_SIZE)


def qwen2() -> Any:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCAB_SIZE,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
        )
    )


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB_SIZE,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=CONTEXT_LENGTH,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def bloom() -> Any:
    return BloomForCausalLM(
        BloomConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=32,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


FAMILIES = {"qwen2": qwen2, "llama": llama, "gpt2": gpt2, "bloom": bloom}


def make_model(family: str, seed: int = 0) -> Model:
    """A tiny model with weights so large that its answers depend on the prompt."""
    torch.manual_seed(seed)
    causal = FAMILIES[family]()
    with torch.no_grad():
        for parameter in causal.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return build_model(causal, tokenizer(), token_budget=256)


def random_examples(seed: int = 0, count: int = 7) -> list[Example]:
    """Random examples of one to four completions, whose lengths differ."""
    rng = np.random.default_rng(seed)

    def random_tokens(max_tokens: int) -> np.ndarray:
        return rng.integers(1, VOCAB_SIZE, rng.integers(1, max_tokens + 1))

    return [
        make_example(random_tokens(20), *(random_tokens(12) for _ in range(rng.integers(1, 5))))
        for _ in range(count)
    ]
