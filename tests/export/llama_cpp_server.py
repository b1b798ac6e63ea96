"""llama.cpp's server of a GGUF file, by xllamacpp; tests are skipped where it is not installed."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from zephyr.model.load import _context_length
from zephyr.model.logprobs import LogprobNetwork
from zephyr.model.model import Model
from zephyr.model.template import ChatTemplate

xllamacpp = pytest.importorskip(
    "xllamacpp", reason="llama.cpp is not installed: pip install 'zephyr-tutor[llama-cpp]'"
)


def make_model(causal: Any, tokenizer: Any) -> Model:
    """A model that is only exported: its batch layout is not probed."""
    template, context_length = ChatTemplate(tokenizer), _context_length(causal.config)
    return Model(LogprobNetwork(causal), tokenizer, template, context_length, "rows", 256)


def serve(path: Path, context_length: int) -> Any:
    """llama.cpp's server of a GGUF file, on one thread, all in float32."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context_length
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    parameters.verbosity = -1
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(parameters)


def tokenize(server: Any, text: str) -> list[int]:
    """A text as llama.cpp tokenizes it, without special tokens."""
    body = {"content": text, "add_special": False, "parse_special": False}
    request = urllib.request.Request(
        f"{server.listening_address}/tokenize",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        tokens: list[int] = json.loads(answer.read())["tokens"]
        return tokens
