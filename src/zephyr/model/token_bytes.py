"""Token bytes: the UTF-8 bytes of each token of a vocabulary (byte-level BPE, byte fallback).

A token may hold a part of a character, so that its text alone does not say what it is.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_BYTE_FALLBACK_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: the character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + at): byte for at, byte in enumerate(others)}


BYTE_LEVEL_ALPHABET = _byte_level_alphabet()

NFC_SHRINKAGE = 3
"""NFC makes at most this many bytes one: three letters of Hangul, of three bytes each."""

_LENGTHENING_STEPS = {"NFC", "Prepend", "ByteLevel", "Split", "Digits", "Metaspace"}
"""Steps of normalizers and pre-tokenizers that make no text shorter, NFC apart."""


class TokenBytes:
    """The bytes of the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        steps = list(_steps(tokenizer, "decoder"))
        kinds = {step["type"] for step in steps}
        self._is_byte_level = "ByteLevel" in kinds
        self._is_sentencepiece = not self._is_byte_level and bool(kinds & {"Replace", "Metaspace"})
        self._replacements = [
            (step["pattern"]["String"], step["content"])
            for step in steps
            if step["type"] == "Replace" and "String" in step["pattern"]
        ] + [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]
        self.max_bytes_per_token = self._find_max_bytes()
        """The most bytes of a text that may become one token; None where there is no such bound."""

    def of(self, token: int) -> bytes | None:
        """The bytes of a token; None where the tokenizer is of another kind."""
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # a row of the embedding without a token
            return b""
        if self._is_byte_level:
            if all(character in BYTE_LEVEL_ALPHABET for character in piece):
                return bytes(BYTE_LEVEL_ALPHABET[character] for character in piece)
            return str(piece).encode()
        if not self._is_sentencepiece:
            return None
        if found := _BYTE_FALLBACK_TOKEN.fullmatch(piece):
            return bytes([int(found[1], 16)])
        for old, new in self._replacements:
            piece = piece.replace(old, new)
        return str(piece).encode()

    def _find_max_bytes(self) -> int | None:
        """There is no bound where a tokenizer drops characters, or takes unknown ones together."""
        steps = [
            step
            for part in ("normalizer", "pre_tokenizer")
            for step in _steps(self._tokenizer, part)
        ]
        if not self._tokenizer.is_fast or not all(map(_keeps_all_bytes, steps)):
            return None
        vocabulary = self._tokenizer.get_vocab()
        if self._is_byte_level and BYTE_LEVEL_ALPHABET.keys() <= vocabulary.keys():
            longest = max(map(len, vocabulary))
        elif (
            self._is_sentencepiece
            and getattr(self._tokenizer.backend_tokenizer.model, "byte_fallback", False)
            and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
        ):
            longest = max(len(piece.encode()) for piece in vocabulary)
        else:
            return None
        return longest * (NFC_SHRINKAGE if any(step["type"] == "NFC" for step in steps) else 1)


def _steps(tokenizer: Any, part: str) -> Iterator[dict[str, Any]]:
    """The steps of a part of a fast tokenizer, as tokenizer.json describes them."""
    component = getattr(tokenizer.backend_tokenizer, part) if tokenizer.is_fast else None
    if component is not None:
        yield from _flatten(json.loads(component.__getstate__()))


def _flatten(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if step["type"] == "Sequence":
        for inner in next(value for value in step.values() if isinstance(value, list)):
            yield from _flatten(inner)
    else:
        yield step


def _keeps_all_bytes(step: dict[str, Any]) -> bool:
    """Whether a step of a tokenizer makes no text shorter, NFC apart."""
    if step["type"] == "Replace":
        pattern = step["pattern"].get("String")
        return pattern is not None and len(step["content"].encode()) >= len(pattern.encode())
    return step["type"] in _LENGTHENING_STEPS and step.get("behavior") != "Removed"
