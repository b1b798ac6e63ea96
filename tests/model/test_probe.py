"""The probe of a loaded network, and scores and answers beyond what its config calls special."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tests.model.attention_networks import (
    LONGROPE,
    MIXED_LAYERS,
    PLAIN_WINDOWS,
    SHORT_CONTEXT,
    WINDOW,
    make_causal,
)
from zephyr.errors import ZephyrError
from zephyr.model import probe
from zephyr.model.example import Example, make_example
from zephyr.model.load import build_model
from zephyr.model.model import Model

NETWORKS = [*PLAIN_WINDOWS, *MIXED_LAYERS]
RNG = np.random.default_rng(7)


def random_tokens(count: int) -> np.ndarray:
    return RNG.integers(1, tiny.VOCAB_SIZE, count)


def make_model(name: str, **settings: object) -> Model:
    return build_model(make_causal(name, **settings), tiny.tokenizer(), token_budget=256)


def largest_difference(model: Model, examples: list[Example]) -> float:
    """The largest difference from the library's own logits of each text alone, in nats."""
    differences = []
    for example, found in zip(examples, model.logprobs(examples), strict=True):
        for completion, values in zip(example.completions, found, strict=True):
            own = probe._reference_logprobs(model, example.prompt, completion.ids)
            differences.append(np.abs(values - own).max())
    return float(max(differences))


def long_and_short_examples() -> list[Example]:
    """Prompts with and without a shared prefix, most of them longer than the window."""
    shared = random_tokens(70)
    return [
        *(make_example(np.r_[shared, random_tokens(n)], random_tokens(3)) for n in (2, 5, 9)),
        make_example(random_tokens(30), random_tokens(20), random_tokens(2)),
        make_example(random_tokens(2), random_tokens(4)),
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_beyond_a_window_are_those_of_the_library(name: str) -> None:
    model = make_model(name)
    assert (model.layout, model.shares_prefixes) == ("rows", False)
    examples = long_and_short_examples()
    assert largest_difference(model, examples) < 1e-3
    if model.causal.config._attn_implementation == "sdpa":  # gpt-oss has none
        tree = replace(model, layout="tree", shares_prefixes=True)
        assert largest_difference(tree, examples) > 0.1, "the test would not see a difference"


@pytest.mark.parametrize("name", PLAIN_WINDOWS)
def test_a_window_as_long_as_the_context_or_none_keeps_the_tree(name: str) -> None:
    for window in (None, tiny.CONTEXT_LENGTH):
        model = make_model(name, sliding_window=window)
        assert (model.layout, model.shares_prefixes) == ("tree", True)
        assert largest_difference(model, long_and_short_examples()) < 1e-3


def test_a_window_that_the_config_does_not_tell_of_is_found_by_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "has_full_attention", lambda config, context_length: True)
    assert make_model("MistralConfig").layout == "rows"
    assert make_model("MistralConfig", sliding_window=100).layout == "rows"
    assert make_model("MistralConfig", sliding_window=None).layout == "tree"


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_beyond_a_window_are_those_of_the_library(name: str) -> None:
    """In a batch with a shorter prompt, token by token from the KV cache."""
    model = make_model(name)
    prompts = [random_tokens(n).astype(np.int32) for n in (5, 3 * WINDOW)]
    for prompt, answer in zip(
        prompts, model.generate(prompts, max_new_tokens=2 * WINDOW), strict=True
    ):
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        for token in answer.ids.tolist():
            with torch.no_grad():
                assert int(model.causal(ids).logits[0, -1].argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        assert len(answer.ids) > 0 or answer.finish_reason == "end token"


# -- longrope -------------------------------------------------------------------------------------


def longrope_model() -> Model:
    return make_model(
        "Phi3Config",
        sliding_window=None,
        rope_parameters=dict(LONGROPE),
        original_max_position_embeddings=SHORT_CONTEXT,
    )


def test_longrope_is_used_where_one_set_of_frequencies_holds() -> None:
    """A text beyond would change those of all rows: in the library itself, too."""
    model = longrope_model()
    assert model.context_length == SHORT_CONTEXT
    assert model.layout == "tree"
    examples = [
        make_example(random_tokens(3), random_tokens(4)),
        make_example(random_tokens(6), random_tokens(SHORT_CONTEXT - 6), random_tokens(2)),
    ]
    assert largest_difference(model, examples) < 1e-3
    longer = make_example(random_tokens(9), random_tokens(SHORT_CONTEXT))
    with pytest.raises(ZephyrError, match=r"16 tokens.*longrope"):
        model.logprobs([*examples, longer])
    with pytest.raises(ZephyrError, match=r"16 tokens.*longrope"):
        model.generate([random_tokens(SHORT_CONTEXT)], max_new_tokens=1)
    [answer] = model.generate([random_tokens(4).astype(np.int32)], max_new_tokens=100)
    assert len(answer.ids) <= SHORT_CONTEXT - 4
    unbounded = replace(model, context_length=64, layout="rows")
    assert largest_difference(unbounded, [*examples, longer]) > 0.01, "what is refused differs"


def test_frequencies_that_change_beyond_the_context_bound_nothing() -> None:
    """`dynamic` changes them beyond `max_position_embeddings` alone."""
    model = make_model(
        "LlamaConfig",
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
    )
    assert model.context_length == tiny.CONTEXT_LENGTH
    assert largest_difference(model, long_and_short_examples()) < 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_greedy_decoding_passes(name: str) -> None:
    probe.check_generation(make_model(name))


def test_a_network_that_cannot_be_decoded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("Qwen2Config")

    def fail(self: object, rows: object) -> None:
        raise IndexError("no state of a convolution")

    with monkeypatch.context() as patch:
        patch.setattr(probe.DecodeBatch, "add", fail)
        with pytest.raises(ZephyrError) as caught:
            probe.check_generation(model)
    assert str(caught.value).splitlines()[:2] == [
        "this network can't generate text here",
        "  found:   Qwen2ForCausalLM: IndexError: no state of a convolution",
    ]


def test_other_tokens_than_the_likeliest_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is given another token than the one that was chosen."""
    original = probe.DecodeBatch._forward

    def forward(self: Any, rows: Any, tokens: Any, positions: Any, *rest: Any) -> Any:
        return original(self, rows, (tokens + 5) % tiny.VOCAB_SIZE, positions, *rest)

    monkeypatch.setattr(probe.DecodeBatch, "_forward", forward)
    with pytest.raises(ZephyrError, match="does not generate its likeliest tokens"):
        probe.check_generation(make_model("Qwen2Config"))
