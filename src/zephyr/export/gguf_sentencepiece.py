"""GGUF vocabulary of SentencePiece's BPE (Llama 2, Gemma): tokens with scores in place of merges.

A tokenizer.json lists merges of pairs; llama.cpp joins any two neighbours whose text is a token,
the one of the highest score first. Both give the same tokens where every such pair is among the
merges, those that make the same token one after the other: a token's score is minus its rank.
"""

import re
from typing import Any, NamedTuple

_BLANK = "▁"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
_PREPEND = {"type": "Prepend", "prepend": _BLANK}
_NORMALIZERS = (
    (_REPLACE, False),
    ({"type": "Sequence", "normalizers": [_PREPEND, _REPLACE]}, True),
)
_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
"""Gemma's pre-tokenizer: it finds nothing, since no blank is left."""
_NOT_MERGED = -1e9


class SentencePiece(NamedTuple):
    """Scores of merged tokens by text, and whether a blank is put before a text."""

    scores: dict[str, float]
    adds_blank: bool

    def score(self, token: str) -> float:
        """The score of a token; that of one which no merge makes is never compared."""
        return self.scores.get(token, _NOT_MERGED)


def is_byte(token: str) -> bool:
    """Whether a token is one byte of a character that is no token (`<0x0A>`)."""
    return re.fullmatch("<0x[0-9A-F]{2}>", token) is not None


def read_sentencepiece(parts: dict[str, Any]) -> SentencePiece | None:
    """Reads a tokenizer.json; None where it is none that llama.cpp would compute alike."""
    model = parts["model"]
    adds_blank = next((b for known, b in _NORMALIZERS if parts["normalizer"] == known), None)
    if (
        adds_blank is None
        or parts["pre_tokenizer"] not in (None, _SPLIT)
        or (model["type"], model.get("byte_fallback")) != ("BPE", True)
        or model.get("unk_token") not in model["vocab"]
        or any(model.get(k) for k in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        or model.get("ignore_merges")
    ):
        return None
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    made = [left + right for left, right in pairs]
    ranks = {token: rank for rank, token in reversed(list(enumerate(made)))}
    in_order = all(
        token == before or ranks[token] == rank
        for rank, (token, before) in enumerate(zip(made, ["", *made], strict=False))
    )
    vocab = model["vocab"]
    added = {token["content"] for token in parts["added_tokens"]}
    possible = {
        (token[:at], token[at:])
        for token in vocab
        if token not in added
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    }
    if not in_order or not possible <= set(pairs):
        return None
    return SentencePiece({token: -1.0 - rank for token, rank in ranks.items()}, adds_blank)
