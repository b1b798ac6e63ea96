"""A model in one file for llama.cpp: weights, tokenizer, stop tokens and chat template."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from zephyr.errors import ZephyrError
from zephyr.export.gguf_tensors import Weights, family_of, tensors
from zephyr.export.gguf_vocabulary import Vocabulary, vocabulary
from zephyr.model.model import Model

Type = Literal["f16", "q8_0", "q4_0"]
BLOCK = 32
"""Numbers of a row that share a scale: a row that is no multiple of it stays in float16."""


def write_gguf(model: Model, path: Path, kind: Type, name: str) -> list[str]:
    """Writes a model whose adapters are merged; gives what must be said of it.

    Vectors and the table of positions stay in float32, for llama.cpp adds them as they are.

    Raises:
        ZephyrError: the package gguf is not there, llama.cpp does not know the network or its
            tokenizer, or a weight does not fit into float16.
    """
    gguf = _package()
    config = model.causal.config
    family = family_of(config)
    rows = model.causal.get_input_embeddings().num_embeddings
    words = vocabulary(model.tokenizer, rows)
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[_FILES[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    family.figures(writer, config)
    _add_tokenizer(writer, model, words)
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    half = gguf.GGMLQuantizationType.F16
    kept = []
    for tensor, value in tensors(model.causal):
        if value.ndim < 2 or tensor.startswith("position_embd"):
            writer.add_tensor(tensor, value)
            continue
        chosen = wanted if value.shape[-1] % BLOCK == 0 else half
        if chosen is not wanted:
            kept.append(tensor)
        data = _in_half(tensor, value) if chosen is half else gguf.quants.quantize(value, chosen)
        writer.add_tensor(tensor, data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not kept:
        return []
    names = ", ".join(kept[:4]) + (", …" if len(kept) > 4 else "")
    why = f"a row is no multiple of {BLOCK} wide"
    return [f"{len(kept)} of its matrices stay in f16, where {why}: {names}."]


_FILES = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ZephyrError(
            "the package gguf is not installed", todo="pip install 'zephyr-tutor[gguf]'"
        ) from error
    return gguf


def _add_tokenizer(writer: Any, model: Model, words: Vocabulary) -> None:
    tokenizer, template = model.tokenizer, model.template
    writer.add_tokenizer_model("gpt2")  # llama.cpp's name for byte-level BPE
    writer.add_tokenizer_pre(words.cut)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    writer.add_eos_token_id(template.stop)
    for other in sorted(template.stops - {template.stop}):
        writer.add_eot_token_id(other)  # at most one: the tokenizer's own end
    for role in ("bos", "unk", "pad"):
        token = getattr(tokenizer, f"{role}_token_id")
        if token is not None and token < len(words.tokens):
            getattr(writer, f"add_{role}_token_id")(token)
    starts = tokenizer("")["input_ids"][:1]
    writer.add_add_bos_token(bool(starts) and starts[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(tokenizer.chat_template)


def _in_half(tensor: str, value: Weights) -> Any:
    if (most := float(np.abs(value).max())) > float(np.finfo(np.float16).max):
        raise ZephyrError("a weight does not fit into float16", where=tensor, found=f"{most:.4g}")
    return value.astype(np.float16)
