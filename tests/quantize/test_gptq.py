"""GPTQ: one weight by hand, an exhaustive oracle, and what it is for."""

import itertools
from typing import Any

import pytest
import torch

from tests import tiny
from tests.model.attention_networks import MIXED_LAYERS, make_causal
from zephyr.errors import ZephyrError
from zephyr.model.linear_layers import is_linear
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


def blocks_layers(causal: Any) -> dict[str, torch.nn.Module]:
    """All linear layers of a network but its LM head, by name."""
    head = causal.get_output_embeddings()
    return {n: m for n, m in causal.named_modules() if is_linear(m) and m is not head}


@pytest.mark.parametrize("name", MIXED_LAYERS)
def test_each_block_is_calibrated_with_its_own_mask_and_rotary_table(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rounding changes nothing, the Hessians are those of the network's own forward.

    The texts are longer than the sliding window, so that another mask gives other inputs.
    """
    causal = make_causal(name)
    rows = torch.randint(1, tiny.VOCAB_SIZE, (3, 40), generator=torch.Generator().manual_seed(0))
    layers = blocks_layers(causal)
    expected = {module: torch.zeros(()) for module in layers.values()}

    def sum_inputs(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        flat = args[0].flatten(0, -2)
        expected[module] = expected[module] + flat.T @ flat

    hooks = [m.register_forward_pre_hook(sum_inputs) for m in layers.values()]
    with torch.no_grad():
        logits = causal(rows).logits
    for hook in hooks:
        hook.remove()

    class Unchanged:
        def __init__(self, weight: torch.Tensor) -> None:
            self.weight = weight.clone()

        def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
            return self.weight

    found: list[torch.Tensor] = []

    def keep_hessian(weight: torch.Tensor, hessian: torch.Tensor, group_size: int) -> Any:
        found.append(hessian)
        return Unchanged(weight)

    monkeypatch.setattr(gptq, "round_with_hessian", keep_hessian)
    monkeypatch.setattr(gptq, "TOKENS_PER_FORWARD", 80)
    done = gptq.quantize_layers(causal, rows, layers, 32)
    assert len(done) == len(layers) == len(found)
    for key, hessian in zip(done, found, strict=True):
        own = expected[layers[key]]
        torch.testing.assert_close(hessian, own, rtol=1e-4, atol=1e-5 * float(own.abs().max()))
    with torch.no_grad():
        assert torch.equal(causal(rows).logits, logits)


def test_a_network_that_does_more_between_its_blocks_is_refused() -> None:
    causal = tiny.make_model("llama").causal
    before = {n: p.clone() for n, p in causal.named_parameters()}
    rows = torch.arange(40).view(2, 20)
    hook = causal.model.layers[1].register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    with pytest.raises(ZephyrError, match=r"block by block(.|\n)*block 1 reads other"):
        gptq.quantize_layers(causal, rows, blocks_layers(causal), 32)
    hook.remove()
    calls = iter(range(100))  # each call gives another output
    causal.model.layers[1].register_forward_hook(lambda m, args, out: out + next(calls))
    with pytest.raises(ZephyrError, match=r"block by block(.|\n)*differ from the network"):
        gptq.quantize_layers(causal, rows, blocks_layers(causal), 32)
    assert all(torch.equal(p, before[n]) for n, p in causal.named_parameters())


def test_an_expert_that_no_token_reaches_is_rounded_to_the_nearest() -> None:
    """Blocks are no experts, though there may be more of these."""
    causal = tiny.make_model("llama").causal
    for block in causal.model.layers:
        block.mlp.experts = torch.nn.ModuleList([torch.nn.Linear(32, 5) for _ in range(7)])
    layers = blocks_layers(causal)
    unused = "model.layers.1.mlp.experts.6"
    expected = PackedWeight.quantize(gptq.get_weight_matrix(layers[unused]).clone(), 4, 32)
    found = gptq.quantize_layers(causal, torch.arange(40).view(2, 20), layers, 32)
    assert found.keys() == layers.keys()
    assert torch.equal(found[unused].codes, expected.codes)
