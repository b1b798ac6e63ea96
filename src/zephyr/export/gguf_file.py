"""GGUF export, one file for llama.cpp: weights, tokenizer, stop tokens and chat template."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from zephyr.errors import ZephyrError
from zephyr.export.gguf_families import find_family
from zephyr.export.gguf_hyperparameters import write_shape
from zephyr.export.gguf_tensors import Weights, named_tensors, stays_float32
from zephyr.export.gguf_vocabulary import Vocabulary, read_vocabulary
from zephyr.model.gguf_pre_tokenizers import ASCII_CASE
from zephyr.model.model import Model

GgufType = Literal["f32", "f16", "q8_0", "q4_0"]
BLOCK_SIZE = 32
"""Quantization block size: rows that are no multiple of it stay in float16."""


def check_gguf_support(config: Any, tokenizer: Any) -> None:
    """Checks by config and tokenizer alone that a network can be written, before it is loaded.

    Raises:
        ZephyrError: llama.cpp does not support the architecture, a setting, or the tokenizer.
    """
    find_family(config)
    read_vocabulary(tokenizer, config.get_text_config().vocab_size)


def write_gguf(model: Model, path: Path, gguf_type: GgufType, name: str) -> list[str]:
    """Writes a merged model as GGUF; returns notes for its model card.

    Vectors and position embeddings stay in float32, as llama.cpp expects.

    Raises:
        ZephyrError: llama.cpp does not support the architecture or the tokenizer, or a weight
            exceeds float16.
    """
    import gguf

    config = model.causal.config.get_text_config()
    family = find_family(config)
    embedding_rows = model.causal.get_input_embeddings().num_embeddings
    vocab = read_vocabulary(model.tokenizer, embedding_rows)
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[gguf_type]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_shape(writer, config, model.context_length)
    for write_keys in family.writers:
        write_keys(writer, config)
    _add_tokenizer(writer, model, vocab)
    requested_type = gguf.GGMLQuantizationType[gguf_type.upper()]
    f16 = gguf.GGMLQuantizationType.F16
    f16_matrices = []
    for tensor, value in named_tensors(model.causal):
        if gguf_type == "f32" or stays_float32(tensor, value):
            writer.add_tensor(tensor, value)
            continue
        stored_type = requested_type if value.shape[-1] % BLOCK_SIZE == 0 else f16
        if stored_type is not requested_type:
            f16_matrices.append(tensor)
        data = (
            _to_float16(tensor, value)
            if stored_type is f16
            else gguf.quants.quantize(value, stored_type)
        )
        writer.add_tensor(tensor, data, raw_dtype=stored_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    notes = _tokenizer_notes(vocab.pre_tokenizer)
    if not f16_matrices:
        return notes
    names = ", ".join(f16_matrices[:4]) + (", …" if len(f16_matrices) > 4 else "")
    reason = f"a row is no multiple of {BLOCK_SIZE} wide"
    return [*notes, f"{len(f16_matrices)} of its matrices stay in f16, where {reason}: {names}."]


def _tokenizer_notes(pre_tokenizer: str) -> list[str]:
    if pre_tokenizer not in ASCII_CASE:
        return []
    note = (
        f"llama.cpp cuts words beyond ASCII that have capitals within, or combining marks, "
        f"otherwise than the tokenizer ({pre_tokenizer})."
    )
    return [note]


_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}


def _add_tokenizer(writer: Any, model: Model, vocab: Vocabulary) -> None:
    tokenizer, template = model.tokenizer, model.template
    if (pieces := vocab.sentencepiece) is not None:
        writer.add_tokenizer_model("llama")  # llama.cpp's name for SentencePiece's BPE
        writer.add_token_scores([pieces.score(token) for token in vocab.tokens])
    else:
        writer.add_tokenizer_model("gpt2")  # llama.cpp's name for byte-level BPE
        writer.add_token_merges(vocab.merges)
    writer.add_tokenizer_pre(vocab.pre_tokenizer)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.types)
    writer.add_eos_token_id(template.stop_token_id)
    for other in sorted(template.stop_token_ids - {template.stop_token_id}):
        writer.add_eot_token_id(other)  # at most one: the tokenizer's own EOS
    for role in ("bos", "unk", "pad"):
        token = getattr(tokenizer, f"{role}_token_id")
        if token is not None and token < len(vocab.tokens):
            getattr(writer, f"add_{role}_token_id")(token)
    first_ids = tokenizer("")["input_ids"][:1]
    writer.add_add_bos_token(bool(first_ids) and first_ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(pieces is not None and pieces.adds_blank)
    writer.add_chat_template(tokenizer.chat_template)


def _to_float16(tensor: str, value: Weights) -> Any:
    if (largest := float(np.abs(value).max())) > float(np.finfo(np.float16).max):
        raise ZephyrError(
            "a weight does not fit into float16", where=tensor, found=f"{largest:.4g}"
        )
    return value.astype(np.float16)
