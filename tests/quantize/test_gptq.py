"""GPTQ: one weight by hand, an exhaustive oracle, and what it is for."""

import itertools

import pytest
import torch

from tests import tiny
from zephyr.model.adapter import is_linear
from zephyr.model.packed_weights import Grid, PackedWeight
from zephyr.quantize import gptq


def hessian_loss(weight: torch.Tensor, rounded: torch.Tensor, hessian: torch.Tensor) -> float:
    """The squared change of what a layer computes on the inputs that the Hessian sums up."""
    difference = (weight - rounded).double()
    return float(torch.einsum("ri,ij,rj->", difference, hessian.double(), difference))


def correlated_inputs(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Inputs that go together, as those of a network do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator) @ mixing


def test_what_rounding_changes_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two inputs that are always equal: only the sum of their weights counts.

    On a grid of whole numbers 0.4 + 0.4 is rounded to 0 + 0, off by 0.8; after the first became 0,
    the second makes up for it, so that it becomes 0.8, and 1: off by 0.2. Weights of 0 and 15 keep
    the grid as it is.
    """
    monkeypatch.setattr(gptq, "DAMPING", 1e-9)
    weight = torch.tensor([[0.4, 0.4, 15.0, 0.0]])
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, 0.1]])
    found = gptq.round_with_hessian(weight, x.T @ x, 4).dequantize(torch.float32)
    assert PackedWeight.quantize(weight, 4, 4).dequantize(torch.float32)[0, :2].tolist() == [
        0.0,
        0.0,
    ]
    assert sorted(found[0, :2].tolist()) == [0.0, 1.0]


def test_it_is_near_the_best_there_is() -> None:
    """Of all choices of codes for four weights: most of what the best one saves is saved."""
    losses = []
    for seed in range(30):
        x = correlated_inputs(50, 4, seed)
        hessian = x.T @ x
        weight = torch.randn(1, 4, generator=torch.Generator().manual_seed(seed))
        grid = Grid.from_weight(weight, 4, 4)
        codes = torch.tensor(list(itertools.product(range(16), repeat=4)), dtype=torch.uint8)
        wide = Grid(4, grid.scale.expand(len(codes), 1), grid.zero.expand(len(codes), 1))
        differences = (weight - wide.dequantize(codes)).double()
        best = float(((differences @ hessian.double()) * differences).sum(dim=1).min())
        plain = hessian_loss(weight, grid.dequantize(grid.quantize(weight)), hessian)
        found = hessian_loss(
            weight, gptq.round_with_hessian(weight, hessian, 4).dequantize(torch.float32), hessian
        )
        assert best <= found * (1 + 1e-6)
        losses.append((best, found, plain))
    best, found, plain = map(sum, zip(*losses, strict=True))
    assert found <= best + 0.4 * (plain - best), (best, found, plain)


@pytest.mark.parametrize("group", [32, 128])
def test_it_changes_outputs_less_than_rounding_to_the_nearest(group: int) -> None:
    x = correlated_inputs(1000, 256, 7)
    hessian = x.T @ x
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(7))
    plain = hessian_loss(
        weight, PackedWeight.quantize(weight, 4, group).dequantize(torch.float32), hessian
    )
    found = hessian_loss(
        weight, gptq.round_with_hessian(weight, hessian, group).dequantize(torch.float32), hessian
    )
    assert found < 0.5 * plain


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    x = correlated_inputs(200, 32, 3)
    x[:, 5] = 0
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(3))
    found = gptq.round_with_hessian(weight, x.T @ x, 32).dequantize(torch.float32)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", ["qwen2", "llama", "bloom", "gpt2"])
def test_networks_of_each_kind(name: str) -> None:
    """Every linear layer is packed, the network computes with it, and its outputs move less."""
    rows = torch.randint(0, tiny.VOCAB_SIZE, (24, 48), generator=torch.Generator().manual_seed(0))
    output_changes = []
    for calibrated in (True, False):
        torch.manual_seed(5)
        model = tiny.make_model(name)
        causal = model.causal
        before = causal(rows).logits.detach()
        head = causal.get_output_embeddings()
        layers = {n: m for n, m in causal.named_modules() if is_linear(m) and m is not head}
        if calibrated:
            found = gptq.quantize_layers(causal, rows, layers, 32)
            assert found.keys() == layers.keys()
            for key, module in layers.items():
                assert torch.equal(
                    gptq.get_weight_matrix(module), found[key].dequantize(torch.float32)
                )
        else:
            for module in layers.values():
                plain = PackedWeight.quantize(gptq.get_weight_matrix(module), 4, 32)
                gptq.set_weight_matrix(module, plain.dequantize(torch.float32))
        output_changes.append(float((causal(rows).logits - before).square().mean()))
    assert output_changes[0] < output_changes[1]
