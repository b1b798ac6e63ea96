"""GGUF files, read back by gguf's own reader and compared with the network."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedTokenizerFast,
    SmolLM3Config,
)

from tests import tiny
from tests.export.model_files import add_chatml, named_weights, read_gguf
from zephyr.errors import ZephyrError
from zephyr.export.gguf_families import find_family
from zephyr.export.gguf_file import check_gguf_support, write_gguf
from zephyr.export.gguf_vocabulary import read_vocabulary
from zephyr.model.load import build_model

HEADS, HEAD_DIM, HALF_HEAD_DIM = 4, 8, 4


def expected_tensor(family: str, name: str, value: np.ndarray) -> np.ndarray:
    """A tensor as llama.cpp wants it, by row numbers written out."""
    if family == "llama" and (".q_proj." in name or ".k_proj." in name):
        rows = [
            head * HEAD_DIM + half * HALF_HEAD_DIM + i
            for head in range(len(value) // HEAD_DIM)
            for i in range(HALF_HEAD_DIM)
            for half in (0, 1)
        ]
        return value[rows]
    if family == "bloom" and ".query_key_value." in name:
        rows = [
            head * 3 * HEAD_DIM + part * HEAD_DIM + i
            for part in range(3)
            for head in range(HEADS)
            for i in range(HEAD_DIM)
        ]
        return value[rows]
    is_transposed = family == "gpt2" and value.ndim == 2 and ".h." in name
    return value.T if is_transposed else value


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_weight_is_there_under_its_name_and_in_its_order(family: str, tmp_path: Path) -> None:
    model = tiny.make_model(family)
    with torch.no_grad():
        for parameter in model.causal.parameters():
            parameter.add_(torch.randn_like(parameter) / 8)  # biases and norms too
    assert write_gguf(model, tmp_path / "m.gguf", "f16", "tiny") == []
    fields, values, types = read_gguf(tmp_path / "m.gguf")
    assert fields["general.architecture"] == family
    assert fields[f"{family}.block_count"] == 2
    assert fields[f"{family}.embedding_length"] == 32
    assert fields[f"{family}.attention.head_count"] == HEADS
    found = iter(values.items())
    for name, value in named_weights(model).items():
        tensor, stored = next(found)
        exact = value.ndim < 2 or tensor == "position_embd.weight"
        assert types[tensor] == ("F32" if exact else "F16")
        ordered = expected_tensor(family, name, value)
        np.testing.assert_array_equal(stored, ordered if exact else ordered.astype(np.float16))
    assert next(found, None) is None
    expected_names = {
        f"blk.{n}.{part}.weight" for n in (0, 1) for part in ("attn_output", "ffn_down")
    }
    assert expected_names | {"token_embd.weight", "output_norm.weight"} <= set(values)
    assert ("output.weight" in values) == (family == "llama")


@pytest.mark.parametrize(("kind", "steps"), [("q8_0", 127), ("q4_0", 8)])
def test_quantized_weights_are_within_half_a_step(kind: Any, steps: int, tmp_path: Path) -> None:
    model = tiny.make_model("qwen2")
    write_gguf(model, tmp_path / "m.gguf", kind, "tiny")
    _, values, types = read_gguf(tmp_path / "m.gguf")
    for tensor, value in zip(values, named_weights(model).values(), strict=True):
        if value.ndim < 2:
            np.testing.assert_array_equal(values[tensor], value)
            continue
        assert types[tensor] == kind.upper()
        blocks, stored = value.reshape(-1, 32), values[tensor].reshape(-1, 32)
        step = np.abs(blocks).max(axis=1, keepdims=True) / steps
        errors = np.abs(blocks - stored) / step
        most = 1.01 if kind == "q4_0" else 0.51 + steps / 2048  # 16 levels reach +7, not +8
        assert errors.max() <= most
        assert errors.mean() > 0.1
    f16_path = tmp_path / "half.gguf"
    write_gguf(model, f16_path, "f16", "tiny")
    assert (tmp_path / "m.gguf").stat().st_size < f16_path.stat().st_size


def test_rows_that_are_no_multiple_of_a_block_stay_in_f16(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=tiny.VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=tiny.CONTEXT_LENGTH,
        eos_token_id=0,
        bos_token_id=0,
    )
    torch.manual_seed(0)
    model = build_model(LlamaForCausalLM(config), tiny.tokenizer(), token_budget=256)
    [warning] = write_gguf(model, tmp_path / "m.gguf", "q4_0", "tiny")
    expected = "1 of its matrices stay in f16, where a row is no multiple of 32 wide"
    assert warning == f"{expected}: blk.0.ffn_down.weight."
    fields, values, types = read_gguf(tmp_path / "m.gguf")
    assert fields["llama.attention.head_count_kv"] == 2
    assert {t for n, t in types.items() if n != "blk.0.ffn_down.weight"} == {"F32", "Q4_0"}
    own = named_weights(model)["model.layers.0.mlp.down_proj.weight"]
    np.testing.assert_array_equal(values["blk.0.ffn_down.weight"], own.astype(np.float16))


def test_tokens_merges_template_and_stops_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    causal = tiny.qwen2()
    causal.resize_token_embeddings(330)
    tokenizer = add_chatml(tiny.from_scratch.train_tokenizer(tiny.TEXT * 5, tiny.VOCAB_SIZE))
    model = build_model(causal, tokenizer, token_budget=256)
    write_gguf(model, tmp_path / "m.gguf", "f16", "tiny")
    fields, _, _ = read_gguf(tmp_path / "m.gguf")
    tokens = fields["tokenizer.ggml.tokens"]
    assert tokens[:322] == tokenizer.convert_ids_to_tokens(range(322))
    assert tokens[322:] == [f"[PAD{i}]" for i in range(322, 330)]
    assert fields["tokenizer.ggml.token_type"] == [3] + [1] * 319 + [3] * 2 + [5] * 8
    gguf_tokenizer = Tokenizer(
        models.BPE(
            {t: i for i, t in enumerate(tokens)},
            [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]],
        )
    )
    gguf_tokenizer.pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    for text in tiny.TEXT:
        assert gguf_tokenizer.encode(text).ids == tokenizer(text)["input_ids"]
    assert fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert fields["tokenizer.ggml.eot_token_id"] == tokenizer.eos_token_id == 0
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template


# -- what is refused ------------------------------------------------------------------------------

SPLIT_PATTERNS = {
    "llama-bpe": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "bloom": " ?[^(\\s|[.,!?…。，、।۔،])]+",
}


def make_tokenizer(*steps: Any, **options: Any) -> Any:
    """A BPE tokenizer of letters with these pre-tokenizers."""
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], **options))
    backend.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(list(steps))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def split_by_pattern(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(*, regex: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


def test_a_pre_tokenizer_has_the_name_that_llama_cpp_gives_it() -> None:
    assert read_vocabulary(make_tokenizer(byte_level(regex=True)), 3).pre_tokenizer == "gpt-2"
    bloom = make_tokenizer(split_by_pattern(SPLIT_PATTERNS["bloom"]), byte_level(regex=False))
    assert read_vocabulary(bloom, 3)[:4] == (["a", "b", "ab"], [1, 1, 1], ["a b"], "bloom")
    llama = make_tokenizer(
        split_by_pattern(SPLIT_PATTERNS["llama-bpe"]), byte_level(regex=False), ignore_merges=True
    )
    assert read_vocabulary(llama, 3).pre_tokenizer == "llama-bpe"
    assert read_vocabulary(tiny.tokenizer(), tiny.VOCAB_SIZE).pre_tokenizer == "qwen2"


@pytest.mark.parametrize(
    "tokenizer",
    [
        make_tokenizer(split_by_pattern("\\p{L}+"), byte_level(regex=False)),
        make_tokenizer(split_by_pattern(SPLIT_PATTERNS["bloom"]), byte_level(regex=True)),
        make_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        make_tokenizer(pre_tokenizers.Digits(individual_digits=False), byte_level(regex=True)),
        make_tokenizer(pre_tokenizers.Digits(individual_digits=True), byte_level(regex=False)),
        make_tokenizer(pre_tokenizers.Whitespace()),
        make_tokenizer(byte_level(regex=True), ignore_merges=True),
        make_tokenizer(byte_level(regex=True), end_of_word_suffix="</w>"),
    ],
    ids=[
        "unknown",
        "cut twice",
        "space before",
        "digits together",
        "digits alone",
        "no bytes",
        "merges ignored",
        "suffix",
    ],
)
def test_a_pre_tokenizer_without_a_name_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ZephyrError, match="how this tokenizer cuts text"):
        read_vocabulary(tokenizer, 3)


@pytest.mark.parametrize(
    "digits", [pre_tokenizers.Digits(individual_digits=True), split_by_pattern("\\p{N}")]
)
def test_digits_one_by_one_before_the_byte_level_are_smollm(digits: Any) -> None:
    """By the two regular expressions that llama.cpp has under this name, tokens are the same."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level(regex=True)])
    texts = ["12 + 123 = 135", "It's 3.14, or 27  of 35\n\n x2 ½ Ⅷ 漢字 7"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(texts * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    found = read_vocabulary(tokenizer, 300)
    assert found.pre_tokenizer == "smollm"
    theirs = Tokenizer(
        models.BPE(
            {t: i for i, t in enumerate(found.tokens)},
            [tuple(m.split(" ")) for m in found.merges],
        )
    )
    gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [split_by_pattern("\\p{N}"), split_by_pattern(gpt2), byte_level(regex=False)]
    )
    for text in texts:
        assert theirs.encode(text).ids == tokenizer(text)["input_ids"]
        assert "12" not in tokenizer.tokenize(text)


def test_real_tokenizers_have_a_name(real_data: Path) -> None:
    with gzip.open(real_data / "tokenizers" / "gpt2" / "tokenizer.json.gz") as packed:
        backend = Tokenizer.from_str(packed.read().decode())
    found = read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend), 50257)
    assert (found.pre_tokenizer, len(found.merges), found.tokens[50256]) == (
        "gpt-2",
        50000,
        "<|endoftext|>",
    )


def test_networks_that_llama_cpp_computes_otherwise_are_refused() -> None:
    config = tiny.gpt2().config
    find_family(config)
    for key, value in (("activation_function", "relu"), ("scale_attn_weights", False)):
        other = config.__class__(**{**config.to_dict(), key: value})
        with pytest.raises(ZephyrError, match=rf"does not compute(.|\n)*{key}: {value}"):
            find_family(other)
    check_gguf_support(config, tiny.tokenizer())
    config.model_type = "opt"
    with pytest.raises(ZephyrError, match=r"opt(.|\n)*bloom(.|\n)*llama(.|\n)*qwen3"):
        check_gguf_support(config, tiny.tokenizer())
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(ZephyrError, match="rope_type: dynamic"):
        find_family(LlamaConfig(rope_parameters=dynamic))
    with pytest.raises(ZephyrError, match=r"sliding_window: 64(.|\n)*\(128\)"):
        find_family(MistralConfig(sliding_window=64, max_position_embeddings=128))
    with pytest.raises(ZephyrError, match=r"query_pre_attn_scalar: 256(.|\n)*32"):
        find_family(Gemma3TextConfig(head_dim=32, query_pre_attn_scalar=256))
    with pytest.raises(ZephyrError, match="no_rope_layers"):
        find_family(SmolLM3Config(num_hidden_layers=4, no_rope_layers=[1, 0, 1, 0]))


def test_llama_3_2_has_its_frequencies_as_factors(tmp_path: Path) -> None:
    """Wavelengths below 32 / 4 are kept, those above 32 are 8 times as long (arXiv 2407.21783)."""
    config = LlamaConfig(
        vocab_size=tiny.VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    )
    model = build_model(LlamaForCausalLM(config), tiny.tokenizer(), token_budget=256)
    write_gguf(model, tmp_path / "m.gguf", "f32", "tiny")
    fields, values, types = read_gguf(tmp_path / "m.gguf")
    assert set(types.values()) == {"F32"}
    assert fields["llama.rope.dimension_count"] == 32
    wavelengths = 2 * np.pi * 10000.0 ** (np.arange(16) / 16)
    factors = values["rope_freqs.weight"]
    np.testing.assert_allclose(factors[wavelengths < 8], 1, rtol=1e-6)
    np.testing.assert_allclose(factors[wavelengths > 32], 8, rtol=1e-6)
    middle = (wavelengths > 8) & (wavelengths < 32)
    smooth = (32 / wavelengths[middle] - 1) / 3
    np.testing.assert_allclose(factors[middle], 1 / ((1 - smooth) / 8 + smooth), rtol=1e-5)


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    model = tiny.make_model("llama")
    with torch.no_grad():
        model.causal.lm_head.weight[0, 0] = 1e5
    with pytest.raises(ZephyrError, match=r"does not fit into float16(.|\n)*output\.weight"):
        write_gguf(model, tmp_path / "m.gguf", "f16", "tiny")
