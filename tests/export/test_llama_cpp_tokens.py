"""Tokenizers in GGUF: llama.cpp cuts texts into the tokens that the tokenizer does."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tests.export.llama_cpp_server import make_model, serve, tokenize
from tests.export.model_files import train_tokenizer
from tests.families.networks import make_causal
from zephyr.export.gguf_file import write_gguf
from zephyr.export.gguf_sentencepiece import read_sentencepiece
from zephyr.export.gguf_vocabulary import read_vocabulary
from zephyr.model.gguf_pre_tokenizers import ASCII_CASE, PRE_TOKENIZERS

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


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_llama_cpp_cuts_texts_alike(name: str, tmp_path: Path) -> None:
    parts = _CASELESS if name in ASCII_CASE else [*_PARTS, *_MARKS]
    texts = make_texts(parts, 150)
    tokenizer = train_tokenizer(PRE_TOKENIZERS[name], texts, VOCAB_SIZE)
    assert read_vocabulary(tokenizer, VOCAB_SIZE).pre_tokenizer == name
    causal = make_causal("qwen2")
    causal.resize_token_embeddings(VOCAB_SIZE)
    notes = write_gguf(make_model(causal, tokenizer), tmp_path / "m.gguf", "f32", "tiny")
    assert [name in note for note in notes] == [True] * (name in ASCII_CASE)
    server = serve(tmp_path / "m.gguf", tiny.CONTEXT_LENGTH)
    for text in texts:
        assert tokenize(server, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def make_sentencepiece(texts: list[str], *, adds_blank: bool) -> Any:
    """A tokenizer as transformers makes it of a SentencePiece model: with all possible merges."""
    blank = normalizers.Replace(" ", "▁")
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blank]) if adds_blank else blank
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, max_token_length=8)
    trained.train_from_iterator(texts, trainer)
    learned = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    specials = ["<unk>", "<s>", "</s>"]
    tokens = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    merges = [
        (token[:at], token[at:])
        for token in learned
        for at in range(1, len(token))
        if token[:at] in learned and token[at:] in learned
    ]
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizer
    backend.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = tiny.tokenizer().chat_template
    return tokenizer


@pytest.mark.parametrize("adds_blank", [False, True], ids=["as Gemma", "as Llama 2"])
def test_llama_cpp_joins_sentencepiece_alike(adds_blank: bool, tmp_path: Path) -> None:
    texts = make_texts([*_PARTS, *_MARKS], 150)
    tokenizer = make_sentencepiece(texts, adds_blank=adds_blank)
    causal = make_causal("qwen2")
    causal.resize_token_embeddings(VOCAB_SIZE)
    assert write_gguf(make_model(causal, tokenizer), tmp_path / "m.gguf", "f32", "tiny") == []
    server = serve(tmp_path / "m.gguf", tiny.CONTEXT_LENGTH)
    for text in [*texts, "unseen: \u4e9c\u5516 \U0001f680"]:
        assert tokenize(server, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_merges_that_scores_cannot_tell_are_refused() -> None:
    tokenizer = make_sentencepiece(make_texts(_PARTS, 50), adds_blank=False)
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    assert read_sentencepiece(parts) is not None
    model = parts["model"]
    apart = sorted(model["merges"], key=lambda pair: len(pair[0]))  # of the same token
    for merges in (model["merges"][:-1], apart):
        assert read_sentencepiece({**parts, "model": {**model, "merges": merges}}) is None
    assert read_sentencepiece({**parts, "normalizer": None}) is None
