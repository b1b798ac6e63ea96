"""Footprint benchmark: disk and memory size of a model, and its throughput in tokens a second.

The model is loaded in its stored (quantized) form. A prompt of random tokens is prefilled, then
answer tokens are decoded greedily: the time does not depend on which tokens they are.
"""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zephyr.evaluate.interface import Item, TaskOutput
from zephyr.system.devices import DEVICE_KINDS, device_type, has_accelerator, synchronize
from zephyr.system.memory import peak_memory

if TYPE_CHECKING:
    from zephyr.model.load import Lineage
    from zephyr.model.model import Model
    from zephyr.model.precision import Dtype

PROMPT_TOKENS, NEW_TOKENS = 256, 32
"""Tokens of the prompt (at most half of the context), and of the answer."""
REPEATS = 5


class FootprintBenchmark:
    """Footprint benchmark of a model: its sizes and throughput, on all threads of this process."""

    def __init__(self, lineage: "Lineage", store: Path, dtype: "Dtype") -> None:
        self._lineage = lineage
        self._store = store
        self._dtype = dtype

    @property
    def device_and_dtype(self) -> tuple[str, str]:
        """The device that it computes on, and the dtype."""
        import torch

        label = DEVICE_KINDS[device_type()].label
        return (label if has_accelerator() else f"{torch.get_num_threads()} {label}"), self._dtype

    def stored_bytes(self) -> int:
        """Bytes of the files that hold its weights, adapters included."""
        folders = [self._lineage.weights_folder(self._store)]
        folders += [self._store / adapter for adapter in self._lineage.adapters]
        return sum(p.stat().st_size for f in folders for p in f.glob("*.safetensors"))

    def measure(self) -> list[dict[str, float]]:
        """Measures sizes once, and the throughput of each repeat."""
        from zephyr.model.fp16_linear import weight_bytes
        from zephyr.model.load import load_model

        gc.collect()
        with peak_memory() as peak:
            model = load_model(
                self._lineage, self._store, token_budget=4096, dtype=self._dtype, form="stored"
            )
            measurements = list(_measure_throughput(model))
        sizes = {"disk": float(self.stored_bytes()), "memory": float(weight_bytes(model.network))}
        if peak:
            sizes["peak"] = float(peak[0])
        return [sizes | measurements[0], *measurements[1:]]


def _measure_throughput(model: "Model") -> Iterator[dict[str, float]]:
    """Prefill and decode throughput, tokens a second; a warm-up run is not counted."""
    from zephyr.model.decoding import DecodeBatch, DecodeRow

    prompt_tokens = max(1, min(PROMPT_TOKENS, model.context_length // 2))
    new_tokens = max(1, min(NEW_TOKENS, model.context_length - prompt_tokens - 1))
    vocab_size = model.causal.config.get_text_config().vocab_size
    prompt = np.random.default_rng(0).integers(0, vocab_size, prompt_tokens).astype(np.int32)
    for run_index in range(REPEATS + 1):
        batch: DecodeBatch[DecodeRow] = DecodeBatch(model.causal)
        start = _synchronized_time()
        batch.add([DecodeRow(prompt)])
        prefill_end = _synchronized_time()
        for _ in range(new_tokens):
            batch.step()
        decode_end = _synchronized_time()
        if run_index:
            yield {
                "prompt": prompt_tokens / (prefill_end - start),
                "decode": new_tokens / (decode_end - prefill_end),
            }


def _synchronized_time() -> float:
    """Seconds of a monotonic clock, after the device has finished what is queued."""
    synchronize()
    return time.perf_counter()


def measure_footprint(model: Any, records: Any, settings: Any) -> TaskOutput:
    """An item for each repeat; the first has the sizes. `model` is a `FootprintBenchmark`."""
    items: list[Item] = [
        {"id": f"reading {at + 1}", "source": "", "group": "", "scores": found, "detail": {}}
        for at, found in enumerate(model.measure())
    ]
    prompt_label = f"prompt of {PROMPT_TOKENS} tokens or half a context, {NEW_TOKENS} written"
    return TaskOutput(
        items, {}, (prompt_label, *model.device_and_dtype), {"peak": "not told by this system"}
    )
