"""GGUF as a base model: its weights, dequantized once, with the tokenizer that llama.cpp would use.

transformers dequantizes the weights and reads the config. The tokenizer is made here: transformers
ignores `tokenizer.ggml.pre`, so that SmolLM2's "12345" would be one word instead of five digits.
"""

from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.model.gguf_pre_tokenizers import PRE_TOKENIZERS

SUFFIX = ".gguf"
_CONTROL, _USER_DEFINED = 3, 4
_NO_CAUSAL_LM = ("general", "tokenizer", "t5", "umt5")
_STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class GgufMetadata(NamedTuple):
    """Keys of a GGUF file that say whether it can be read, and its vocabulary.

    `token_types` are llama.cpp's: 1 normal, 3 control (special), 4 user-defined.
    """

    values: dict[str, Any]
    tokens: list[str]
    token_types: list[int]
    merges: list[str]

    def tokenizer_value(self, key: str) -> Any:
        """The value of a key of the tokenizer, None where the file lacks it."""
        return self.values.get(f"tokenizer.ggml.{key}")

    def special_token(self, key: str) -> str | None:
        """The text of a token whose id is the value of a key of the tokenizer."""
        token_id = self.tokenizer_value(key)
        return None if token_id is None else self.tokens[token_id]

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids of the tokens at which an answer ends."""
        found = (self.tokenizer_value(key) for key in _STOP_KEYS)
        return sorted({token_id for token_id in found if token_id is not None})


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that is, or is alone in, a path; None for a folder in Hugging Face format.

    Raises:
        ZephyrError: the folder holds several.
    """
    if path.suffix == SUFFIX and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        raise ZephyrError(
            "a folder holds several GGUF files",
            where=str(path),
            found=", ".join(file.name for file in found),
            todo="name one of them as `base`",
        )
    return found[0] if found else None


def convert_gguf(path: Path, folder: Path) -> None:
    """Writes a GGUF file as a folder for transformers: weights (bfloat16), config and tokenizer.

    Raises:
        ZephyrError: it is damaged, or of a kind that can't be read here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    metadata = read_gguf_metadata(path)
    tokenizer = make_tokenizer(metadata)
    with redirect_stderr(StringIO()):  # a progress bar that transformers has no switch for
        network = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
        )
    for part, name in ((network.config, "quantization_config"), (network, "hf_quantizer")):
        part.__dict__.pop(name, None)
    network.is_quantized = False
    network.generation_config.eos_token_id = metadata.stop_token_ids
    network.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_gguf_metadata(path: Path) -> GgufMetadata:
    """Reads the keys of a GGUF file, and checks that it can be a base model.

    Raises:
        ZephyrError: it is damaged, or of a kind that can't be read here.
    """
    import gguf

    try:
        fields = gguf.GGUFReader(path).fields
        values = {name: field.contents() for name, field in fields.items()}
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise ZephyrError(
            "this GGUF file can't be read",
            where=str(path),
            found=str(error),
            todo="fetch it again: it may be cut off",
        ) from error
    metadata = GgufMetadata(
        values,
        values.get("tokenizer.ggml.tokens", []),
        values.get("tokenizer.ggml.token_type", []),
        values.get("tokenizer.ggml.merges", []),
    )
    for problem, found, allowed in _faults(metadata):
        raise ZephyrError(
            problem,
            where=str(path),
            found=found,
            allowed=allowed,
            todo="take the model as a folder in Hugging Face format, or its id of the hub",
        )
    return metadata


def _faults(metadata: GgufMetadata) -> Iterator[tuple[str, str, str]]:
    """Why a GGUF file can't be a base model: each problem, with what was found and is allowed."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    values = metadata.values
    if (kind := values.get("general.type", "model")) != "model":
        yield "this GGUF file holds no whole model", kind, "model"
    if values.get("split.count", 1) > 1:
        yield "this GGUF file is a part of a model", f"{values['split.count']} parts", "one file"
    architectures = [a for a in GGUF_SUPPORTED_ARCHITECTURES if a not in _NO_CAUSAL_LM]
    if (architecture := values.get("general.architecture")) not in architectures:
        yield (
            "networks of this architecture can't be read from GGUF",
            str(architecture),
            ", ".join(sorted(architectures)),
        )
    if (model := metadata.tokenizer_value("model")) != "gpt2":
        yield "tokenizers of this kind can't be read from GGUF", str(model), "gpt2 (byte-level BPE)"
    if (pre_tokenizer := metadata.tokenizer_value("pre")) not in PRE_TOKENIZERS:
        yield (
            "how this tokenizer cuts text (tokenizer.ggml.pre) is not known here",
            str(pre_tokenizer),
            ", ".join(PRE_TOKENIZERS),
        )
    if not metadata.tokens or len(metadata.tokens) != len(metadata.token_types):
        yield "this GGUF file lacks its vocabulary", f"{len(metadata.tokens)} tokens", "all tokens"


def make_tokenizer(metadata: GgufMetadata) -> Any:
    """Makes the tokenizer of a GGUF file, for transformers: vocabulary, cuts, chat template.

    A start token stands before a text where the file says so, or where llama.cpp would write one.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    name = metadata.tokenizer_value("pre")
    pre_tokenizer = PRE_TOKENIZERS[name]
    pairs = [(left, right) for left, _, right in (m.partition(" ") for m in metadata.merges)]
    vocabulary = {token: token_id for token_id, token in enumerate(metadata.tokens)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre_tokenizer.ignore_merges)
    )
    backend.pre_tokenizer = pre_tokenizer.build()
    backend.decoder = decoders.ByteLevel()
    for kind in (_CONTROL, _USER_DEFINED):
        is_special = kind == _CONTROL
        added = [
            AddedToken(token, normalized=False, special=is_special)
            for token, found in zip(metadata.tokens, metadata.token_types, strict=True)
            if found == kind
        ]
        (backend.add_special_tokens if is_special else backend.add_tokens)(added)
    start = metadata.special_token("bos_token_id")
    adds_start = metadata.tokenizer_value("add_bos_token")
    if start is not None and (adds_start or (adds_start is None and name == "llama-bpe")):
        backend.post_processor = TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, vocabulary[start])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=start,
        eos_token=metadata.special_token("eos_token_id"),
        pad_token=metadata.special_token("padding_token_id"),
        unk_token=metadata.special_token("unknown_token_id"),
        chat_template=metadata.values.get("tokenizer.chat_template"),
    )
