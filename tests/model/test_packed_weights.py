"""Packed weights: grids worked out by hand, the files of compressed-tensors, and their networks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model import packed_weights
from zephyr.model.example import make_example
from zephyr.model.fp16_linear import weight_bytes
from zephyr.model.load import Lineage, build_model, load_model
from zephyr.model.packed_weights import Grid, PackedLinear, PackedWeight
from zephyr.quantize import gptq
from zephyr.quantize.stage import quantize_and_pack
from zephyr.recipe.quantization import Quantize

NETWORKS = ("qwen2", "llama", "bloom", "gpt2")
EXAMPLE = make_example(range(1, 9), range(20, 40), [3, 4, 5])


def test_a_grid_by_hand() -> None:
    """From -3 to 12 in fifteen steps of 1: zero is the code 3, and halves go to the even code."""
    weight = torch.tensor([[-3.0, 12.0, 0.0, 0.4, 1.6, -0.6, 2.5, 11.9]])
    grid = Grid.from_weight(weight, 4, 8)
    assert (grid.scale.item(), grid.zero.item()) == (1.0, 3)
    codes = grid.quantize(weight)
    assert codes.tolist() == [[0, 15, 3, 3, 5, 2, 5, 15]]
    assert grid.dequantize(codes).tolist() == [[-3.0, 12.0, 0.0, 0.0, 2.0, -1.0, 2.0, 12.0]]
    nibbles = PackedWeight.from_codes(codes, grid).codes
    assert nibbles.tolist() == [[0xF0, 0x33, 0x25, 0xF5]], "the first of two stands in the low half"


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_off_by_half_a_step_at_most(bits: packed_weights.Bits) -> None:
    torch.manual_seed(0)
    weight = torch.randn(24, 64)
    found = PackedWeight.quantize(weight, bits, 32)
    error = (found.dequantize(torch.float32) - weight).view(24, 2, 32).abs().amax(dim=2)
    step = found.grid.scale.float()
    assert bool((error <= 0.5 * step + 0.1 * step).all()), "the zero point is rounded as well"
    assert found.shape == (24, 64)


def test_a_group_without_weights_stays_zero() -> None:
    found = PackedWeight.quantize(torch.zeros(2, 64), 4, 32)
    assert not found.dequantize(torch.float32).any()


@pytest.mark.parametrize(("bits", "rows"), [(4, 24), (4, 13), (8, 24), (8, 3)])
def test_files_are_those_of_compressed_tensors(bits: packed_weights.Bits, rows: int) -> None:
    """Its own reader gives the weights that we compute with."""
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationScheme

    torch.manual_seed(1)
    found = PackedWeight.quantize(torch.randn(rows, 64), bits, 32)
    stored = found.to_tensors("layer")
    scheme = QuantizationScheme(
        targets=["Linear"], weights=packed_weights.quantization_scheme(found)
    )
    theirs = PackedQuantizationCompressor.decompress(
        {key.removeprefix("layer."): tensor for key, tensor in stored.items()}, scheme
    )
    # it multiplies in the dtype of the scale
    np.testing.assert_allclose(
        theirs["weight"].float(), found.dequantize(torch.float32), rtol=2**-10, atol=1e-7
    )
    again = PackedWeight.from_tensors(stored, "layer")
    assert torch.equal(again.dequantize(torch.float32), found.dequantize(torch.float32))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [32, 64])
def test_layers_of_any_number_of_outputs_come_back_from_files(
    bits: packed_weights.Bits, columns: int, tmp_path: Path
) -> None:
    """Zero points lie eight (or four) in a word: few outputs fill less than one."""
    from safetensors.torch import save_file

    x = torch.randn(60, columns, generator=torch.Generator().manual_seed(1))
    for rows in range(1, 18):
        weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
        packed = [PackedWeight.quantize(weight, bits, 32)]
        if bits == 4:
            packed.append(gptq.round_with_hessian(weight, x.T @ x, 32))
        for found in packed:
            save_file(found.to_tensors("layer"), tmp_path / "layer.safetensors")
            stored = load_file(tmp_path / "layer.safetensors")
            again = PackedWeight.from_tensors(stored, "layer").dequantize(torch.float32)
            assert torch.equal(again, found.dequantize(torch.float32)), rows


def test_layers_with_few_outputs_stay_whole_and_others_read_the_folder(tmp_path: Path) -> None:
    """compressed-tensors can't read zero points that fill less than one word and a bit."""
    from compressed_tensors.quantization import QuantizationConfig

    model = tiny.make_model("llama")
    for outputs, block in zip((8, 9), model.causal.model.layers, strict=True):
        block.mlp.gate = torch.nn.Linear(32, outputs, bias=False)
    spec = Quantize(method="int4", group=32)
    narrow = quantize_and_pack(model, spec, tmp_path, torch.float32)
    assert narrow == ["model.layers.0.mlp.gate"]
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(
        stored["model.layers.0.mlp.gate.weight"], model.causal.model.layers[0].mlp.gate.weight
    )
    assert stored["model.layers.1.mlp.gate.weight_zero_point"].shape == (2, 1)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert QuantizationConfig.model_validate(config).ignore == ["lm_head", *narrow]


def test_a_layer_and_its_parts_equal_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    found = PackedWeight.quantize(torch.randn(48, 64), 4, 32)
    bias = torch.nn.Parameter(torch.randn(48))
    x = torch.randn(3, 5, 64)
    expected = torch.nn.functional.linear(x, found.dequantize(torch.float32), bias)
    layer = PackedLinear(found, bias, torch.float32)
    torch.testing.assert_close(layer(x), expected)
    monkeypatch.setattr(packed_weights, "WEIGHTS_PER_CHUNK", 7 * 64)
    torch.testing.assert_close(layer(x), expected)
    assert torch.equal(found.dequantize(torch.float32), layer.weight)


def load_stored_and_computed(path: Path) -> tuple[Any, Any]:
    lineage = Lineage(str(path), "int4")
    return tuple(
        load_model(lineage, Path("/"), token_budget=512, form=form)
        for form in ("stored", "dequantized")
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("embeddings", [None, "int8", "int4"])
def test_small_in_memory_computes_as_unpacked(tmp_path: Path, name: str, embeddings: Any) -> None:
    spec = Quantize(method="int4", group=32, embeddings=embeddings)
    quantize_and_pack(tiny.make_model(name), spec, tmp_path, torch.float32)
    small, large = load_stored_and_computed(tmp_path)
    linear = [m for m in small.causal.modules() if isinstance(m, PackedLinear)]
    assert len(linear) > 4
    ours, theirs = (np.concatenate(m.logprobs([EXAMPLE])[0]) for m in (small, large))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert weight_bytes(small.network) < 0.7 * weight_bytes(large.network)
    weights = load_file(tmp_path / "model.safetensors")
    held = sum(t.nbytes for key, t in weights.items() if not key.endswith("_shape"))
    zeros = sum(t.nbytes for key, t in weights.items() if key.endswith("_zero_point"))
    spare = weight_bytes(small.network) - held
    assert 0 <= spare <= zeros, "in memory a zero point of 4 bits takes a byte"


@pytest.mark.parametrize(("width", "group"), [(128, 64), (96, 32)])
def test_int8_is_of_weights_alone_and_depends_on_no_batch(
    width: int, group: int, tmp_path: Path
) -> None:
    """Each weight is off by half a step at most; activations are not rounded."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny.VOCAB_SIZE,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tiny.CONTEXT_LENGTH,
    )
    model = build_model(LlamaForCausalLM(config), tiny.tokenizer(), token_budget=256)
    before = np.concatenate(model.logprobs([EXAMPLE])[0])
    assert quantize_and_pack(model, Quantize(method="int8"), tmp_path, torch.float32) == []
    [scheme] = json.loads((tmp_path / "config.json").read_text())["quantization_config"][
        "config_groups"
    ].values()
    assert (scheme["weights"]["num_bits"], scheme["weights"]["group_size"]) == (8, group)
    loaded = load_model(Lineage(str(tmp_path), "int8"), Path("/"), token_budget=512)
    alone = np.concatenate(loaded.logprobs([EXAMPLE])[0])
    assert 0 < np.abs(alone - before).max() < 0.01
    other = make_example([1, 2], [3] * 30)
    together = np.concatenate(loaded.logprobs([other, EXAMPLE])[1])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_width_without_a_group_is_refused(tmp_path: Path) -> None:
    model = tiny.make_model("llama")
    model.causal.model.layers[0].mlp.gate = torch.nn.Linear(40, 32)
    with pytest.raises(ZephyrError, match=r"mlp\.gate(.|\n)*40 inputs in groups of 32(.|\n)*nf4"):
        quantize_and_pack(model, Quantize(method="int8"), tmp_path, torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    spec = Quantize(method="int4", group=32)
    quantize_and_pack(tiny.make_model("qwen2"), spec, tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop(next(key for key in tensors if key.endswith("weight_scale")))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ZephyrError, match="packed weights can't be read"):
        load_stored_and_computed(tmp_path)
