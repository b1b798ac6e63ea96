"""Tokenizers in GGUF: llama.cpp cuts texts into the tokens that the tokenizer does."""

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tests.export.llama_cpp_networks import make_causal
from tests.export.llama_cpp_server import make_model, serve, tokenize
from zephyr.export.gguf_file import write_gguf
from zephyr.export.gguf_vocabulary import read_vocabulary
from zephyr.model.gguf_pre_tokenizers import ASCII_CASE, PRE_TOKENIZERS, PreTokenizer

pytestmark = pytest.mark.enable_socket

VOCAB_SIZE = 900
_WORDS = (
    "Hello world don't WE'LL naïve Привет ПРИВЕТ мир 力と 漢字 123 4 56789 3.14 ½ Ⅷ ! ... / // _x "
    "camelCase HTTPServer é 😀 's 'D (a) [b] {c} #tag ß Ω x2"
)
_PARTS = [*_WORDS.split(" "), " ", "  ", "\n", "\r\n", "\t", "\n\n", "\u00a0"]
_MARKS = ["a\u0301", "\u0915\u093f"]
_CASELESS = [part for part in _PARTS if part.isascii() or part.lower() == part.upper()]


def make_texts(parts: list[str], count: int) -> list[str]:
    """Random texts of words, digits, signs and blanks, with and without blanks between."""
    rng = random.Random(0)
    return [
        "".join(rng.choice(parts) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 12)))
        for _ in range(count)
    ]


def train(pre_tokenizer: PreTokenizer, texts: list[str]) -> Any:
    """A byte-level BPE tokenizer with these steps, trained on the texts."""
    backend = Tokenizer(models.BPE(ignore_merges=pre_tokenizer.ignore_merges))
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in pre_tokenizer.patterns]
    last = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=pre_tokenizer.byte_level_regex
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, last]) if splits else last
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.chat_template = tiny.tokenizer().chat_template
    return tokenizer


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_llama_cpp_cuts_texts_alike(name: str, tmp_path: Path) -> None:
    parts = _CASELESS if name in ASCII_CASE else [*_PARTS, *_MARKS]
    texts = make_texts(parts, 150)
    tokenizer = train(PRE_TOKENIZERS[name], texts)
    assert read_vocabulary(tokenizer, VOCAB_SIZE).pre_tokenizer == name
    causal = make_causal("qwen2")
    causal.resize_token_embeddings(VOCAB_SIZE)
    notes = write_gguf(make_model(causal, tokenizer), tmp_path / "m.gguf", "f32", "tiny")
    assert [name in note for note in notes] == [True] * (name in ASCII_CASE)
    server = serve(tmp_path / "m.gguf", tiny.CONTEXT_LENGTH)
    for text in texts:
        assert tokenize(server, text) == tokenizer(text, add_special_tokens=False)["input_ids"]
