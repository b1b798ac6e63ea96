"""What a model costs: bytes of its files, bytes in memory, and tokens a second.

The model is loaded as small as it is stored. One prompt of tokens drawn at random is read, and
answered greedily: what tokens say changes nothing of the time they take.
"""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zephyr.evaluate.asking import Asked, Item
from zephyr.system.memory import peak_memory

if TYPE_CHECKING:
    from zephyr.model.load import Lineage
    from zephyr.model.model import Model
    from zephyr.model.precision import Dtype

PROMPT, WRITTEN = 256, 32
"""Tokens of the prompt, where the context has room for twice as many, and of the answer."""
REPEATS = 5


class Footprint:
    """Measures the model of a lineage, on all threads of this process."""

    def __init__(self, lineage: "Lineage", store: Path, dtype: "Dtype") -> None:
        self._lineage = lineage
        self._store = store
        self._dtype = dtype

    @property
    def how(self) -> tuple[str, str]:
        """Where it computes, and in what."""
        import torch

        threads = f"{torch.get_num_threads()} threads of a processor"
        return ("one GPU" if torch.cuda.is_available() else threads), self._dtype

    def stored(self) -> int:
        """Bytes of the files that hold its weights, adapters included."""
        folders = [self._lineage.folder(self._store)]
        folders += [self._store / adapter for adapter in self._lineage.adapters]
        return sum(p.stat().st_size for f in folders for p in f.glob("*.safetensors"))

    def measure(self) -> list[dict[str, float]]:
        """Sizes once, and the tokens a second of each reading."""
        from zephyr.model.half import bytes_of
        from zephyr.model.load import load

        gc.collect()
        with peak_memory() as peak:
            model = load(
                self._lineage, self._store, token_budget=4096, dtype=self._dtype, form="stored"
            )
            readings = list(_readings(model))
        sizes = {"disk": float(self.stored()), "memory": float(bytes_of(model.network))}
        if peak:
            sizes["peak"] = float(peak[0])
        return [sizes | readings[0], *readings[1:]]


def _readings(model: "Model") -> Iterator[dict[str, float]]:
    """Tokens a second of a prompt and of an answer; a first reading is not counted."""
    from zephyr.model.decode import Row, Running

    length = max(1, min(PROMPT, model.context // 2))
    written = max(1, min(WRITTEN, model.context - length - 1))
    vocabulary = model.causal.config.vocab_size
    prompt = np.random.default_rng(0).integers(0, vocabulary, length).astype(np.int32)
    for reading in range(REPEATS + 1):
        running: Running[Row] = Running(model.causal)
        began = _now()
        running.add([Row(prompt)])
        read = _now()
        for _ in range(written):
            running.step()
        ended = _now()
        if reading:
            yield {"prompt": length / (read - began), "decode": written / (ended - read)}


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ask_footprint(model: Any, records: Any, settings: Any) -> Asked:
    """A row for each reading; sizes stand in the first. `model` is a `Footprint`."""
    items: list[Item] = [
        {"id": f"reading {at + 1}", "source": "", "group": "", "scores": found, "detail": {}}
        for at, found in enumerate(model.measure())
    ]
    said = f"prompt of {PROMPT} tokens or half a context, {WRITTEN} written"
    return Asked(items, {}, (said, *model.how), {"peak": "not told by this system"})
