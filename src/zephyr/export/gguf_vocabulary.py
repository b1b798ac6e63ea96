"""GGUF vocabulary of a tokenizer: tokens, types, merges or scores, pre-tokenizer.

llama.cpp does not read the pre-tokenizer from the file: it has some built in by name. So the
pre-tokenizer of a tokenizer.json is compared with those, whatever the architecture.
"""

import json
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.export.gguf_sentencepiece import SentencePiece, is_byte, read_sentencepiece
from zephyr.model.gguf_pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

_DIGIT_PATTERNS = ("\\p{N}", "\\p{N}{1}")

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


class Vocabulary(NamedTuple):
    """Tokens by id with their types, merges in order, and llama.cpp's pre-tokenizer name.

    SentencePiece's BPE has scores, and neither merges nor a pre-tokenizer in GGUF.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre_tokenizer: str
    sentencepiece: SentencePiece | None = None


def read_vocabulary(tokenizer: Any, embedding_rows: int) -> Vocabulary:
    """Reads a tokenizer's vocabulary, for a network with `embedding_rows` rows in its embedding.

    Tokens beyond these are left out; rows without a token get a padding token (`[PAD7]`).

    Raises:
        ZephyrError: it is neither byte-level BPE nor SentencePiece's, or llama.cpp has no name for
            its pre-tokenizer.
    """
    if not tokenizer.is_fast:
        raise _unsupported_tokenizer(tokenizer, "no tokenizer.json")
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    pre_tokenizer = _pre_tokenizer_name(parts)
    sentencepiece = read_sentencepiece(parts)
    if pre_tokenizer is None and sentencepiece is None:
        found = {key: parts[key] for key in ("normalizer", "pre_tokenizer")}
        raise _unsupported_tokenizer(tokenizer, json.dumps(found, ensure_ascii=False))
    model = parts["model"]
    tokens = [f"[PAD{i}]" for i in range(embedding_rows)]
    types = [UNUSED] * embedding_rows
    for text, i in model["vocab"].items():
        if i < embedding_rows:
            tokens[i], types[i] = text, NORMAL
        if sentencepiece is not None:
            is_unknown = text == model["unk_token"]
            types[i] = UNKNOWN if is_unknown else BYTE if is_byte(text) else NORMAL
    for added in parts["added_tokens"]:
        if (i := added["id"]) < embedding_rows and types[i] != UNKNOWN:
            tokens[i] = added["content"]
            types[i] = CONTROL if added["special"] else USER_DEFINED
    if sentencepiece is not None:
        return Vocabulary(tokens, types, [], "default", sentencepiece)
    assert pre_tokenizer is not None
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    return Vocabulary(tokens, types, [" ".join(pair) for pair in pairs], pre_tokenizer)


def _pre_tokenizer_name(parts: dict[str, Any]) -> str | None:
    """llama.cpp's name for a tokenizer's pre-tokenizer; None if it is not supported."""
    model, step = parts["model"], parts["pre_tokenizer"] or {}
    plain = {"unk_token": (None, "<unk>"), "byte_fallback": (False,), "dropout": (None,)}
    affixes = dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"), (None, ""))
    if model["type"] != "BPE" or any(
        model.get(key) not in values for key, values in (plain | affixes).items()
    ):
        return None
    if (parts["normalizer"] or {"type": "NFC"}) != {"type": "NFC"}:  # llama.cpp applies none
        return None
    steps = step.get("pretokenizers", [step])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return None
    patterns = tuple(_isolated_pattern(step) for step in steps[:-1])
    found = PreTokenizer(
        tuple(pattern or "" for pattern in patterns),
        bool(last.get("use_regex", True)),
        bool(model.get("ignore_merges")),
    )
    return next((name for name, known in PRE_TOKENIZERS.items() if known == found), None)


def _isolated_pattern(step: dict[str, Any]) -> str | None:
    """The regular expression of a step whose matches become pieces of their own."""
    if step.get("type") == "Digits" and step.get("individual_digits"):
        return _DIGIT_PATTERNS[0]
    if step.get("type") != "Split" or step.get("behavior") != "Isolated" or step.get("invert"):
        return None
    pattern = step["pattern"].get("Regex")
    return _DIGIT_PATTERNS[0] if pattern in _DIGIT_PATTERNS else pattern


def _unsupported_tokenizer(tokenizer: Any, found: str) -> ZephyrError:
    return ZephyrError(
        "how this tokenizer cuts text (its pre-tokenizer) can't be written as GGUF here",
        where=str(getattr(tokenizer, "name_or_path", "") or "the tokenizer"),
        found=found,
        allowed=f"byte-level BPE that cuts as one of {', '.join(PRE_TOKENIZERS)}; "
        "SentencePiece's BPE with byte fallback and all merges",
        todo="export it with --to merged",
    )
