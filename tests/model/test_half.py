"""Weights that stay in 16 bits give what the same weights give in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests import tiny
from tests.model.test_mixed import stack
from zephyr.distributed.process_group import Group
from zephyr.errors import ZephyrError
from zephyr.model import adapter, half
from zephyr.model.layout import lay_out
from zephyr.model.load import Lineage, _flat, load, load_network
from zephyr.model.logprobs import chunked_logprobs, half_logprobs
from zephyr.model.mixed import Mixed
from zephyr.model.model import Model
from zephyr.recipe.machine import RunSettings
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Lora
from zephyr.runs.context import Context
from zephyr.train import stages

pytestmark = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="torch has this product on x86-64 alone; elsewhere weights are held in float32",
)
HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@pytest.fixture
def all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the layers of tiny networks are held so, and the largest in several pieces."""
    monkeypatch.setattr(half, "SMALLEST", 1)
    monkeypatch.setattr(half, "PIECE", 32 * 100)


def saved(family: str, dtype: torch.dtype, folder: Path) -> Path:
    model = tiny.model(family)
    model.network.to(dtype)
    model.save(folder)
    return folder


def opened(folder: Path, form: Any, adapters: tuple[str, ...] = ()) -> Model:
    lineage = Lineage(str(folder), None, adapters)
    return load(lineage, folder.parent, token_budget=256, form=form)


def layers(model: Model) -> list[half.HalfLinear]:
    return [module for module in model.network.modules() if isinstance(module, half.HalfLinear)]


def assert_alike(one: Model, other: Model) -> None:
    forks = tiny.forks()
    for mine, theirs in zip(one.logprobs(forks), other.logprobs(forks), strict=True):
        for left, right in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-4)
    prompts = [fork.prompt for fork in forks]
    written = [m.generate(prompts, max_new_tokens=12) for m in (one, other)]
    assert [a.ids.tolist() for a in written[0]] == [a.ids.tolist() for a in written[1]]


@HALVES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 16), (3, 16), (2, 5, 16), (0, 16), (70, 16)])
def test_a_layer_gives_the_products_of_its_weights(
    dtype: torch.dtype, bias: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "PIECE", 16 * 4)  # four rows: a last piece of two
    torch.manual_seed(0)
    layer = nn.Linear(16, 10, bias=bias).to(dtype)
    x = torch.randn(*shape)
    with torch.no_grad():
        found = half.HalfLinear(layer)(x)
        torch.testing.assert_close(found, layer.float()(x))


def test_the_least_weights_lose_2_to_the_minus_25_at_the_most() -> None:
    weight = (torch.logspace(-40, 4, 400, base=2.0)[:, None]).bfloat16()
    layer = nn.Linear(1, 400, bias=False)
    layer.weight = nn.Parameter(weight)
    found = half.HalfLinear(layer)(torch.ones(1, 1))[0]
    lost = (found - weight[:, 0].float()).abs()
    assert 0 < float(lost.max()) <= 2**-25
    normal = weight[:, 0].float() >= 2**-14
    assert torch.equal(found[normal], weight[normal, 0].float())


@HALVES
@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2", "bloom"])
@pytest.mark.usefixtures("all_layers")
def test_a_network_answers_as_it_does_in_float32(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = saved(family, dtype, tmp_path / "model")
    small, whole = opened(folder, "answers"), opened(folder, "computed")
    assert layers(small)
    assert not layers(whole)
    assert isinstance(small.causal.get_input_embeddings(), half.HalfEmbedding)
    assert {p.dtype for p in small.network.parameters()} == {torch.float32}
    assert (small.layout, small.shares) == (whole.layout, whole.shares)
    assert_alike(small, whole)


@pytest.mark.usefixtures("all_layers")
def test_adapters_stand_on_it(tmp_path: Path) -> None:
    folder, lora = saved("qwen2", torch.bfloat16, tmp_path / "model"), Lora(rank=2)
    stacked = stack("qwen2", tmp_path / "b", stack("qwen2", tmp_path / "a", [], lora, 1), lora, 2)
    names = tuple(path.name for path in stacked)
    small, whole = (opened(folder, form, names) for form in ("answers", "computed"))
    assert layers(small)
    assert_alike(small, whole)
    causal = load_network(folder, None, form="answers")
    half.halve(causal)
    mixed = Mixed(causal, [[], stacked])
    mixed.choose([1])
    small.network.causal, small.wrapper = causal, None
    assert_alike(small, whole)


@pytest.mark.usefixtures("all_layers")
def test_dora_keeps_whole_weights_whose_norms_it_asks_for(tmp_path: Path) -> None:
    folder = saved("llama", torch.bfloat16, tmp_path / "model")
    (made,) = stack("llama", tmp_path / "a", [], Lora(rank=2, dora=True), 1)
    small, whole = (opened(folder, form, (made.name,)) for form in ("answers", "computed"))
    assert not layers(small)
    assert_alike(small, whole)


@pytest.mark.usefixtures("all_layers")
def test_what_is_stored_in_more_than_one_dtype_is_not_rounded(tmp_path: Path) -> None:
    folder = saved("qwen2", torch.bfloat16, tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    norm = next(name for name in tensors if "norm" in name)
    tensors[norm] = torch.full_like(tensors[norm], 1 + 2**-12, dtype=torch.float32)
    save_file(tensors, path, metadata={"format": "pt"})
    model = opened(folder, "answers")
    assert not layers(model)
    assert float(model.causal.get_parameter(norm)[0]) == 1 + 2**-12


@pytest.mark.usefixtures("all_layers")
def test_a_layer_beyond_the_range_of_float16_stays_as_it_is(tmp_path: Path) -> None:
    folder = saved("llama", torch.bfloat16, tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name][0, 0] = 1e5
    save_file(tensors, path, metadata={"format": "pt"})
    model = opened(folder, "answers")
    assert layers(model)
    assert model.causal.get_parameter(name)[0, 0] == torch.tensor(1e5).bfloat16().float()


@pytest.mark.usefixtures("all_layers")
def test_a_network_whose_buffers_would_be_rounded_is_read_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("qwen2", torch.bfloat16, tmp_path / "model")
    monkeypatch.setattr(half, "is_rounded", lambda causal: True)
    causal = load_network(folder, None, form="answers")
    assert {p.dtype for p in causal.parameters()} == {torch.float32}


def test_small_layers_are_quicker_in_float32(tmp_path: Path) -> None:
    model = opened(saved("qwen2", torch.bfloat16, tmp_path / "model"), "answers")
    assert not layers(model)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


@pytest.mark.usefixtures("all_layers")
def test_its_bytes_are_those_of_16_bits(tmp_path: Path) -> None:
    folder = saved("llama", torch.bfloat16, tmp_path / "model")
    small, whole = opened(folder, "stored"), opened(folder, "computed")
    norms = sum(p.nbytes for p in small.network.parameters())
    assert half.bytes_of(small.network) == (half.bytes_of(whole.network) - norms) // 2 + norms


def test_rows_are_scored_as_with_the_whole_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zephyr.model.logprobs.CHUNK_ELEMENTS", {"cpu": 50 * 3})  # three rows
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False).bfloat16()
    hidden, targets = torch.randn(7, 8), torch.randint(0, 50, (7,))
    with torch.no_grad():
        found = half_logprobs(hidden, half.HalfLinear(head), targets)
        wanted = chunked_logprobs(hidden, head.weight.float(), None, targets)
    torch.testing.assert_close(found, wanted)


def test_no_gradient_is_lost_in_silence() -> None:
    layer = half.HalfLinear(nn.Linear(4, 4).bfloat16())
    with pytest.raises(AssertionError, match="no gradient"):
        layer(torch.ones(1, 4, requires_grad=True))


@HALVES
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_pass_as_through_the_weights(
    dtype: torch.dtype, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "PIECE", 16 * 4)  # four rows: a last piece of two
    torch.manual_seed(0)
    layer = nn.Linear(16, 10, bias=bias).to(dtype)
    small = half.HalfLinear(layer, learns=True)
    x, y = (torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    slope = torch.randn(2, 5, 10)
    (small(x.requires_grad_()) * slope).sum().backward()
    (layer.float()(y.requires_grad_()) * slope).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert small.nbytes == 2 * half.HalfLinear(layer).nbytes == 2 * 2 * 16 * 10


@pytest.mark.parametrize("bias", [False, True])
def test_the_slope_of_log_probabilities_is_that_of_the_whole_vocabulary(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "PIECE", 8 * 9)  # nine tokens of the vocabulary, five in the last
    monkeypatch.setattr("zephyr.model.logprobs.CHUNK_ELEMENTS", {"cpu": 9 * 3})  # three rows
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=bias).bfloat16()
    small = half.HalfLinear(head, learns=True)
    one, other = (torch.randn(7, 8, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    targets, slope = torch.tensor([0, 8, 9, 49, 45, 9, 20]), torch.randn(7)
    (half_logprobs(one.requires_grad_(), small, targets) * slope).sum().backward()
    logits = head.float()(other.requires_grad_())
    (logits.log_softmax(dim=1)[torch.arange(7), targets] * slope).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("family", ["qwen2", "llama", "bloom"])
@pytest.mark.usefixtures("all_layers")
def test_adapters_learn_on_it_as_on_float32(family: str, dropout: float, tmp_path: Path) -> None:
    """One frozen adapter beneath and a fresh one, in PEFT's own forward (dropout) and the fused."""
    folder = saved(family, torch.bfloat16, tmp_path / "model")
    (beneath,) = stack(family, tmp_path / "a", [], Lora(rank=2), 1)
    found = []
    for form in ("adapts", "computed"):
        model = opened(folder, form, (beneath.name,))
        assert bool(layers(model)) == (form == "adapts")
        lora = Lora(rank=2, dropout=dropout)
        model.wrapper = adapter.add_fresh(model.causal, model.wrapper, lora, 3)
        with torch.no_grad():
            for name, matrix in model.wrapper.named_parameters():
                if adapter.is_top(model.wrapper, name):
                    matrix.add_(0.01)  # lest B be zero
        model.network.train()
        torch.manual_seed(0)
        loss = -model.network(lay_out(tiny.forks(), model.layout)).mean()
        loss.backward()
        learning = {n: p for n, p in model.network.named_parameters() if p.requires_grad}
        found.append((loss, {name: matrix.grad for name, matrix in learning.items()}))
    (loss, grads), (wanted, slopes) = found
    torch.testing.assert_close(loss, wanted)
    assert grads
    for name, slope in slopes.items():
        torch.testing.assert_close(grads[name], slope, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("all_layers")
def test_nothing_is_merged_into_what_can_t_be_added_to(tmp_path: Path) -> None:
    model = opened(saved("qwen2", torch.bfloat16, tmp_path / "model"), "adapts")
    model.wrapper = adapter.add_fresh(model.causal, None, Lora(rank=2), 3)
    before = model.logprobs(tiny.forks())
    with adapter.merged(model.wrapper):
        np.testing.assert_array_equal(_flat(model.logprobs(tiny.forks())), _flat(before))


@pytest.mark.parametrize(
    ("lora", "divides", "halved"),
    [
        (Lora(), False, True),
        (Lora(dora=True), False, False),
        ("none", False, False),
        (Lora(), True, False),
    ],
)
@pytest.mark.usefixtures("all_layers")
def test_what_learns_decides_how_weights_are_held(
    lora: Any, divides: bool, halved: bool, tmp_path: Path
) -> None:
    """Weights that learn, that norms are taken of, or that are divided stay whole."""
    folder = saved("qwen2", torch.bfloat16, tmp_path / "model")
    settings = RunSettings(dtype="float32")
    recipe = Recipe(name="r", data={}, models={"M0": ModelSpec(base="here")}, run=settings)
    context = Context(recipe, tmp_path, tmp_path, 256, group=Group(0, 2, divides=divides))
    model = stages._loaded(Lineage(str(folder)), context, lora)
    assert bool(layers(model)) == halved


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    folder = saved("qwen2", torch.bfloat16, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ZephyrError, match="can't be read"):
        opened(folder, "answers")
