"""The fused forward of adapted layers: PEFT's own is the oracle, for results and gradients."""

import pytest
import torch

from tests import tiny
from zephyr.model import adapter
from zephyr.model.layout import lay_out
from zephyr.model.model import Model
from zephyr.recipe.training import Lora


def stacked(family: str, dropout: float = 0.0) -> Model:
    """Two adapters of different ranks and scalings, the upper one trainable."""
    model = tiny.model(family)
    for number, lora in enumerate((Lora(rank=4, alpha=4), Lora(rank=2, dropout=dropout))):
        model.wrapper = adapter.add_fresh(model.causal, model.wrapper, lora, seed=number)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.wrapper.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def fused(model: Model) -> list[torch.nn.Module]:
    return [m for m in model.causal.modules() if "forward" in vars(m)]


def answer(model: Model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.network.eval()  # BLOOM's own dropout
    model.network.zero_grad()
    batch = lay_out(tiny.forks(), model.layout)
    logprobs = model.network(batch)
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    learned = {n: p.grad.clone() for n, p in model.network.named_parameters() if p.requires_grad}
    return logprobs.detach(), learned


@pytest.mark.parametrize("family", ["qwen2", "llama", "bloom"])
def test_the_fused_forward_and_its_gradients_are_pefts(family: str) -> None:
    model = stacked(family)
    layers = fused(model)
    assert len(layers) == {"qwen2": 14, "llama": 14, "bloom": 8}[family]
    ours, learned = answer(model)
    for layer in layers:
        del layer.forward
    theirs, expected = answer(model)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
    assert learned.keys() == expected.keys()
    for name, gradient in learned.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


def test_what_it_does_not_compute_keeps_pefts_forward() -> None:
    assert not fused(stacked("gpt2"))
    assert not fused(stacked("qwen2", dropout=0.1))


def test_adapters_switched_off_are_the_base() -> None:
    model, base = stacked("qwen2"), tiny.model("qwen2")
    with model.wrapper.disable_adapter():
        off = model.logprobs(tiny.forks())
    assert all(
        (a == b).all()
        for x, y in zip(off, base.logprobs(tiny.forks()), strict=True)
        for a, b in zip(x, y, strict=True)
    )
