"""Ways of one forward that must give the same log-probabilities."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.model.batching import Layout, collate, pack_batches
from zephyr.model.example import Completion, Example, make_example
from zephyr.model.logprobs import scatter_sums, sum_by_completion
from zephyr.model.model import Model

TOLERANCE = 1e-4
"""Nats per token, in float32: the networks' answers differ by whole nats."""


def flat_logprobs(model: Model, examples: list[Example]) -> np.ndarray:
    return np.concatenate([part for parts in model.logprobs(examples) for part in parts])


def reference_logprobs(model: Model, examples: list[Example]) -> np.ndarray:
    """Log-probabilities by the library's own logits, one completion at a time."""
    parts = []
    for example in examples:
        for completion in example.completions:
            input_ids = torch.from_numpy(
                np.concatenate([example.prompt, completion.ids]).astype(np.int64)
            )[None]
            with torch.no_grad():
                logits = model.causal(input_ids).logits[0].log_softmax(-1)
            positions = len(example.prompt) + np.flatnonzero(completion.loss_mask)
            parts.append(logits[positions - 1, input_ids[0, positions]].numpy())
    return np.concatenate(parts)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("layout", ["rows", "tree"])
def test_equals_the_librarys_own_logits(family: str, layout: str) -> None:
    model = tiny.make_model(family)
    if layout == "tree" and family == "bloom":
        assert model.layout == "rows", "BLOOM has ALiBi and no sdpa: never a tree"
        return
    examples = tiny.random_examples()
    ours = flat_logprobs(replace(model, layout=layout), examples)
    assert np.ptp(ours) > 1, "the test would not see a difference"
    np.testing.assert_allclose(ours, reference_logprobs(model, examples), atol=TOLERANCE)


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_families_with_full_attention_get_the_tree(family: str) -> None:
    assert tiny.make_model(family).layout == "tree"


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_alone_in_a_batch_and_packed_are_the_same(family: str, budget: int) -> None:
    model = tiny.make_model(family)
    examples = tiny.random_examples(seed=3)
    together = flat_logprobs(replace(model, token_budget=budget), examples)
    alone = np.concatenate([flat_logprobs(model, [f]) for f in examples])
    np.testing.assert_allclose(together, alone, atol=TOLERANCE)


@pytest.mark.parametrize("layout", ["rows", "tree"])
def test_only_supervised_tokens_are_predicted(layout: str) -> None:
    model = replace(tiny.make_model("qwen2"), layout=layout)
    ids = np.arange(1, 9, dtype=np.int32)
    loss_mask = np.array([False, True, True, False, False, True, False, True])
    some = flat_logprobs(model, [Example(ids[:3], (Completion(ids, loss_mask),))])
    every = flat_logprobs(model, [make_example(ids[:3], ids)])
    np.testing.assert_allclose(some, every[loss_mask], atol=TOLERANCE)


@pytest.mark.parametrize("layout", ["rows", "tree"])
@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_packing_keeps_every_example_once_and_the_budget(layout: str, budget: int) -> None:
    examples = tiny.random_examples(count=60)
    batches = list(pack_batches(examples, budget, layout))
    assert sorted(i for indices in batches for i in indices) == list(range(60))
    for indices in batches:
        shape = collate([examples[i] for i in indices], layout).input_ids.shape
        assert shape.numel() <= budget or len(indices) == 1


def test_a_prompt_is_stored_once_in_the_tree() -> None:
    one = make_example(range(1, 21), [1, 2], [3, 4, 5], [6], [7, 8])
    assert collate([one], "tree").input_ids.shape == (1, 20 + 1 + 2 + 0 + 1)
    assert collate([one], "rows").input_ids.shape == (4, 22)


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_sums_spread_over_a_batch_are_summed_again_to_the_bit(layout: Layout) -> None:
    batch = collate(tiny.random_examples(), layout)
    sums = torch.randn(batch.num_completions, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sum_by_completion(scatter_sums(sums, batch), batch), sums)
