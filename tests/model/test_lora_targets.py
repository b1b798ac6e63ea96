"""LoRA's targets: what PEFT takes, what a forward pass calls, and how much of a network that is."""

from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from tests.model.attention_networks import make_causal
from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.linear_layers import Matrices, linear_layers, matrix_sizes
from zephyr.model.lora_targets import choose_targets, matches_target
from zephyr.recipe.training import Lora

_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "FalconH1Config": {**_MAMBA, "mamba_d_ssm": 64, "head_dim": 8},
    "NemotronHConfig": {
        "hybrid_override_pattern": "M*M-",
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "head_dim": 8,
    },
    "Mamba2Config": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "GraniteMoeHybridConfig": {
        **_MAMBA,
        "mamba_d_head": 16,
        "layer_types": ["mamba", "attention"] * 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
    },
    "Gemma3nTextConfig": {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": tiny.VOCAB_SIZE,
        "num_kv_shared_layers": 2,
        "intermediate_size": [64] * 4,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0] * 4,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "head_dim": 8,
    },
    "DeepseekV2Config": {
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
    },
    "Qwen3NextConfig": {
        **_LINEAR,
        **_EXPERTS,
        "shared_expert_intermediate_size": 16,
        "head_dim": 8,
    },
    "Qwen3MoeConfig": {**_EXPERTS, "head_dim": 8},
    "GptOssConfig": {},
    "Lfm2Config": {"layer_types": ["conv", "full_attention"] * 2},
    "Qwen4ExpTextConfig": {
        **_LINEAR,
        **_EXPERTS,
        "shared_expert_intermediate_size": 16,
        "hidden_size": 64,
        "head_dim": 16,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ngram_vocab_size_base": 64,
        "split_ngram_parts": 2,
        "heads_per_ngram": 2,
        "hc_lowrank": 8,
    },
}
_ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
_DENSE = ["down_proj", "gate_proj", "up_proj"]
EXPECTED = {
    "FalconH1Config": (["in_proj", *_ATTENTION, *_DENSE], 32, 36),
    "NemotronHConfig": (["down_proj", "in_proj", *_ATTENTION, "up_proj"], 8, 10),
    "Mamba2Config": (["in_proj"], 4, 8),
    "GraniteMoeHybridConfig": (["in_proj", "input_linear", *_ATTENTION, "output_linear"], 18, 56),
    "DeepseekV2Config": (
        ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"],
        20,
        59,
    ),
    "Qwen3NextConfig": (
        ["in_proj_ba", "in_proj_qkvz", *_ATTENTION, "out_proj", "shared_expert_gate"],
        18,
        66,
    ),
    "Qwen3MoeConfig": (_ATTENTION, 16, 52),
    "GptOssConfig": (_ATTENTION, 16, 36),
    "Lfm2Config": (["in_proj", "k_proj", "out_proj", "q_proj", "v_proj", "w1", "w2", "w3"], 24, 24),
}
"""The targets of `all-linear`, the matrices that they reach, and those of all blocks: by hand, from
the layers of four blocks and their experts."""


def network(name: str) -> Any:
    return make_causal(name, **NETWORKS[name]).requires_grad_(False)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_all_linear_reaches(name: str) -> None:
    """Each layer that is named gets PEFT's plain LoRA, and no other is wrapped."""
    from peft.tuners.lora import Linear, LoraLayer

    expected, reached, of = EXPECTED[name]
    causal = network(name)
    layers = linear_layers(causal)
    targets = choose_targets(causal, Lora())
    assert targets == sorted(expected)
    peft_model = adapter.add_trainable_adapter(causal, None, Lora(rank=2), seed=0)
    wrapped = {n: m for n, m in causal.named_modules() if isinstance(m, LoraLayer)}
    assert all(isinstance(module, Linear) for module in wrapped.values())
    assert wrapped.keys() == {layer for layer in layers if matches_target(layer, targets)}
    reach = adapter.top_adapter_reach(peft_model)
    assert (reach.reached.number, reach.of.number) == (reached, of)
    again = adapter.add_trainable_adapter(causal, peft_model, Lora(rank=2), seed=1)
    assert again.peft_config["stage1"].target_modules == set(expected)
    assert adapter.top_adapter_reach(again) == reach


def test_an_index_of_what_is_attended_to_is_left_out() -> None:
    """Its output only chooses, so that no gradient reaches it; the layers beside it learn."""
    causal = network("Qwen4ExpTextConfig")
    endings = {name.rsplit(".", 1)[-1] for name in linear_layers(causal)}
    assert endings - set(choose_targets(causal, Lora())) == {"index_qk_proj"}


def test_layers_that_are_numbered_are_named_with_their_list() -> None:
    """`0` alone would be the first block as well."""
    targets = choose_targets(network("Gemma3nTextConfig"), Lora())
    assert {"altup_projections.0", "altup_unembed_projections.2", "q_proj"} <= set(targets)
    assert not any(target.isdigit() for target in targets)


class _Block(nn.Module):
    """Two layers of one name, of which the second's weight is read directly; and an index."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"out_proj": nn.Linear(8, 8)})
        self.mixer = _Mixer()
        self.index = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.attention["out_proj"](x) + self.mixer(x)
        chosen = self.index(x).argmax(dim=-1, keepdim=True)
        return x.gather(-1, chosen) + x


class _Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out_proj = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda:
            return nn.functional.linear(x, self.out_proj.weight)
        return self.out_proj(x)


def own_network() -> Any:
    """A causal language model of one such block in place of each MLP."""
    causal = tiny.make_model("llama").causal
    for layer in causal.model.layers:
        layer.mlp = nn.Sequential(nn.Linear(32, 8), _Block(), nn.Linear(8, 32))
    return causal.requires_grad_(False)


def test_a_name_is_told_apart_by_the_modules_above_it() -> None:
    targets = choose_targets(own_network(), Lora())
    assert targets == sorted(["attention.out_proj", "mlp.0", "mlp.2", *_ATTENTION])


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("index", "no gradient reaches its weights"),
        ("unused", "no gradient reaches its weights"),
    ],
)
def test_a_named_target_that_would_learn_nothing_is_refused(target: str, reason: str) -> None:
    with pytest.raises(ZephyrError) as caught:
        choose_targets(own_network(), Lora(targets=(target, "q_proj")))
    lines = str(caught.value).splitlines()
    assert lines[0] == "a LoRA target can't have an adapter in this network"
    assert lines[2] == f"  found:   {target} ({reason})"


def test_names_that_peft_takes_for_experts_are_refused() -> None:
    with pytest.raises(ZephyrError, match=r"up_proj \(PEFT takes this name for the experts"):
        choose_targets(network("Qwen3NextConfig"), Lora(targets=("up_proj",)))
    with pytest.raises(ZephyrError, match=r"out_proj \(a kernel reads its weight"):
        choose_targets(network("Mamba2Config"), Lora(targets=("out_proj",)))


def test_the_probe_leaves_no_trace() -> None:
    """Weights, mode, random numbers and hooks are as they were."""
    causal = tiny.make_model("llama").causal
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    choose_targets(causal, Lora())
    assert torch.equal(torch.rand(3), expected)
    assert not causal.training
    assert all(parameter.grad is None for parameter in causal.parameters())
    assert not any(module._forward_hooks for module in causal.modules())


def test_sizes_of_matrices_by_hand() -> None:
    """Qwen3-MoE of width 32, 4 heads and 2 for keys of width 8, 4 experts of width 16."""
    sizes = matrix_sizes(network("Qwen3MoeConfig"))
    block = {
        "self_attn.q_proj": Matrices(1, 32 * 32),
        "self_attn.k_proj": Matrices(1, 32 * 16),
        "self_attn.v_proj": Matrices(1, 32 * 16),
        "self_attn.o_proj": Matrices(1, 32 * 32),
        "mlp.experts.gate_up_proj": Matrices(4, 4 * 2 * 16 * 32),
        "mlp.experts.down_proj": Matrices(4, 4 * 16 * 32),
        "mlp.gate.weight": Matrices(1, 4 * 32),
    }
    expected = {f"model.layers.{n}.{key}": value for n in range(4) for key, value in block.items()}
    assert sizes == expected
