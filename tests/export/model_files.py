"""Tiny models and tokenizers, saved or trained here, and the contents of a GGUF file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from zephyr.model.gguf_pre_tokenizers import PreTokenizer
from zephyr.model.load import Lineage
from zephyr.model.model import Model

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are \"kind\" {{ and }} short.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Qwen's form of a prompt, with a system message of its own where none is given."""


def add_chatml(tokenizer: Any) -> Any:
    """Gives a tokenizer a ChatML template, with markers at the end of its vocabulary."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def write_model(folder: Path, family: str, dtype: torch.dtype = torch.float32) -> Lineage:
    """Saves a random tiny model as a base in a folder."""
    model = tiny.make_model(family)
    model.causal.to(dtype)
    model.causal.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return Lineage(str(folder))


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """The fields of a GGUF file, its tensors in float32 by gguf's own rule, and their types."""
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    values = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return fields, values, {t.name: t.tensor_type.name for t in reader.tensors}


def named_weights(model: Model) -> dict[str, np.ndarray]:
    """The weights of a model in float32, by name."""
    return {name: p.detach().float().numpy() for name, p in model.causal.named_parameters()}


def train_tokenizer(pre_tokenizer: PreTokenizer, texts: Sequence[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with these steps, trained on the texts."""
    backend = Tokenizer(models.BPE(ignore_merges=pre_tokenizer.ignore_merges))
    backend.pre_tokenizer = pre_tokenizer.build()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*texts] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.chat_template = tiny.tokenizer().chat_template
    return tokenizer
