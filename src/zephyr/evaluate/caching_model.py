"""Response cache (as lm-eval's `use_cache`): an interrupted evaluation resumes where it stopped.

Every response is appended under a hash of its request, and tasks need not know. Log-probabilities
are stored exactly. After a resume, requests are batched with other requests, so that in float32 the
results equal those of an uninterrupted evaluation within rounding (1e-5 nats a token), and the
texts are equal.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zephyr.evaluate.interface import EvalModel, Logprobs
from zephyr.model.example import Example, TokenIds, to_token_ids
from zephyr.records import content_hash

if TYPE_CHECKING:
    from zephyr.model.decoding import SamplingParams  # imports torch
    from zephyr.model.generate import Generation

FSYNC_SECONDS = 1.0
"""Seconds between two calls of fsync on the cache file."""


class CachingModel:
    """An EvalModel with a response cache; `progress` gets (number cached, total)."""

    def __init__(
        self, model: EvalModel, path: Path, progress: Callable[[int, int], None] = lambda a, b: None
    ) -> None:
        self.model, self.path, self.progress = model, path, progress
        self.tokenizer, self.template, self.context_length = (
            model.tokenizer,
            model.template,
            model.context_length,
        )
        self._answers: dict[str, Any] = dict(_read_answers(path))
        self._last_sync = time.monotonic()
        self._total_count = self._ready_count = 0

    def __enter__(self) -> Self:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self._file.close()

    def logprobs(
        self,
        examples: Sequence[Example],
        *,
        on_done: Callable[[int, Logprobs], None] = lambda at, found: None,
    ) -> list[Logprobs]:
        """Log-probabilities as of the model; only those not cached are computed."""
        keys = [_example_key(example) for example in examples]
        missing_indices = self._missing_indices(keys)

        def store_logprobs(at: int, logprobs: Logprobs) -> None:
            self._store_answer(keys[missing_indices[at]], [part.tolist() for part in logprobs])
            on_done(missing_indices[at], logprobs)

        self.model.logprobs([examples[i] for i in missing_indices], on_done=store_logprobs)
        return [[np.array(part, dtype=np.float32) for part in self._answers[key]] for key in keys]

    def generate(
        self,
        prompts: Sequence[TokenIds],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: "SamplingParams | None" = None,
        seeds: Sequence[int] | None = None,
        stop: Sequence[str] = (),
        on_done: "Callable[[int, Generation], None]" = lambda at, found: None,
    ) -> "list[Generation]":
        """Generations as of the model; only those not cached are generated."""
        from zephyr.model.decoding import GREEDY  # imports torch
        from zephyr.model.generate import Generation

        sampling_params = GREEDY if sampling is None else sampling
        if isinstance(max_new_tokens, int):
            max_new_tokens = [max_new_tokens] * len(prompts)
        token_limits = list(max_new_tokens)
        seed_list = seeds or [0] * len(prompts)
        keys = [
            content_hash("answer", prompt.tolist(), limit, list(sampling_params), seed, list(stop))
            for prompt, limit, seed in zip(prompts, token_limits, seed_list, strict=True)
        ]
        missing_indices = self._missing_indices(keys)

        def store_generation(at: int, generation: Generation) -> None:
            self._store_answer(
                keys[missing_indices[at]],
                [generation.ids.tolist(), generation.text, generation.finish_reason],
            )
            on_done(missing_indices[at], generation)

        self.model.generate(
            [prompts[i] for i in missing_indices],
            max_new_tokens=[token_limits[i] for i in missing_indices],
            sampling=sampling_params,
            seeds=[seed_list[i] for i in missing_indices],
            stop=stop,
            on_done=store_generation,
        )
        answers = (self._answers[key] for key in keys)
        return [Generation(to_token_ids(tokens), text, ended) for tokens, text, ended in answers]

    def _missing_indices(self, keys: Sequence[str]) -> list[int]:
        """The first index of each key that is not cached."""
        first_indices = {key: at for at, key in reversed(list(enumerate(keys)))}
        missing = [at for key, at in first_indices.items() if key not in self._answers]
        self._total_count += len(first_indices)
        self._ready_count += len(first_indices) - len(missing)
        return sorted(missing)

    def _store_answer(self, key: str, answer: Any) -> None:
        self._answers[key] = answer
        self._file.write(json.dumps([key, answer], ensure_ascii=False) + "\n")
        if time.monotonic() - self._last_sync > FSYNC_SECONDS:
            self._sync()
        self._ready_count += 1
        self.progress(self._ready_count, self._total_count)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last_sync = time.monotonic()


def _read_answers(path: Path) -> Iterable[tuple[str, Any]]:
    """Reads the answers of a cache file; a truncated last line is removed."""
    if not path.exists():
        return []
    data = path.read_bytes()
    complete_lines = data[: data.rfind(b"\n") + 1]
    if len(complete_lines) < len(data):
        path.write_bytes(complete_lines)
    return [tuple(json.loads(line)) for line in complete_lines.decode().split("\n") if line]


def _example_key(example: Example) -> str:
    parts = [
        (c.ids.tolist(), None if c.loss_mask.all() else np.flatnonzero(c.loss_mask).tolist())
        for c in example.completions
    ]
    return content_hash("logprobs", example.prompt.tolist(), parts)
