"""Ways of one forward that must give the same log-probabilities."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.model.fork import Continuation, Fork, fork
from zephyr.model.layout import Layout, lay_out, pack
from zephyr.model.logprobs import spread, sum_by_continuation
from zephyr.model.model import Model

CLOSE = 1e-4
"""Nats per token, in float32: the networks' answers differ by whole nats."""


def flat(model: Model, forks: list[Fork]) -> np.ndarray:
    return np.concatenate([part for parts in model.logprobs(forks) for part in parts])


def plainly(model: Model, forks: list[Fork]) -> np.ndarray:
    """Log-probabilities by the library's own logits, one continuation at a time."""
    parts = []
    for f in forks:
        for c in f.continuations:
            whole = torch.from_numpy(np.concatenate([f.prompt, c.ids]).astype(np.int64))[None]
            with torch.no_grad():
                logits = model.causal(whole).logits[0].log_softmax(-1)
            at = len(f.prompt) + np.flatnonzero(c.supervised)
            parts.append(logits[at - 1, whole[0, at]].numpy())
    return np.concatenate(parts)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("layout", ["rows", "tree"])
def test_equals_the_librarys_own_logits(family: str, layout: str) -> None:
    model = tiny.model(family)
    if layout == "tree" and family == "bloom":
        assert model.layout == "rows", "BLOOM has ALiBi and no sdpa: never a tree"
        return
    forks = tiny.forks()
    ours = flat(replace(model, layout=layout), forks)
    assert np.ptp(ours) > 1, "the test would not see a difference"
    np.testing.assert_allclose(ours, plainly(model, forks), atol=CLOSE)


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_families_with_full_attention_get_the_tree(family: str) -> None:
    assert tiny.model(family).layout == "tree"


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_alone_in_a_batch_and_packed_are_the_same(family: str, budget: int) -> None:
    model = tiny.model(family)
    forks = tiny.forks(seed=3)
    together = flat(replace(model, token_budget=budget), forks)
    alone = np.concatenate([flat(model, [f]) for f in forks])
    np.testing.assert_allclose(together, alone, atol=CLOSE)


@pytest.mark.parametrize("layout", ["rows", "tree"])
def test_only_supervised_tokens_are_predicted(layout: str) -> None:
    model = replace(tiny.model("qwen2"), layout=layout)
    ids = np.arange(1, 9, dtype=np.int32)
    marks = np.array([False, True, True, False, False, True, False, True])
    some = flat(model, [Fork(ids[:3], (Continuation(ids, marks),))])
    every = flat(model, [fork(ids[:3], ids)])
    np.testing.assert_allclose(some, every[marks], atol=CLOSE)


@pytest.mark.parametrize("layout", ["rows", "tree"])
@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_packing_keeps_every_fork_once_and_the_budget(layout: str, budget: int) -> None:
    forks = tiny.forks(count=60)
    batches = list(pack(forks, budget, layout))
    assert sorted(i for members in batches for i in members) == list(range(60))
    for members in batches:
        shape = lay_out([forks[i] for i in members], layout).input_ids.shape
        assert shape.numel() <= budget or len(members) == 1


def test_a_prompt_is_stored_once_in_the_tree() -> None:
    one = fork(range(1, 21), [1, 2], [3, 4, 5], [6], [7, 8])
    assert lay_out([one], "tree").input_ids.shape == (1, 20 + 1 + 2 + 0 + 1)
    assert lay_out([one], "rows").input_ids.shape == (4, 22)


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_sums_spread_over_a_batch_are_summed_again_to_the_bit(layout: Layout) -> None:
    batch = lay_out(tiny.forks(), layout)
    sums = torch.randn(batch.continuations, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sum_by_continuation(spread(sums, batch), batch), sums)
