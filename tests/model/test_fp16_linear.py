"""Weights that stay in 16 bits give what the same weights give in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests import tiny
from tests.model.test_multi_lora import save_adapter_stack
from zephyr.distributed.process_group import ProcessGroup
from zephyr.errors import ZephyrError
from zephyr.model import adapter, fp16_linear
from zephyr.model.batching import collate
from zephyr.model.load import Lineage, load_model, load_network
from zephyr.model.logprobs import chunked_logprobs, fp16_logprobs
from zephyr.model.model import Model
from zephyr.model.multi_lora import MultiLora
from zephyr.model.probe import _concatenate_logprobs
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
EACH_16_BIT_DTYPE = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@pytest.fixture
def convert_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converts even the layers of tiny networks, the largest in several chunks."""
    monkeypatch.setattr(fp16_linear, "MIN_WEIGHTS", 1)
    monkeypatch.setattr(fp16_linear, "CHUNK_WEIGHTS", 32 * 100)


def save_in_dtype(family: str, dtype: torch.dtype, folder: Path) -> Path:
    model = tiny.make_model(family)
    model.network.to(dtype)
    model.save(folder)
    return folder


def load_in_form(folder: Path, form: Any, adapters: tuple[str, ...] = ()) -> Model:
    lineage = Lineage(str(folder), None, adapters)
    return load_model(lineage, folder.parent, token_budget=256, form=form)


def fp16_layers(model: Model) -> list[fp16_linear.Fp16Linear]:
    return [
        module for module in model.network.modules() if isinstance(module, fp16_linear.Fp16Linear)
    ]


def assert_same_outputs(one: Model, other: Model) -> None:
    examples = tiny.random_examples()
    for one_logprobs, other_logprobs in zip(
        one.logprobs(examples), other.logprobs(examples), strict=True
    ):
        for left, right in zip(one_logprobs, other_logprobs, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-4)
    prompts = [example.prompt for example in examples]
    generations = [m.generate(prompts, max_new_tokens=12) for m in (one, other)]
    assert [a.ids.tolist() for a in generations[0]] == [a.ids.tolist() for a in generations[1]]


@EACH_16_BIT_DTYPE
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 16), (3, 16), (2, 5, 16), (0, 16), (70, 16)])
def test_a_layer_gives_the_products_of_its_weights(
    dtype: torch.dtype, bias: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp16_linear, "CHUNK_WEIGHTS", 16 * 4)  # four rows: a last chunk of two
    torch.manual_seed(0)
    layer = nn.Linear(16, 10, bias=bias).to(dtype)
    x = torch.randn(*shape)
    with torch.no_grad():
        found = fp16_linear.Fp16Linear(layer)(x)
        torch.testing.assert_close(found, layer.float()(x))


def test_the_least_weights_lose_2_to_the_minus_25_at_the_most() -> None:
    weight = (torch.logspace(-40, 4, 400, base=2.0)[:, None]).bfloat16()
    layer = nn.Linear(1, 400, bias=False)
    layer.weight = nn.Parameter(weight)
    found = fp16_linear.Fp16Linear(layer)(torch.ones(1, 1))[0]
    errors = (found - weight[:, 0].float()).abs()
    assert 0 < float(errors.max()) <= 2**-25
    normal = weight[:, 0].float() >= 2**-14
    assert torch.equal(found[normal], weight[normal, 0].float())


@EACH_16_BIT_DTYPE
@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2", "bloom"])
@pytest.mark.usefixtures("convert_all_layers")
def test_a_network_answers_as_it_does_in_float32(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = save_in_dtype(family, dtype, tmp_path / "model")
    fp16_model, float32_model = (
        load_in_form(folder, "inference"),
        load_in_form(folder, "dequantized"),
    )
    assert fp16_layers(fp16_model)
    assert not fp16_layers(float32_model)
    assert isinstance(fp16_model.causal.get_input_embeddings(), fp16_linear.Fp16Embedding)
    assert {p.dtype for p in fp16_model.network.parameters()} == {torch.float32}
    assert (fp16_model.layout, fp16_model.shares_prefixes) == (
        float32_model.layout,
        float32_model.shares_prefixes,
    )
    assert_same_outputs(fp16_model, float32_model)


@pytest.mark.usefixtures("convert_all_layers")
def test_adapters_are_applied_to_it(tmp_path: Path) -> None:
    folder, lora = save_in_dtype("qwen2", torch.bfloat16, tmp_path / "model"), Lora(rank=2)
    adapter_stack = save_adapter_stack(
        "qwen2", tmp_path / "b", save_adapter_stack("qwen2", tmp_path / "a", [], lora, 1), lora, 2
    )
    names = tuple(path.name for path in adapter_stack)
    fp16_model, float32_model = (
        load_in_form(folder, form, names) for form in ("inference", "dequantized")
    )
    assert fp16_layers(fp16_model)
    assert_same_outputs(fp16_model, float32_model)
    causal = load_network(folder, None, form="inference")
    fp16_linear.to_fp16_weights(causal)
    multi_lora = MultiLora(causal, [[], adapter_stack])
    multi_lora.select_models([1])
    fp16_model.network.causal, fp16_model.peft_model = causal, None
    assert_same_outputs(fp16_model, float32_model)


@pytest.mark.usefixtures("convert_all_layers")
def test_dora_keeps_the_float32_weights_whose_norms_it_takes(tmp_path: Path) -> None:
    folder = save_in_dtype("llama", torch.bfloat16, tmp_path / "model")
    (adapter_folder,) = save_adapter_stack("llama", tmp_path / "a", [], Lora(rank=2, dora=True), 1)
    fp16_model, float32_model = (
        load_in_form(folder, form, (adapter_folder.name,)) for form in ("inference", "dequantized")
    )
    assert not fp16_layers(fp16_model)
    assert_same_outputs(fp16_model, float32_model)


@pytest.mark.usefixtures("convert_all_layers")
def test_what_is_stored_in_more_than_one_dtype_is_not_rounded(tmp_path: Path) -> None:
    folder = save_in_dtype("qwen2", torch.bfloat16, tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    norm = next(name for name in tensors if "norm" in name)
    tensors[norm] = torch.full_like(tensors[norm], 1 + 2**-12, dtype=torch.float32)
    save_file(tensors, path, metadata={"format": "pt"})
    model = load_in_form(folder, "inference")
    assert not fp16_layers(model)
    assert float(model.causal.get_parameter(norm)[0]) == 1 + 2**-12


@pytest.mark.usefixtures("convert_all_layers")
def test_a_layer_beyond_the_range_of_float16_stays_as_it_is(tmp_path: Path) -> None:
    folder = save_in_dtype("llama", torch.bfloat16, tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name][0, 0] = 1e5
    save_file(tensors, path, metadata={"format": "pt"})
    model = load_in_form(folder, "inference")
    assert fp16_layers(model)
    assert model.causal.get_parameter(name)[0, 0] == torch.tensor(1e5).bfloat16().float()


@pytest.mark.usefixtures("convert_all_layers")
def test_a_network_whose_buffers_would_be_rounded_is_read_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_in_dtype("qwen2", torch.bfloat16, tmp_path / "model")
    monkeypatch.setattr(fp16_linear, "has_half_buffers", lambda causal: True)
    causal = load_network(folder, None, form="inference")
    assert {p.dtype for p in causal.parameters()} == {torch.float32}


def test_small_layers_are_quicker_in_float32(tmp_path: Path) -> None:
    model = load_in_form(save_in_dtype("qwen2", torch.bfloat16, tmp_path / "model"), "inference")
    assert not fp16_layers(model)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


@pytest.mark.usefixtures("convert_all_layers")
def test_its_bytes_are_those_of_16_bits(tmp_path: Path) -> None:
    folder = save_in_dtype("llama", torch.bfloat16, tmp_path / "model")
    fp16_model, float32_model = load_in_form(folder, "stored"), load_in_form(folder, "dequantized")
    norms = sum(p.nbytes for p in fp16_model.network.parameters())
    assert (
        fp16_linear.weight_bytes(fp16_model.network)
        == (fp16_linear.weight_bytes(float32_model.network) - norms) // 2 + norms
    )


def test_rows_are_scored_as_with_the_whole_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zephyr.model.logprobs.LOGITS_PER_CHUNK", {"cpu": 50 * 3})  # three rows
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False).bfloat16()
    hidden, targets = torch.randn(7, 8), torch.randint(0, 50, (7,))
    with torch.no_grad():
        found = fp16_logprobs(hidden, fp16_linear.Fp16Linear(head), targets)
        expected = chunked_logprobs(hidden, head.weight.float(), None, targets)
    torch.testing.assert_close(found, expected)


def test_no_gradient_is_lost_in_silence() -> None:
    layer = fp16_linear.Fp16Linear(nn.Linear(4, 4).bfloat16())
    with pytest.raises(AssertionError, match="no gradient"):
        layer(torch.ones(1, 4, requires_grad=True))


@EACH_16_BIT_DTYPE
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_pass_as_through_the_weights(
    dtype: torch.dtype, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp16_linear, "CHUNK_WEIGHTS", 16 * 4)  # four rows: a last chunk of two
    torch.manual_seed(0)
    layer = nn.Linear(16, 10, bias=bias).to(dtype)
    small = fp16_linear.Fp16Linear(layer, with_backward=True)
    x, y = (torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    output_gradient = torch.randn(2, 5, 10)
    (small(x.requires_grad_()) * output_gradient).sum().backward()
    (layer.float()(y.requires_grad_()) * output_gradient).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert small.nbytes == 2 * fp16_linear.Fp16Linear(layer).nbytes == 2 * 2 * 16 * 10


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("bias", [False, True])
def test_the_gradient_of_log_probabilities_is_that_of_the_whole_vocabulary(
    bias: bool, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fp16_linear, "CHUNK_WEIGHTS", 8 * 9
    )  # nine tokens of the vocabulary, five in the last
    monkeypatch.setattr("zephyr.model.logprobs.LOGITS_PER_CHUNK", {"cpu": 9 * 3})  # three rows
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=bias).bfloat16()
    small = fp16_linear.Fp16Linear(head, with_backward=True)
    one, other = (torch.randn(7, 8, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    targets, output_gradient = torch.tensor([0, 8, 9, 49, 45, 9, 20]), torch.randn(7)
    logprobs = fp16_logprobs(one.requires_grad_(), small, targets, softcap)
    (logprobs * output_gradient).sum().backward()
    logits = head.float()(other.requires_grad_())
    if softcap:
        logits = softcap * (logits / softcap).tanh()
    (logits.log_softmax(dim=1)[torch.arange(7), targets] * output_gradient).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("family", ["qwen2", "llama", "bloom"])
@pytest.mark.usefixtures("convert_all_layers")
def test_adapters_learn_on_it_as_on_float32(family: str, dropout: float, tmp_path: Path) -> None:
    """One frozen adapter beneath and a fresh one, in PEFT's own forward (dropout) and the fused."""
    folder = save_in_dtype(family, torch.bfloat16, tmp_path / "model")
    (frozen_adapter,) = save_adapter_stack(family, tmp_path / "a", [], Lora(rank=2), 1)
    found = []
    for form in ("adapter-training", "dequantized"):
        model = load_in_form(folder, form, (frozen_adapter.name,))
        assert bool(fp16_layers(model)) == (form == "adapter-training")
        lora = Lora(rank=2, dropout=dropout)
        model.peft_model = adapter.add_trainable_adapter(model.causal, model.peft_model, lora, 3)
        with torch.no_grad():
            for name, matrix in model.peft_model.named_parameters():
                if adapter.is_top_adapter_parameter(model.peft_model, name):
                    matrix.add_(0.01)  # lest B be zero
        model.network.train()
        torch.manual_seed(0)
        loss = -model.network(collate(tiny.random_examples(), model.layout)).mean()
        loss.backward()
        trainable = {n: p for n, p in model.network.named_parameters() if p.requires_grad}
        found.append((loss, {name: matrix.grad for name, matrix in trainable.items()}))
    (loss, grads), (expected_loss, expected_grads) = found
    torch.testing.assert_close(loss, expected_loss)
    assert grads
    for name, expected_grad in expected_grads.items():
        torch.testing.assert_close(grads[name], expected_grad, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("convert_all_layers")
def test_nothing_is_merged_into_what_can_t_be_added_to(tmp_path: Path) -> None:
    model = load_in_form(
        save_in_dtype("qwen2", torch.bfloat16, tmp_path / "model"), "adapter-training"
    )
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(rank=2), 3)
    before = model.logprobs(tiny.random_examples())
    with adapter.temporarily_merged(model.peft_model):
        np.testing.assert_array_equal(
            _concatenate_logprobs(model.logprobs(tiny.random_examples())),
            _concatenate_logprobs(before),
        )


@pytest.mark.parametrize(
    ("lora", "is_sharded", "is_fp16"),
    [
        (Lora(), False, True),
        (Lora(dora=True), False, False),
        ("none", False, False),
        (Lora(), True, False),
    ],
)
@pytest.mark.usefixtures("convert_all_layers")
def test_what_learns_decides_how_weights_are_held(
    lora: Any, is_sharded: bool, is_fp16: bool, tmp_path: Path
) -> None:
    """Weights that learn, that norms are taken of, or that are sharded stay in float32."""
    folder = save_in_dtype("qwen2", torch.bfloat16, tmp_path / "model")
    settings = RunSettings(dtype="float32")
    recipe = Recipe(name="r", data={}, models={"M0": ModelSpec(base="here")}, run=settings)
    context = Context(
        recipe, tmp_path, tmp_path, 256, group=ProcessGroup(0, 2, is_sharded=is_sharded)
    )
    model = stages._load_for_training(Lineage(str(folder)), context, lora)
    assert bool(fp16_layers(model)) == is_fp16


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = save_in_dtype("qwen2", torch.bfloat16, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ZephyrError, match="can't be read"):
        load_in_form(folder, "inference")
