"""What a folder holds is what is loaded."""

import copy
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model.load import Lineage, build_model, load_model
from zephyr.model.tokenizer import load_tokenizer
from zephyr.runs.store import write_json

TEXT = "It's 27+35 = 62, or 1,234.5 (#3).\n\n\tdef f(x):\r\n  return x*2  naïve 漢字 🙂"


def test_text_is_tokenized_as_the_folders_own_file_says(tmp_path: Path) -> None:
    """A Qwen2 folder whose tokenizer keeps a space with the digit after it, as Qwen2's does not."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        ["Dan has 46 books and 4 pens.", "4 4 4 4"] * 5,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    tiny.qwen2().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    loaded = load_tokenizer(tmp_path)
    tokens = loaded.convert_ids_to_tokens(loaded("Dan has 46 books.")["input_ids"])
    assert tokens[2:4] == ["Ġ4", "6"]
    for text in (TEXT, "Dan has 46 books.", "a\n\n 12 "):
        assert loaded(text)["input_ids"] == core.encode(text).ids
    assert loaded.eos_token_id == core.token_to_id("<|endoftext|>")


def test_a_tokenizer_made_here_comes_back_the_same(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tiny.qwen2().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]


def test_unknown_characters_of_a_real_tokenizer_do_not_vanish(real_data: Path) -> None:
    loaded = load_tokenizer(real_data / "models" / "tinystories-656k")
    ids = loaded("a # b", add_special_tokens=False)["input_ids"]
    assert loaded.unk_token_id in ids


def test_template_tokens_without_a_row_are_refused_by_name(tmp_path: Path) -> None:
    """A padding token that nothing writes may lack one; a token that text can hold may not."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert build_model(tiny.qwen2(), tokenizer, token_budget=256).context_length == 128
    tokenizer.add_tokens([AddedToken("<turn>", special=True), AddedToken("<end>", special=True)])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content + '<end>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
    )
    tiny.qwen2().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ZephyrError) as caught:
        load_model(Lineage(str(tmp_path)), tmp_path, token_budget=256)
    assert str(caught.value).splitlines()[:4] == [
        "tokens of the chat template or the tokenizer have no row in the embedding",
        f"  where:   {tmp_path}",
        "  found:   <turn> (321), <end> (322)",
        "  allowed: ids below 320, the rows of the embedding",
    ]
    tokenizer.chat_template = None
    tokenizer.add_tokens(["<hint>"])
    with pytest.raises(ZephyrError, match=r"found:   <hint> \(323\)\n"):
        build_model(tiny.qwen2(), tokenizer, token_budget=256)


@pytest.mark.parametrize("start", [(), ("<start>",)])
def test_an_end_token_after_every_text_is_left_out(start: tuple[str, ...], tmp_path: Path) -> None:
    """What stands before a text stays; saved and loaded again it is the same."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start>"]})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (*start, "<|endoftext|>")}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*start, "$A", "<|endoftext|>"], special_tokens=list(ids.items())
    )
    plain = tokenizer("2 + 2", add_special_tokens=False)["input_ids"]
    expected = [*(ids[token] for token in start), *plain]
    assert tokenizer("2 + 2")["input_ids"] == [*expected, ids["<|endoftext|>"]]
    tokenizer.save_pretrained(tmp_path / "a")
    loaded = load_tokenizer(tmp_path / "a")
    assert loaded("2 + 2")["input_ids"] == expected
    loaded.save_pretrained(tmp_path / "b")
    assert load_tokenizer(tmp_path / "b")("2 + 2")["input_ids"] == expected


def test_a_lineage_keeps_thinking_and_older_ones_have_it_off(tmp_path: Path) -> None:
    Lineage("base", None, ("a",), thinking="on").write(tmp_path)
    assert Lineage.read(tmp_path) == Lineage("base", None, ("a",), thinking="on")
    write_json(tmp_path / "model.json", {"weights": "base", "load": None, "adapters": []})
    assert Lineage.read(tmp_path) == Lineage("base")
