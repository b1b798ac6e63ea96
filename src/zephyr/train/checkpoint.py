"""Training checkpoints for exact resume: all the next step depends on, written atomically.

    checkpoints/step-<n>/weights.safetensors     the trainable weights
                         optimizer.safetensors   AdamW's moments and step counts
                         state.json              step, length of the metrics, checksums of the files

Data order and random state of a step follow from the seed and the step alone, so that a checkpoint
need not hold them.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from zephyr.runs.store import explain_disk_errors, fsync_path, read_json, write_json
from zephyr.train.fsdp import gather_to_cpu, shard_like

MAX_CHECKPOINTS = 2
TENSOR_FILES = ("weights.safetensors", "optimizer.safetensors")


class ResumeState(NamedTuple):
    """Resume state: step and metrics length of the loaded checkpoint; zeros to start over.

    `window` holds the metric sums since the last logged step; `rejected` names the checkpoints that
    could not be used, and says why.
    """

    step: int
    metrics_bytes: int
    window: dict[str, float]
    rejected: tuple[str, ...]


def save(
    folder: Path,
    step: int,
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    metrics_bytes: int,
    window: dict[str, float],
    write: bool = True,
) -> None:
    """Saves the checkpoint of `step`, then removes all but the newest `MAX_CHECKPOINTS`.

    An existing checkpoint of the same step is the one training resumed from, and is kept. With
    `write` False a rank only takes part in gathering the shards of the weights.
    """
    weight_tensors = gather_to_cpu(weights, keep=write)
    moments = gather_to_cpu(_flatten_optimizer_state(optimizer), keep=write)
    checkpoint_path = folder / f"step-{step:08d}"
    if not write or checkpoint_path.exists():
        return
    temporary_path = folder / "writing"
    with explain_disk_errors(folder):
        shutil.rmtree(temporary_path, ignore_errors=True)
        temporary_path.mkdir(parents=True)
        try:
            save_file(weight_tensors, temporary_path / TENSOR_FILES[0])
            save_file(moments, temporary_path / TENSOR_FILES[1])
            for name in TENSOR_FILES:
                fsync_path(temporary_path / name)
            checksums = {name: _sha256(temporary_path / name) for name in TENSOR_FILES}
            state = {
                "step": step,
                "metrics_bytes": metrics_bytes,
                "window": window,
                "sha256": checksums,
            }
            write_json(temporary_path / "state.json", state | {"sum": _state_checksum(state)})
        except BaseException:
            shutil.rmtree(temporary_path, ignore_errors=True)  # the disk may be full
            raise
        temporary_path.replace(checkpoint_path)
        fsync_path(folder)
    for old in [*sorted(folder.glob("step-*"))[:-MAX_CHECKPOINTS], *folder.glob("damaged-*")]:
        shutil.rmtree(old)


def resume(
    folder: Path,
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    metrics_bytes: int,
    group: ProcessGroup = SINGLE_PROCESS,
) -> ResumeState:
    """Resumes: loads the newest intact checkpoint into `weights` and `optimizer`.

    `metrics_bytes` is the length of the metrics file: a checkpoint that was written at a greater
    length can't be used. Corrupt ones are renamed to `damaged-*`. Rank 0 of `group` chooses, and
    all other ranks load the same checkpoint.
    """
    rejected: list[str] = []
    loaded = _load_newest(folder, weights, metrics_bytes, rejected) if group.is_main else None
    name = group.broadcast(loaded[0] if loaded else None)
    if name is None:
        return ResumeState(0, 0, {}, tuple(rejected))
    _, state, weight_tensors, moments = loaded or (
        name,
        *_read_checkpoint(folder / name, weights, metrics_bytes),
    )
    with torch.no_grad():
        for weight_name, tensor in weights.items():
            tensor.copy_(shard_like(weight_tensors[weight_name], tensor))
    _load_optimizer_state(optimizer, moments)
    return ResumeState(state["step"], state["metrics_bytes"], state["window"], tuple(rejected))


def _load_newest(
    folder: Path, weights: dict[str, Tensor], metrics_bytes: int, rejected: list[str]
) -> tuple[str, dict[str, Any], dict[str, Tensor], dict[str, Tensor]] | None:
    """Name and content of the newest intact checkpoint; adds the others to `rejected`."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return path.name, *_read_checkpoint(path, weights, metrics_bytes)
        except (OSError, ValueError, SafetensorError) as error:
            rejected.append(f"{path.name}: {error}")
            damaged_path = folder / path.name.replace("step", "damaged")
            shutil.rmtree(damaged_path, ignore_errors=True)
            path.replace(damaged_path)
    return None


def _read_checkpoint(
    path: Path, weights: dict[str, Tensor], metrics_bytes: int
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Reads and verifies a checkpoint: its state, weights and optimizer moments.

    Raises:
        OSError, ValueError, SafetensorError: a file is missing, corrupt, or of another model.
    """
    state = read_json(path / "state.json")
    if not isinstance(state, dict) or state.pop("sum", None) != _state_checksum(state):
        raise ValueError("the checksum of state.json differs")
    for name in TENSOR_FILES:
        if _sha256(path / name) != state["sha256"][name]:
            raise ValueError(f"the checksum of {name} differs")
    if state["metrics_bytes"] > metrics_bytes:
        raise ValueError("metrics.jsonl is shorter than when it was written")
    weight_tensors, moments = (load_file(path / name) for name in TENSOR_FILES)
    if (mismatch := _first_mismatch(weight_tensors, weights)) is not None:
        raise ValueError(f"it is of another model, which differs in {mismatch}")
    return state, weight_tensors, moments


def _first_mismatch(saved: dict[str, Tensor], weights: dict[str, Tensor]) -> str | None:
    """The first weight that is missing on one side, or differs in shape or dtype."""
    for name in sorted({*saved, *weights}):
        one, other = saved.get(name), weights.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            return name
    return None


def _flatten_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimizer moments as named tensors, `<parameter index>.<name>`, for safetensors."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
    }


def _load_optimizer_state(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Loads the tensors of `_flatten_optimizer_state` back into the optimizer."""
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in moments.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = shard_like(value, weights[int(number)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _state_checksum(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
