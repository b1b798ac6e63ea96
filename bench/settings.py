"""What is measured, and the settings of the contenders.

A contender's default is what it does when it is told nothing but the task. Its best is the fastest
of its candidates in trials on the same machine (`python -m bench.training trials`).
"""

import json
from typing import Any, NamedTuple

Options = dict[str, Any]

TARGETS: dict[str, list[str] | str] = {"q, v": ["q_proj", "v_proj"], "all linear": "all-linear"}
"""The layers that get an adapter."""


class Plan(NamedTuple):
    """How much is measured on a device: rows of one optimizer step, and steps of a reading.

    Peers' defaults, mostly slow, and adapters on all linear layers are measured in the first
    `defaults` of `rounds` rounds.
    """

    chats: int
    pairs: int
    steps: int
    rounds: int
    defaults: int


PLANS = {
    "cpu": Plan(chats=8, pairs=8, steps=1, rounds=3, defaults=1),
    "cuda": Plan(chats=16, pairs=16, steps=20, rounds=5, defaults=5),
}

WARMING = 2
"""Rows of the pass that is not counted."""


class Entry(NamedTuple):
    """One line of the tables: a contender, its setting, and the work."""

    work: str
    contender: str
    setting: str
    targets: str = "q, v"

    @property
    def name(self) -> str:
        return f"{self.work} · {self.targets} · {self.contender} {self.setting}"


ENTRIES = (
    Entry("sft", "zephyr", "as shipped"),
    Entry("sft", "trl", "best"),
    Entry("sft", "llamafactory", "best"),
    Entry("sft", "trl", "default"),
    Entry("sft", "llamafactory", "default"),
    Entry("sft", "zephyr", "as shipped", "all linear"),
    Entry("sft", "trl", "best", "all linear"),
    Entry("sft", "llamafactory", "best", "all linear"),
    Entry("dpo", "zephyr", "as shipped"),
    Entry("dpo", "trl", "best"),
    Entry("dpo", "llamafactory", "best"),
    Entry("dpo", "trl", "default"),
)

_TRL: Options = {"gradient_checkpointing": False, "model_init_kwargs": {"dtype": "bfloat16"}}
_TRL_ALONE: Options = {**_TRL, "per_device_train_batch_size": 1}
_FACTORY: Options = {"bf16": True, "disable_gradient_checkpointing": True}
_FACTORY_ALONE: Options = {**_FACTORY, "per_device_train_batch_size": 1}


def _batches(options: Options, *sizes: int) -> list[Options]:
    return [{**options, "per_device_train_batch_size": size} for size in sizes]


class Candidate(NamedTuple):
    """A setting of a peer that is tried."""

    work: str
    contender: str
    options: Options

    @property
    def name(self) -> str:
        return f"{self.work} {self.contender} {json.dumps(self.options)}"


_CPU_BFLOAT16: dict[tuple[str, str], list[Options]] = {
    ("sft", "trl"): [{}, *_batches(_TRL, 1, 2), {**_TRL_ALONE, "packing": True}],
    ("dpo", "trl"): [_TRL_ALONE, {**_TRL_ALONE, "precompute_ref_log_probs": True}],
    ("sft", "llamafactory"): [
        {},
        *_batches(_FACTORY, 1, 2, 4),
        {**_FACTORY_ALONE, "neat_packing": True},
    ],
    ("dpo", "llamafactory"): [_FACTORY_ALONE],
}

_TRL_FLOAT: Options = {
    "gradient_checkpointing": False,
    "model_init_kwargs": {"dtype": "float32"},
    "bf16": False,
}
_FACTORY_FLOAT: Options = {"disable_gradient_checkpointing": True, "weights": "float32"}
"""It computes in the dtype of the file: what asks for `weights` is given a file in float32."""

_CPU_FLOAT32: dict[tuple[str, str], list[Options]] = {
    ("sft", "trl"): [
        *_batches(_TRL_FLOAT, 1, 2),
        {**_TRL_FLOAT, "per_device_train_batch_size": 1, "packing": True},
    ],
    ("dpo", "trl"): _batches({**_TRL_FLOAT, "precompute_ref_log_probs": True}, 1),
    ("sft", "llamafactory"): _batches(_FACTORY_FLOAT, 1),
    ("dpo", "llamafactory"): _batches(_FACTORY_FLOAT, 1),
}

_LIGER: Options = {**_TRL, "use_liger_kernel": True}
_FACTORY_LIGER: Options = {**_FACTORY, "enable_liger_kernel": True}

_CUDA: dict[tuple[str, str], list[Options]] = {
    ("sft", "trl"): [
        *_batches(_TRL, 4, 8, 16),
        *_batches(_LIGER, 4, 8, 16),
        *_batches({**_LIGER, "packing": True}, 1, 2, 4),
    ],
    ("dpo", "trl"): [
        *_batches(_TRL, 8, 16),
        *_batches({**_TRL, "precompute_ref_log_probs": True}, 4, 8, 16),
        *_batches({**_LIGER, "precompute_ref_log_probs": True}, 4, 8, 16),
    ],
    ("sft", "llamafactory"): [
        *_batches(_FACTORY, 4, 8, 16),
        *_batches(_FACTORY_LIGER, 4, 8, 16),
        *_batches({**_FACTORY_LIGER, "neat_packing": True}, 1, 2, 4),
    ],
    ("dpo", "llamafactory"): [*_batches(_FACTORY, 2, 4, 8), *_batches(_FACTORY_LIGER, 4, 8)],
}

CANDIDATES = {
    device: [
        Candidate(work, contender, options)
        for (work, contender), listed in tried.items()
        for options in listed
    ]
    for device, tried in {
        "cpu-bfloat16": _CPU_BFLOAT16,
        "cpu-float32": _CPU_FLOAT32,
        "cuda": _CUDA,
    }.items()
}
