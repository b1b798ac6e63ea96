"""What a folder holds is what is loaded."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from zephyr.model.load import load_tokenizer

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
