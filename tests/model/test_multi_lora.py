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
    alone = []
    for adapters in stacks:
        causal = tiny.make_model(family).causal
        wrapper = adapter.attach_adapters(causal, adapters)
        alone.append(build_model(causal, tiny.tokenizer(), wrapper, token_budget=256))
    together = tiny.make_model(family)
    mixed = MultiLora(together.causal, stacks)
    forks = tiny.examples()
    found = []
    for number, model in enumerate(alone):
        mixed.select_models([number])
        found.append(together.logprobs(forks))
        for mine, theirs in zip(found[-1], model.logprobs(forks), strict=True):
            for left, right in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(left, right, atol=2e-4)
    assert not np.allclose(found[1][0][0], found[2][0][0], atol=1e-2)
    rows = [DecodeRow(to_token_ids([3, 1, 4, 1, 5 + number])) for number in range(4)]
    mixed.select_models(range(4))
    running = DecodeBatch(together.causal)
    running.add(rows)
    for _ in range(6):
        running.step()
    for model, row in zip(alone, rows, strict=True):
        model.template.stop_token_ids = frozenset({-1})
        (answer,) = model.generate([row.prompt], max_new_tokens=7)
        assert answer.ids.tolist() == row.output_ids


def test_dora_is_no_sum(tmp_path: Path) -> None:
    plain = save_adapter_stack("llama", tmp_path / "a", [], Lora(rank=2), 1)
    scaled = save_adapter_stack("llama", tmp_path / "b", [], Lora(rank=2, dora=True), 1)
    assert can_batch_adapters(plain)
    assert not can_batch_adapters([*plain, *scaled])
