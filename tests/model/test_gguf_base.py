"""GGUF as a base: the weights and the tokens of the network that the file was written from."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tests.export.model_files import train_tokenizer
from zephyr.errors import ZephyrError
from zephyr.export.gguf_file import write_gguf
from zephyr.model.base_model import hash_base_model, locate_base_model
from zephyr.model.gguf_base import GgufMetadata, convert_gguf, find_gguf, make_tokenizer
from zephyr.model.gguf_pre_tokenizers import PRE_TOKENIZERS
from zephyr.model.load import Lineage, build_model, load_model

TEXTS = (
    *("12345 + 6,789 = 19134", "The fox's 3 cubs didn't\n\nsleep.", "  two  blanks\t tab"),
    *(
        "naïve café, ½ of Ⅷ, ٣٤",
        "漢字 and かな, 한국어",
        "😀👩‍🔬",
        "def f(x):\n    return x**2",
        " ",
    ),
)


@pytest.mark.parametrize("name", ["smollm", "qwen2", "gpt-2", "llama-bpe"])
def test_a_file_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    """The weights in bfloat16, the chat template, the stop token, and the tokens of each text."""
    texts = [*TEXTS, "123 1234 12345 12 34"] * 7
    tokenizer = train_tokenizer(PRE_TOKENIZERS[name], texts, tiny.VOCAB_SIZE)
    causal = tiny.llama() if name != "qwen2" else tiny.qwen2()
    model = build_model(causal, tokenizer, token_budget=512)
    file = tmp_path / "m.gguf"
    write_gguf(model, file, "f32", "tiny")
    convert_gguf(file, tmp_path / "folder")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.float32)
    ids = torch.arange(1, 60)[None]
    with torch.no_grad():
        expected = causal.to(torch.bfloat16).to(torch.float32)(ids).logits
        torch.testing.assert_close(found(ids).logits, expected, rtol=1e-5, atol=1e-5)
    again = AutoTokenizer.from_pretrained(tmp_path / "folder")
    for text in TEXTS:
        plain = {"add_special_tokens": False}
        assert again(text, **plain)["input_ids"] == tokenizer(text, **plain)["input_ids"]
    loaded = load_model(Lineage(str(tmp_path / "folder")), Path("/"), token_budget=512)
    assert loaded.template.stop_token_ids == model.template.stop_token_ids
    messages = [{"role": "user", "content": "Why 42?"}]
    options = {"add_generation_prompt": True, "tokenize": False}
    assert again.apply_chat_template(messages, **options) == tokenizer.apply_chat_template(
        messages, **options
    )


@pytest.mark.parametrize(
    ("pre", "adds_start", "expected"),
    [
        ("smollm", True, ["<s>", "a"]),
        ("smollm", False, ["a"]),
        ("smollm", None, ["a"]),
        ("llama-bpe", None, ["<s>", "a"]),  # llama.cpp's default for this one
    ],
)
def test_a_start_token_stands_where_llama_cpp_writes_one(
    pre: str, adds_start: bool | None, expected: list[str]
) -> None:
    values = {"pre": pre, "bos_token_id": 0, "eos_token_id": 1}
    values |= {} if adds_start is None else {"add_bos_token": adds_start}
    keys = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    tokenizer = make_tokenizer(GgufMetadata(keys, ["<s>", "</s>", "a"], [3, 3, 1], []))
    assert tokenizer.convert_ids_to_tokens(tokenizer("a")["input_ids"]) == expected


def write_keys(path: Path, **changes: Any) -> Path:
    """A GGUF file of keys alone, as of a llama, with changes; None leaves a key out."""
    values = {"pre": "smollm", "model": "gpt2", "architecture": "llama"} | changes
    writer = gguf.GGUFWriter(path, values["architecture"])
    if values.get("type"):
        writer.add_type(values["type"])
    if values.get("parts"):
        writer.add_uint16("split.count", values["parts"])
    writer.add_tokenizer_model(values["model"])
    if values["pre"]:
        writer.add_tokenizer_pre(values["pre"])
    writer.add_token_list(["a", "b"])
    writer.add_token_types([1, 1])
    writer.add_tensor("x", np.zeros((2, 2), dtype=np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "rwkv7"}, "networks of this architecture(.|\n)*rwkv7(.|\n)*llama"),
        ({"pre": "klingon"}, "how this tokenizer cuts text(.|\n)*klingon(.|\n)*smollm"),
        ({"pre": None}, "how this tokenizer cuts text(.|\n)*None"),
        ({"model": "llama"}, "tokenizers of this kind(.|\n)*llama(.|\n)*byte-level BPE"),
        ({"type": "adapter"}, "holds no whole model(.|\n)*adapter"),
        ({"parts": 3}, "a part of a model(.|\n)*3 parts"),
    ],
)
def test_what_can_not_be_read_is_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_keys(tmp_path / "m.gguf", **changes)
    with pytest.raises(ZephyrError, match=message):
        convert_gguf(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ZephyrError, match="can't be read"):
        convert_gguf(path, tmp_path / "folder")


def test_a_base_is_a_file_or_the_folder_that_holds_one(tmp_path: Path) -> None:
    file = write_keys(tmp_path / "m.gguf")
    for base in ("m.gguf", "."):
        assert locate_base_model(base, tmp_path, "here") == file
        assert list(hash_base_model(base, tmp_path, "here")) == ["m.gguf"]
    shutil.copy(file, tmp_path / "n.gguf")
    with pytest.raises(ZephyrError, match=r"several GGUF files(.|\n)*m\.gguf, n\.gguf"):
        locate_base_model(".", tmp_path, "here")
    (tmp_path / "config.json").write_text("{}")
    assert find_gguf(tmp_path) is None


@pytest.mark.enable_socket
def test_tokens_of_a_real_file_are_those_of_llama_cpp(real_data: Path, tmp_path: Path) -> None:
    """On questions with digits: 200 texts of GSM8K, and those above."""
    server = pytest.importorskip("tests.export.llama_cpp_server", exc_type=ImportError)
    path = os.environ.get("ZEPHYR_REAL_GGUF")
    if path is None:
        pytest.skip("set ZEPHYR_REAL_GGUF to a GGUF file, such as SmolLM2's")
    convert_gguf(Path(path), tmp_path / "folder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    with gzip.open(real_data / "gsm8k" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:200]
    llama_cpp = server.serve(Path(path), 512)
    for text in (*TEXTS, *(row["question"] + "\n" + row["answer"] for row in rows)):
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert server.tokenize(llama_cpp, text) == expected
