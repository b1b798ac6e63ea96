"""Reference log-probabilities of an alignment (DPO, IPO): computed once before training, saved.

    reference.safetensors   sums [pairs, 2] float32    of the chosen and the rejected answer
                            records [pairs, 16] uint8  a hash of each pair as the model saw it
                            metadata: model            the fingerprint of the reference model

A saved file is used only if its hashes are those of this model and these pairs; anything else is
computed anew. It is written after every `PAIRS_PER_WRITE` pairs: a killed run resumes from there.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup, balance_by_size
from zephyr.model.example import Example
from zephyr.model.model import Logprobs, Model
from zephyr.train.loop import RunInterrupted

PAIRS_PER_WRITE = 2048
"""Pairs between two writes. Each block is packed by itself, so that resuming changes no number."""

LogprobSums = NDArray[np.float32]
"""Summed log-probabilities [B, 2] of chosen and rejected completions."""


def compute_reference_logprobs(
    model: Model,
    model_fingerprint: str,
    examples: Sequence[Example],
    path: Path,
    should_stop: Callable[[], bool] = lambda: False,
    group: ProcessGroup = SINGLE_PROCESS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LogprobSums:
    """Summed reference log-probabilities [B, 2] of pairs under `model`, the reference model.

    The ranks of `group` split the pairs, and all get the same numbers. `progress` gets the pairs
    that are done (of this rank, since the last write) and all of them.

    Raises:
        RunInterrupted: `should_stop()` was true; what was computed by then is saved.
    """
    from safetensors.numpy import save_file

    hashes = np.array([_hash_example(e) for e in examples], dtype=np.uint8).reshape(-1, _HASH_BYTES)
    sums = group.broadcast(_read_saved(path, model_fingerprint, hashes))
    while len(sums) < len(examples):
        if group.all_reduce_any(should_stop()):
            raise RunInterrupted
        batch = examples[len(sums) : len(sums) + PAIRS_PER_WRITE]
        own_indices = balance_by_size([e.tree_length for e in batch], group.world_size)[group.rank]
        batch_sums = np.zeros((len(batch), 2), dtype=np.float32)
        counter = itertools.count(len(sums) + 1)

        def report(at: int, found: Logprobs, counter: "itertools.count[int]" = counter) -> None:
            progress(next(counter), len(examples))

        logprobs = model.logprobs([batch[i] for i in own_indices], on_done=report)
        for i, completions in zip(own_indices, logprobs, strict=True):
            batch_sums[i] = [side.sum() for side in completions]
        sums = np.concatenate([sums, group.all_reduce_array(batch_sums)])
        if not group.is_main:
            continue
        temporary_path = path.with_suffix(".tmp")
        content = {"sums": sums, "records": hashes[: len(sums)]}
        save_file(content, temporary_path, metadata={"model": model_fingerprint})
        temporary_path.replace(path)
    result: LogprobSums = sums
    return result


_HASH_BYTES = 16


def _hash_example(example: Example) -> list[int]:
    """BLAKE2b hash of an example's token ids and loss masks, as bytes."""
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for array in (example.prompt, *(a for c in example.completions for a in (c.ids, c.loss_mask))):
        digest.update(len(array).to_bytes(8, "little") + array.tobytes())
    return list(digest.digest())


def _read_saved(path: Path, model_fingerprint: str, hashes: NDArray[np.uint8]) -> LogprobSums:
    """Reads saved sums [B, 2] of the first pairs; none if of another model or other pairs."""
    from safetensors import SafetensorError, safe_open

    empty = np.zeros((0, 2), dtype=np.float32)
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("model") != model_fingerprint:
                return empty
            sums, saved_hashes = file.get_tensor("sums"), file.get_tensor("records")
    except (FileNotFoundError, SafetensorError):
        return empty
    is_complete = len(sums) == len(hashes) or (
        len(sums) < len(hashes) and len(sums) % PAIRS_PER_WRITE == 0
    )
    is_same = is_complete and np.array_equal(saved_hashes, hashes[: len(sums)])
    return sums.reshape(-1, 2) if is_same else empty
