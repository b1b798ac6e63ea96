"""Pretraining from scratch: trains a tokenizer, and initializes a small network."""

from collections.abc import Iterable
from typing import Any

import torch

from zephyr.recipe.training import Shape

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Any:
    """Trains a byte-level BPE tokenizer, one token a digit; its EOS token is `END_OF_TEXT`.

    It pre-tokenizes as Qwen2's does, since transformers loads a Qwen2 folder with those rules
    whatever the folder's own file says.
    """
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        texts, vocabulary_size, show_progress=False
    )
    assert tokenizer.eos_token == END_OF_TEXT, "Qwen2 ends a text with this token"
    return tokenizer


def make_network(shape: Shape, *, eos_token_id: int, seed: int) -> Any:
    """Makes a Qwen2 network with random initial weights from `seed`."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        use_sliding_window=False,
        initializer_range=shape.hidden
        ** -0.5,  # 0.02 is for wide networks: this one would hardly attend
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
