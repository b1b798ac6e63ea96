"""One base with the adapters of several models gives each row what its model alone gives."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.model import adapter
from zephyr.model.decoding import DecodeBatch, DecodeRow
from zephyr.model.example import to_token_ids
from zephyr.model.load import build_model
from zephyr.model.multi_lora import MultiLora, can_batch_adapters
from zephyr.recipe.training import Lora


def save_adapter_stack(
    family: str, folder: Path, below: list[Path], lora: Lora, seed: int
) -> list[Path]:
    """The adapters in `below`, and a new one with weights drawn from a seed, saved in `folder`."""
    causal = tiny.FAMILIES[family]()
    wrapper = adapter.attach_adapters(causal, below)
    wrapper = adapter.add_trainable_adapter(causal, wrapper, lora, seed)
    torch.manual_seed(seed)
    for name, parameter in wrapper.named_parameters():
        if adapter.is_top_adapter_parameter(wrapper, name):
            parameter.data.normal_(std=0.3)
    adapter.save_adapter(wrapper, folder, "tiny")
    return [*below, folder]


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "bloom"])
def test_a_row_is_computed_with_the_adapters_of_its_model(family: str, tmp_path: Path) -> None:
    small, large = Lora(rank=2, alpha=4), Lora(rank=5, alpha=3, rslora=True)
    one = save_adapter_stack(family, tmp_path / "a", [], small, 1)
    two = save_adapter_stack(family, tmp_path / "b", one, large, 2)
    targets = Lora(rank=3, targets="attention-inputs")
    other = save_adapter_stack(family, tmp_path / "c", [], targets, 3)
    stacks = [[], one, two, other]
    single_models = []
    for adapters in stacks:
        causal = tiny.make_model(family).causal
        wrapper = adapter.attach_adapters(causal, adapters)
        single_models.append(build_model(causal, tiny.tokenizer(), wrapper, token_budget=256))
    multi_lora_model = tiny.make_model(family)
    multi_lora = MultiLora(multi_lora_model.causal, stacks)
    examples = tiny.random_examples()
    logprobs = []
    for number, model in enumerate(single_models):
        multi_lora.select_models([number])
        logprobs.append(multi_lora_model.logprobs(examples))
        for mine, theirs in zip(logprobs[-1], model.logprobs(examples), strict=True):
            for left, right in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(left, right, atol=2e-4)
    assert not np.allclose(logprobs[1][0][0], logprobs[2][0][0], atol=1e-2)
    rows = [DecodeRow(to_token_ids([3, 1, 4, 1, 5 + number])) for number in range(4)]
    multi_lora.select_models(range(4))
    decode_batch = DecodeBatch(multi_lora_model.causal)
    decode_batch.add(rows)
    for _ in range(6):
        decode_batch.step()
    for model, row in zip(single_models, rows, strict=True):
        model.template.stop_token_ids = frozenset({-1})
        (answer,) = model.generate([row.prompt], max_new_tokens=7)
        assert answer.ids.tolist() == row.output_ids


def test_dora_is_no_sum(tmp_path: Path) -> None:
    plain = save_adapter_stack("llama", tmp_path / "a", [], Lora(rank=2), 1)
    scaled = save_adapter_stack("llama", tmp_path / "b", [], Lora(rank=2, dora=True), 1)
    assert can_batch_adapters(plain)
    assert not can_batch_adapters([*plain, *scaled])
