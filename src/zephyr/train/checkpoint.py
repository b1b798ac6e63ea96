"""Checkpoints: everything that the next step depends on, written whole or not at all.

    checkpoints/step-<n>/weights.safetensors     the trainable weights
                         optimizer.safetensors   AdamW's moments and step counts
                         state.json              step, length of the metrics, sums of the files

The order of the data and the random numbers of a step follow from the seed and the step alone, so
they need no place here.
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

from zephyr.distributed.process_group import ALONE, Group
from zephyr.runs.store import full_disk_explained, read_json, sync, write_json
from zephyr.train.shard import gathered, placed

KEPT = 2
FILES = ("weights.safetensors", "optimizer.safetensors")


class Resumed(NamedTuple):
    """Where training goes on: optimizer steps made, and bytes of metrics written by then.

    `damaged` names the checkpoints that could not be used, and says why. Without one that can be
    used, training starts over: zero steps, zero bytes.
    """

    step: int
    metrics_bytes: int
    window: dict[str, float]
    damaged: tuple[str, ...]


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
    """Writes the checkpoint of `step`, then removes all but the newest `KEPT`.

    What is there of the same step was read when training went on from it, and is left as it is.
    With `write` False it only gives its parts of divided weights to the process that writes.
    """
    saved = gathered(weights, keep=write)
    moments = gathered(_flatten(optimizer), keep=write)
    final = folder / f"step-{step:08d}"
    if not write or final.exists():
        return
    temporary = folder / "writing"
    with full_disk_explained(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save_file(saved, temporary / FILES[0])
            save_file(moments, temporary / FILES[1])
            for name in FILES:
                sync(temporary / name)
            sums = {name: _sha256(temporary / name) for name in FILES}
            state = {"step": step, "metrics_bytes": metrics_bytes, "window": window, "sha256": sums}
            write_json(temporary / "state.json", state | {"sum": _sum(state)})
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # the disk may be full
            raise
        temporary.replace(final)
        sync(folder)
    for old in [*sorted(folder.glob("step-*"))[:-KEPT], *folder.glob("damaged-*")]:
        shutil.rmtree(old)


def resume(
    folder: Path,
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    metrics_bytes: int,
    group: Group = ALONE,
) -> Resumed:
    """Loads the newest checkpoint that is whole into `weights` and `optimizer`.

    `metrics_bytes` is the length of the metrics that are there: a checkpoint that counts on more
    can't be used. Damaged ones are set aside, so that they are not kept in place of good ones. The
    main process of `group` does that, and all others load the checkpoint that it has taken.
    """
    damaged: list[str] = []
    taken = _newest(folder, weights, metrics_bytes, damaged) if group.is_main else None
    name = group.share(taken[0] if taken else None)
    if name is None:
        return Resumed(0, 0, {}, tuple(damaged))
    _, state, saved, moments = taken or (name, *_read(folder / name, weights, metrics_bytes))
    with torch.no_grad():
        for each, tensor in weights.items():
            tensor.copy_(placed(saved[each], tensor))
    _unflatten(optimizer, moments)
    return Resumed(state["step"], state["metrics_bytes"], state["window"], tuple(damaged))


def _newest(
    folder: Path, weights: dict[str, Tensor], metrics_bytes: int, damaged: list[str]
) -> tuple[str, dict[str, Any], dict[str, Tensor], dict[str, Tensor]] | None:
    """The newest that is whole, by its name, and what `_read` gives; tells `damaged` of others."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return path.name, *_read(path, weights, metrics_bytes)
        except (OSError, ValueError, SafetensorError) as error:
            damaged.append(f"{path.name}: {error}")
            aside = folder / path.name.replace("step", "damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.replace(aside)
    return None


def _read(
    path: Path, weights: dict[str, Tensor], metrics_bytes: int
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """The content of the three files: state, weights and moments.

    Raises:
        OSError, ValueError, SafetensorError: something is missing, broken, or of another model.
    """
    state = read_json(path / "state.json")
    if not isinstance(state, dict) or state.pop("sum", None) != _sum(state):
        raise ValueError("the checksum of state.json differs")
    for name in FILES:
        if _sha256(path / name) != state["sha256"][name]:
            raise ValueError(f"the checksum of {name} differs")
    if state["metrics_bytes"] > metrics_bytes:
        raise ValueError("metrics.jsonl is shorter than when it was written")
    saved, moments = (load_file(path / name) for name in FILES)
    if (other := _differing(saved, weights)) is not None:
        raise ValueError(f"it is of another model, which differs in {other}")
    return state, saved, moments


def _differing(saved: dict[str, Tensor], weights: dict[str, Tensor]) -> str | None:
    """The first weight that only one of them has, or that has another shape or type there."""
    for name in sorted({*saved, *weights}):
        one, other = saved.get(name), weights.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            return name
    return None


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in moments.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = placed(value, weights[int(number)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _sum(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
