"""A byte-level BPE tokenizer as llama.cpp's files hold it.

llama.cpp does not read the cut of a text into words from the file: it knows some cuts by name. So
the cut that a tokenizer.json defines is compared with those, whatever its architecture is called.
"""

import json
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
_REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
_SPLITS = {
    _CONTRACTIONS + "\\p{N}" + _REST: "qwen2",
    _CONTRACTIONS + "\\p{N}{1,3}" + _REST: "llama-bpe",
    " ?[^(\\s|[.,!?…。，、।۔،])]+": "bloom",
}
"""The regular expressions by which words are cut, and what llama.cpp calls them."""
_BYTES_ALONE = "gpt-2"
"""The cut that is a part of the byte-level step itself."""
KNOWN = (*_SPLITS.values(), _BYTES_ALONE)

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


class Vocabulary(NamedTuple):
    """Tokens by id with their types, merges in order, and the name of the cut."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    cut: str


def vocabulary(tokenizer: Any, rows: int) -> Vocabulary:
    """What a tokenizer knows, for a network with so many `rows` in its embedding.

    Tokens beyond these are unknown to the network and left out; rows without a token get one that
    no text holds.

    Raises:
        ZephyrError: it is no byte-level BPE, or llama.cpp does not know its cut.
    """
    if not tokenizer.is_fast:
        raise _refused(tokenizer, "no tokenizer.json")
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    cut = _cut(parts)
    if cut is None:
        found = {key: parts[key] for key in ("normalizer", "pre_tokenizer")}
        raise _refused(tokenizer, json.dumps(found, ensure_ascii=False))
    model = parts["model"]
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    for text, i in model["vocab"].items():
        tokens[i], types[i] = text, NORMAL
    for added in parts["added_tokens"]:
        if (i := added["id"]) < rows:
            tokens[i] = added["content"]
            types[i] = CONTROL if added["special"] else USER_DEFINED
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    return Vocabulary(tokens, types, [" ".join(pair) for pair in pairs], cut)


def _cut(parts: dict[str, Any]) -> str | None:
    """What llama.cpp calls the cut of a tokenizer; None where it has no name for it."""
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
    if len(steps) == 1:
        cut = _BYTES_ALONE if last.get("use_regex", True) else None
    elif len(steps) == 2 and not last.get("use_regex", True):
        split = steps[0]
        isolated = split.get("type") == "Split" and split.get("behavior") == "Isolated"
        known = isolated and not split.get("invert")
        cut = _SPLITS.get(split["pattern"].get("Regex")) if known else None
    else:
        cut = None
    ignores = bool(model.get("ignore_merges"))  # llama.cpp ties this to the name
    return cut if ignores == (cut == "llama-bpe") else None


def _refused(tokenizer: Any, found: str) -> ZephyrError:
    return ZephyrError(
        "llama.cpp does not know how this tokenizer cuts text",
        where=str(getattr(tokenizer, "name_or_path", "") or "the tokenizer"),
        found=found,
        allowed=f"byte-level BPE that cuts as one of {', '.join(KNOWN)}",
        todo="export it with --to merged",
    )
