"""The reference of an alignment: log-probabilities before its first step, found once and kept.

    reference.safetensors   sums [pairs, 2] float32    of the chosen and the rejected answer
                            records [pairs, 16] uint8  a hash of each pair as the model saw it
                            metadata: model            the fingerprint of the model asked

What is kept is used only where it says that it is of this model and these pairs; anything else is
found anew. It is written after every `BATCH` pairs, so that a run that was killed goes on there.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zephyr.distributed.process_group import ALONE, Group, shares
from zephyr.model.fork import Fork
from zephyr.model.model import Model
from zephyr.train.loop import Interrupted

BATCH = 2048
"""Pairs between two writes. They are packed by themselves, so that where a run was killed changes
no number."""

Sums = NDArray[np.float32]


def reference(
    model: Model,
    name: str,
    forks: Sequence[Fork],
    path: Path,
    stop: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
) -> Sums:
    """Summed log-probabilities [pairs, 2] under `model`, whose fingerprint is `name`.

    The processes of `group` share out the pairs, and all get the same numbers.

    Raises:
        Interrupted: `stop()` said so; what was found by then is kept.
    """
    from safetensors.numpy import save_file

    records = np.array([_hash(fork) for fork in forks], dtype=np.uint8).reshape(-1, _BYTES)
    sums = group.share(_kept(path, name, records))
    while len(sums) < len(forks):
        if group.any(stop()):
            raise Interrupted
        batch = forks[len(sums) : len(sums) + BATCH]
        mine = shares([f.length for f in batch], group.size)[group.rank]
        found = np.zeros((len(batch), 2), dtype=np.float32)
        for i, sides in zip(mine, model.logprobs([batch[i] for i in mine]), strict=True):
            found[i] = [side.sum() for side in sides]
        sums = np.concatenate([sums, group.sum_array(found)])
        if not group.is_main:
            continue
        temporary = path.with_suffix(".tmp")
        content = {"sums": sums, "records": records[: len(sums)]}
        save_file(content, temporary, metadata={"model": name})
        temporary.replace(path)
    kept: Sums = sums
    return kept


_BYTES = 16


def _hash(fork: Fork) -> list[int]:
    digest = hashlib.blake2b(digest_size=_BYTES)
    for part in (fork.prompt, *(a for c in fork.continuations for a in (c.ids, c.supervised))):
        digest.update(len(part).to_bytes(8, "little") + part.tobytes())
    return list(digest.digest())


def _kept(path: Path, name: str, records: NDArray[np.uint8]) -> Sums:
    """The sums of the first pairs that an earlier try has left, if they are of the same ones."""
    from safetensors import SafetensorError, safe_open

    nothing = np.zeros((0, 2), dtype=np.float32)
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("model") != name:
                return nothing
            sums, known = file.get_tensor("sums"), file.get_tensor("records")
    except (FileNotFoundError, SafetensorError):
        return nothing
    whole = len(sums) == len(records) or (len(sums) < len(records) and len(sums) % BATCH == 0)
    same = whole and np.array_equal(known, records[: len(sums)])
    return sums.reshape(-1, 2) if same else nothing
