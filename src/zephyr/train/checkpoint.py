"""Checkpoints: everything that the next step depends on, written whole or not at all.

    checkpoints/step-<n>/weights.safetensors     the trainable weights
                         optimizer.safetensors   AdamW's moments and step counts
                         state.json              step, length of the metrics, sums of the files

The order of the data and the random numbers of a step follow from the seed and the step alone, so
they need no place here.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zephyr.store import full_disk_explained, read_json, write_json

KEPT = 2
FILES = ("weights.safetensors", "optimizer.safetensors")


class Resumed(NamedTuple):
    """Where training goes on: optimizer steps made, and bytes of metrics written by then.

    `damaged` names checkpoints that could not be used.
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
) -> None:
    """Writes the checkpoint of `step`, then removes all but the newest `KEPT`."""
    final = folder / f"step-{step:08d}"
    temporary = folder / "writing"
    with full_disk_explained(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(
            {n: w.detach().cpu().contiguous() for n, w in weights.items()}, temporary / FILES[0]
        )
        save_file(_flatten(optimizer), temporary / FILES[1])
        sums = {name: _sha256(temporary / name) for name in FILES}
        state = {"step": step, "metrics_bytes": metrics_bytes, "window": window, "sha256": sums}
        for name in FILES:
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())
        write_json(temporary / "state.json", state)
        temporary.replace(final)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def resume(
    folder: Path, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> Resumed | None:
    """Loads the newest checkpoint that is whole into `weights` and `optimizer`."""
    damaged = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            state = read_json(path / "state.json")
            if any(_sha256(path / name) != state["sha256"][name] for name in FILES):
                raise ValueError("a checksum differs")
            saved, moments = (load_file(path / name) for name in FILES)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            damaged.append(f"{path.name}: {error}")
            continue
        assert saved.keys() == weights.keys(), "a fingerprint fixes the names of the weights"
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(saved[name])
        _unflatten(optimizer, moments)
        return Resumed(state["step"], state["metrics_bytes"], state["window"], tuple(damaged))
    return None


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, values in state.items()
        for name, value in values.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
