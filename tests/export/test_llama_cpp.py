"""GGUF files in llama.cpp itself (by xllamacpp): the same tokens and log-probabilities.

Weights, KV cache and computation are in float32 in both. Sums in another order differ by 1e-5 at
most (2e-5 was the largest of all families); families with GELU differ by up to 2e-3, as llama.cpp
looks it up in a table of float16 (11 bits: 5e-4 of each value), through several layers. Random
networks spread log-probabilities over 3 to 5 nats: an error in one weight shows at 0.1 and more.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.export.llama_cpp_server import make_model, serve
from tests.families.networks import FAMILIES, make_causal
from zephyr.export.gguf_file import write_gguf

PROMPT_TOKENS, NEW_TOKENS, TOP = 60, 8, 20
EXACT, WITH_GELU = 1e-4, 5e-3
_GELU_FAMILIES = ("gemma", "gpt2", "bloom", "gpt_neox", "starcoder2")


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same(family: str, tmp_path: Path) -> None:
    causal = make_causal(family)
    model = make_model(causal, tiny.tokenizer())
    write_gguf(model, tmp_path / "m.gguf", "f32", "tiny")
    server = serve(tmp_path / "m.gguf", model.context_length)
    prompt = np.random.default_rng(0).integers(1, 300, PROMPT_TOKENS).tolist()
    # the server reports no token that is a part of a character
    partial = [
        i for i in range(tiny.VOCAB_SIZE) if not i or "\ufffd" in tiny.tokenizer().decode([i])
    ]
    answer = server.handle_completions(
        {
            "prompt": prompt,
            "n_predict": NEW_TOKENS,
            "temperature": 0,
            "logprobs": TOP,
            "cache_prompt": False,
            "logit_bias": [[i, False] for i in partial],
        }
    )
    rows = answer["choices"][0]["logprobs"]["content"]
    found = [row["id"] for row in rows]
    assert len(found) == NEW_TOKENS
    with torch.no_grad():
        logits = causal(torch.tensor([prompt + found])).logits[0, PROMPT_TOKENS - 1 : -1]
    expected = torch.log_softmax(logits.double(), -1)
    tolerance = WITH_GELU if family.startswith(_GELU_FAMILIES) else EXACT
    for row, values in zip(rows, expected, strict=True):
        for token in row["top_logprobs"]:
            assert abs(token["logprob"] - float(values[token["id"]])) < tolerance
    expected[:, partial] = -torch.inf
    assert found == expected.argmax(-1).tolist()
