"""The reference of an alignment: log-probabilities before its first step, found once and kept."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zephyr.model.fork import Fork
from zephyr.model.model import Model
from zephyr.store import Run


def reference(
    model: Model, forks: Sequence[Fork], holdout: Sequence[Fork], run: Run
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Summed log-probabilities [examples, 2] of training and hold-out, kept with the run."""
    from safetensors.numpy import load_file, save_file

    path = run.artifact / "reference.safetensors"
    if not path.exists():
        both = model.logprobs([*forks, *holdout])
        sums = np.array([[side.sum() for side in sides] for sides in both], dtype=np.float32)
        temporary = path.with_suffix(".tmp")
        save_file({"train": sums[: len(forks)], "holdout": sums[len(forks) :]}, temporary)
        temporary.replace(path)
    saved = load_file(path)
    return saved["train"], saved["holdout"]
