"""Pre-tokenizers that llama.cpp names in GGUF (`tokenizer.ggml.pre`), as steps of a tokenizer.json.

llama.cpp does not read the steps from a file: it has them built in by name.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
_SIGNS = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
_WORDS = f"{_CONTRACTIONS}|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|"
_UPPER, _LOWER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
_BEFORE = "[^\\r\\n\\p{L}\\p{N}]?"
_CASED = (f"{_BEFORE}{_UPPER}*{_LOWER}+", f"{_BEFORE}{_UPPER}+{_LOWER}*")
_CASED_SIGNS = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
_MARKED_WORDS = f"{_CONTRACTIONS}|{_BEFORE}[\\p{{L}}\\p{{M}}]+|\\p{{N}}"
_MARKED_SIGNS = "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
_CONTRACTED = f"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?|\\p{{N}}{{1,3}}"
_PUNCTUATED_WORDS = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"
)


class PreTokenizer(NamedTuple):
    """Steps of a byte-level pre-tokenizer, in order.

    `patterns`: regular expressions, each of whose matches becomes a piece of its own (`Split`,
    `Isolated`); `byte_level_regex`: whether `ByteLevel` then cuts by GPT-2's own expression;
    `ignore_merges`: whether a piece that is a token stays whole, whatever the merges.
    """

    patterns: tuple[str, ...]
    byte_level_regex: bool = False
    ignore_merges: bool = False

    def build(self) -> Any:
        """Builds these steps as a pre-tokenizer of the library `tokenizers`."""
        from tokenizers import Regex, pre_tokenizers

        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.byte_level_regex)
        splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in self.patterns]
        return pre_tokenizers.Sequence([*splits, last])


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": PreTokenizer((), byte_level_regex=True),
    "smollm": PreTokenizer(("\\p{N}",), byte_level_regex=True),
    "qwen2": PreTokenizer((f"{_WORDS}\\p{{N}}{_SIGNS}{_BLANKS}",)),
    "qwen35": PreTokenizer((f"{_MARKED_WORDS}{_MARKED_SIGNS}{_BLANKS}",)),
    "llama-bpe": PreTokenizer((f"{_WORDS}\\p{{N}}{{1,3}}{_SIGNS}{_BLANKS}",), ignore_merges=True),
    "dbrx": PreTokenizer((f"{_WORDS}\\p{{N}}{{1,3}}{_SIGNS}{_BLANKS}",)),
    "tekken": PreTokenizer(
        (f"{_CASED[0]}|{_CASED[1]}|\\p{{N}}{_CASED_SIGNS}{_BLANKS}",), ignore_merges=True
    ),
    "gpt-4o": PreTokenizer((f"{_CONTRACTED}{_CASED_SIGNS}{_BLANKS}",)),
    "seed-coder": PreTokenizer(
        (f"{_WORDS}\\p{{N}}{{1}}| ?[^\\s\\p{{L}}\\p{{N}}\\r\\n]+{_BLANKS}",)
    ),
    "deepseek-v3": PreTokenizer(
        ("\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", f"{_PUNCTUATED_WORDS}{_BLANKS}")
    ),
    "bloom": PreTokenizer((" ?[^(\\s|[.,!?…。，、।۔،])]+",)),
}
"""Names of pre-tokenizers in GGUF, and their steps."""
ASCII_CASE = ("tekken", "gpt-4o")
"""Those in which llama.cpp knows the case of ASCII letters alone, and no combining marks."""
