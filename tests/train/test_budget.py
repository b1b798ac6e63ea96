"""The token budget: what a training keeps is counted, and memory decides."""

import gc
import weakref

import pytest
import torch

from tests import tiny
from zephyr.model.batching import collate
from zephyr.train import budget
from zephyr.train.budget import TokenBudget, choose_token_budget

EXAMPLES = tiny.random_examples(count=30)


def make_trainable_model(family: str) -> tiny.Model:
    model = tiny.make_model(family)
    model.causal.requires_grad_(True)
    return model


def set_free_memory(monkeypatch: pytest.MonkeyPatch, num_bytes: float) -> None:
    monkeypatch.setattr(budget, "free_device_memory", lambda device: int(num_bytes))


def test_memory_decides_between_the_longest_example_and_what_is_useful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_trainable_model("qwen2")
    set_free_memory(monkeypatch, 1e9)
    found = choose_token_budget(model, EXAMPLES, 1, None)
    assert found == TokenBudget(4096, found.bytes_per_token, checkpointing=False)
    set_free_memory(monkeypatch, 400 * found.bytes_per_token)
    assert choose_token_budget(model, EXAMPLES, 1, None).tokens == 200
    assert choose_token_budget(model, EXAMPLES, 2, None).tokens == 100
    assert choose_token_budget(model, EXAMPLES, 2, 77).tokens == 77


def test_what_was_counted_is_freed() -> None:
    """The graph of the small batch, and the weights with it, once nobody else holds them."""
    model = make_trainable_model("llama")
    choose_token_budget(model, EXAMPLES, 1, None)
    weights = [weakref.ref(p) for p in model.causal.parameters()]
    del model
    gc.collect()
    assert [w() for w in weights] == [None] * len(weights)


def test_a_linear_layers_kept_bytes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubling the layers doubles what they keep; half the bytes in bfloat16."""
    set_free_memory(monkeypatch, 1e9)

    def bytes_per_token(layers: int, dtype: torch.dtype) -> int:
        model = make_trainable_model("llama")
        network = model.causal.model
        network.layers = torch.nn.ModuleList([network.layers[0]] * layers)
        network.config.num_hidden_layers = layers
        model.causal.to(dtype)
        return choose_token_budget(model, EXAMPLES, 1, None).bytes_per_token

    one, two, four = (bytes_per_token(n, torch.float32) for n in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=0.02)
    assert bytes_per_token(4, torch.bfloat16) - bytes_per_token(2, torch.bfloat16) < 0.75 * (
        four - two
    )


def test_layers_are_computed_twice_where_the_longest_example_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the same gradients as before."""
    model = make_trainable_model("qwen2")
    batch = collate(EXAMPLES[:4], model.layout)

    def compute_gradients() -> list[torch.Tensor]:
        model.network.train()
        model.network.zero_grad()
        model.network(batch).sum().backward()
        return [p.grad.clone() for p in model.network.parameters()]

    plain = compute_gradients()
    set_free_memory(monkeypatch, 1e9)
    before = choose_token_budget(model, EXAMPLES, 1, None)
    set_free_memory(monkeypatch, 1000)
    found = choose_token_budget(model, EXAMPLES, 1, None)
    assert found.checkpointing
    assert found.bytes_per_token < 0.5 * before.bytes_per_token
    assert found.tokens == max(f.tree_length for f in EXAMPLES)
    for a, b in zip(compute_gradients(), plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
