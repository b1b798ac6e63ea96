"""What is said of base models before training: export as GGUF, and the licence."""

from pathlib import Path

import pytest

from tests import tiny
from zephyr.cli.base_notes import describe_bases
from zephyr.model.base_model import find_base_licence
from zephyr.recipe.schema import Recipe


def recipe_on(base: str) -> Recipe:
    sources = {"kind": "chat", "sources": [{"path": "chats.jsonl"}]}
    return Recipe.model_validate(
        {"name": "r", "data": {"sft": sources}, "models": {"M0": {"base": base}}}
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny.qwen2().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_export_and_licence_of_a_base_are_told(base: Path, tmp_path: Path) -> None:
    (base / "README.md").write_text("---\ntags: [a]\nlicense: mit\n---\n# Model\nlicense: other\n")
    first, last = describe_bases(recipe_on("base"), tmp_path)
    assert first == "M0: can be exported as GGUF, for Ollama and llama.cpp; mit"
    assert "their licences" in last


def test_a_base_that_llama_cpp_lacks_is_told_with_the_reason(base: Path, tmp_path: Path) -> None:
    config = base / "config.json"
    config.write_text(config.read_text().replace('"qwen2"', '"opt"'))
    (line, _) = describe_bases(recipe_on("base"), tmp_path)
    assert line == (
        "M0: can't be exported as GGUF (this architecture can't be written as GGUF here: opt); "
        "its licence is not known here"
    )


def test_a_base_that_is_not_there_has_no_line(tmp_path: Path) -> None:
    assert describe_bases(recipe_on("elsewhere"), tmp_path) == []


def test_a_card_without_a_head_has_no_licence(base: Path, tmp_path: Path) -> None:
    (base / "README.md").write_text("# Model\nlicense: mit\n")
    assert find_base_licence("base", tmp_path, base) is None
    assert find_base_licence("smollm2-135m-instruct", tmp_path, base) == "Apache-2.0"
