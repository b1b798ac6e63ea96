"""Settings of the training benchmark: how much is measured, and the peers' hyperparameters.

A framework's default is what it does when it gets nothing but the task. Its best is the fastest of
its candidates in trials on the same machine.
"""

import json
from typing import Any, NamedTuple

Options = dict[str, Any]

TARGETS: dict[str, list[str] | str] = {"q, v": ["q_proj", "v_proj"], "all linear": "all-linear"}
"""The layers that get an adapter."""


class Plan(NamedTuple):
    """How much is measured on a device: rows of an optimizer step, and steps of a measurement.

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
WARMUP_ROWS = 2
HYPERPARAMETERS = {"rank": 8, "alpha": 16, "lr": 5e-5, "beta": 0.1}
"""Of every framework: LoRA's rank and alpha, the learning rate, DPO's beta."""


class Entry(NamedTuple):
    """A line of the tables: a framework, its setting, and the workload."""

    work: str
    framework: str
    setting: str
    targets: str = "q, v"

    @property
    def name(self) -> str:
        return f"{self.work} · {self.targets} · {self.framework} {self.setting}"


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


class Candidate(NamedTuple):
    """A setting of a peer that is tried."""

    work: str
    framework: str
    options: Options

    @property
    def name(self) -> str:
        return f"{self.work} {self.framework} {json.dumps(self.options)}"


def _candidates(
    work: str, framework: str, options: Options, *batches: int, **more: Any
) -> list[Candidate]:
    """These options at each batch size of a forward."""
    return [
        Candidate(work, framework, {**options, "per_device_train_batch_size": size, **more})
        for size in batches
    ]


_TRL = {"gradient_checkpointing": False, "model_init_kwargs": {"dtype": "bfloat16"}}
_TRL_FLOAT32 = {**_TRL, "model_init_kwargs": {"dtype": "float32"}, "bf16": False}
_TRL_LIGER = {**_TRL, "use_liger_kernel": True}
_FACTORY = {"bf16": True, "disable_gradient_checkpointing": True}
_FACTORY_FLOAT32 = {"disable_gradient_checkpointing": True, "weights": "float32"}
"""It computes in the dtype of the file: `weights` is that of the file it gets."""
_FACTORY_LIGER = {**_FACTORY, "enable_liger_kernel": True}
_KEPT = {"precompute_ref_log_probs": True}

CANDIDATES = {
    "cpu-bfloat16": [
        Candidate("sft", "trl", {}),
        *_candidates("sft", "trl", _TRL, 1, 2),
        *_candidates("sft", "trl", _TRL, 1, packing=True),
        *_candidates("dpo", "trl", _TRL, 1),
        *_candidates("dpo", "trl", _TRL, 1, **_KEPT),
        Candidate("sft", "llamafactory", {}),
        *_candidates("sft", "llamafactory", _FACTORY, 1, 2, 4),
        *_candidates("sft", "llamafactory", _FACTORY, 1, neat_packing=True),
        *_candidates("dpo", "llamafactory", _FACTORY, 1),
    ],
    "cpu-float32": [
        *_candidates("sft", "trl", _TRL_FLOAT32, 1, 2),
        *_candidates("sft", "trl", _TRL_FLOAT32, 1, packing=True),
        *_candidates("dpo", "trl", {**_TRL_FLOAT32, **_KEPT}, 1),
        *_candidates("sft", "llamafactory", _FACTORY_FLOAT32, 1),
        *_candidates("dpo", "llamafactory", _FACTORY_FLOAT32, 1),
    ],
    "cuda": [
        *_candidates("sft", "trl", _TRL, 4, 8, 16),
        *_candidates("sft", "trl", _TRL_LIGER, 4, 8, 16),
        *_candidates("sft", "trl", {**_TRL_LIGER, "packing": True}, 1, 2, 4),
        *_candidates("dpo", "trl", _TRL, 8, 16),
        *_candidates("dpo", "trl", {**_TRL, **_KEPT}, 4, 8, 16),
        *_candidates("dpo", "trl", {**_TRL_LIGER, **_KEPT}, 4, 8, 16),
        *_candidates("sft", "llamafactory", _FACTORY, 4, 8, 16),
        *_candidates("sft", "llamafactory", _FACTORY_LIGER, 4, 8, 16),
        *_candidates("sft", "llamafactory", {**_FACTORY_LIGER, "neat_packing": True}, 1, 2, 4),
        *_candidates("dpo", "llamafactory", _FACTORY, 2, 4, 8),
        *_candidates("dpo", "llamafactory", _FACTORY_LIGER, 4, 8),
    ],
}
