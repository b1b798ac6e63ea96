"""The fused forward of adapted layers: PEFT's own is the oracle, for results and gradients."""

import pytest
import torch

from tests import tiny
from zephyr.model import adapter
from zephyr.model.batching import collate
from zephyr.model.model import Model
from zephyr.recipe.training import Lora


def model_with_two_adapters(family: str, dropout: float = 0.0) -> Model:
    """Two adapters of different ranks and scalings, the upper one trainable."""
    model = tiny.make_model(family)
    for number, lora in enumerate((Lora(rank=4, alpha=4), Lora(rank=2, dropout=dropout))):
        model.peft_model = adapter.add_trainable_adapter(
            model.causal, model.peft_model, lora, seed=number
        )
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def fused_layers(model: Model) -> list[torch.nn.Module]:
    return [m for m in model.causal.modules() if "forward" in vars(m)]


def logprobs_and_gradients(model: Model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.network.eval()  # BLOOM's own dropout
    model.network.zero_grad()
    batch = collate(tiny.random_examples(), model.layout)
    logprobs = model.network(batch)
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.network.named_parameters() if p.requires_grad}
    return logprobs.detach(), gradients


@pytest.mark.parametrize("family", ["qwen2", "llama", "bloom"])
def test_the_fused_forward_and_its_gradients_are_pefts(family: str) -> None:
    model = model_with_two_adapters(family)
    layers = fused_layers(model)
    assert len(layers) == {"qwen2": 14, "llama": 14, "bloom": 8}[family]
    ours, gradients = logprobs_and_gradients(model)
    for layer in layers:
        del layer.forward
    theirs, expected = logprobs_and_gradients(model)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


def test_what_it_does_not_compute_keeps_pefts_forward() -> None:
    assert not fused_layers(model_with_two_adapters("gpt2"))
    assert not fused_layers(model_with_two_adapters("qwen2", dropout=0.1))


def test_adapters_switched_off_are_the_base() -> None:
    model, base = model_with_two_adapters("qwen2"), tiny.make_model("qwen2")
    with model.peft_model.disable_adapter():
        off = model.logprobs(tiny.random_examples())
    assert all(
        (a == b).all()
        for x, y in zip(off, base.logprobs(tiny.random_examples()), strict=True)
        for a, b in zip(x, y, strict=True)
    )
