"""A journal of answers: an evaluation that is interrupted goes on with what is missing.

Every answer is written down as it comes, under a hash of what was asked, so that tasks need not
know. What a journal holds is what the model said: log-probabilities are kept to the last bit. What
is asked later is packed with other neighbours, so that in float32 an evaluation that was
interrupted equals one that was not within rounding (1e-5 nats a token), and in its texts.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zephyr.evaluate.asking import Logprobs, Model
from zephyr.model.fork import Fork, Ids, ids
from zephyr.records import content_hash

if TYPE_CHECKING:
    from zephyr.model.decode import Sampling  # imports torch
    from zephyr.model.generate import Generation

EVERY = 1.0
"""Seconds after which what was written is forced to the disk."""


class Journal:
    """A model that remembers. `progress` hears (answers that are there, answers that are asked)."""

    def __init__(
        self, model: Model, path: Path, progress: Callable[[int, int], None] = lambda a, b: None
    ) -> None:
        self.model, self.path, self.progress = model, path, progress
        self.tokenizer, self.template, self.context = model.tokenizer, model.template, model.context
        self._known: dict[str, Any] = dict(_read(path))
        self._synced = time.monotonic()
        self._asked = self._there = 0

    def __enter__(self) -> Self:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self._file.close()

    def logprobs(
        self,
        forks: Sequence[Fork],
        *,
        done: Callable[[int, Logprobs], None] = lambda at, found: None,
    ) -> list[Logprobs]:
        """As the model's; only what is not known is asked of it."""
        keys = [_key_of_fork(fork) for fork in forks]
        missing = self._missing(keys)

        def hear(at: int, found: Logprobs) -> None:
            self._keep(keys[missing[at]], [part.tolist() for part in found])
            done(missing[at], found)

        self.model.logprobs([forks[i] for i in missing], done=hear)
        return [[np.array(part, dtype=np.float32) for part in self._known[key]] for key in keys]

    def generate(
        self,
        prompts: Sequence[Ids],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: "Sampling | None" = None,
        seeds: Sequence[int] | None = None,
        until: Sequence[str] = (),
        done: "Callable[[int, Generation], None]" = lambda at, found: None,
    ) -> "list[Generation]":
        """As the model's; only what is not known is asked of it."""
        from zephyr.model.decode import GREEDY  # imports torch
        from zephyr.model.generate import Generation

        how = GREEDY if sampling is None else sampling
        if isinstance(max_new_tokens, int):
            max_new_tokens = [max_new_tokens] * len(prompts)
        most = list(max_new_tokens)
        given = seeds or [0] * len(prompts)
        keys = [
            content_hash("answer", prompt.tolist(), limit, list(how), seed, list(until))
            for prompt, limit, seed in zip(prompts, most, given, strict=True)
        ]
        missing = self._missing(keys)

        def hear(at: int, found: Generation) -> None:
            self._keep(keys[missing[at]], [found.ids.tolist(), found.text, found.ended])
            done(missing[at], found)

        self.model.generate(
            [prompts[i] for i in missing],
            max_new_tokens=[most[i] for i in missing],
            sampling=how,
            seeds=[given[i] for i in missing],
            until=until,
            done=hear,
        )
        answers = (self._known[key] for key in keys)
        return [Generation(ids(tokens), text, ended) for tokens, text, ended in answers]

    def _missing(self, keys: Sequence[str]) -> list[int]:
        """The first place of each key that is not known."""
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        missing = [at for key, at in first.items() if key not in self._known]
        self._asked += len(first)
        self._there += len(first) - len(missing)
        return sorted(missing)

    def _keep(self, key: str, answer: Any) -> None:
        self._known[key] = answer
        self._file.write(json.dumps([key, answer], ensure_ascii=False) + "\n")
        if time.monotonic() - self._synced > EVERY:
            self._sync()
        self._there += 1
        self.progress(self._there, self._asked)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _read(path: Path) -> Iterable[tuple[str, Any]]:
    """What a journal holds; a last line that was cut short is taken away."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    return [tuple(json.loads(line)) for line in whole.decode().split("\n") if line]


def _key_of_fork(fork: Fork) -> str:
    parts = [
        (c.ids.tolist(), None if c.supervised.all() else np.flatnonzero(c.supervised).tolist())
        for c in fork.continuations
    ]
    return content_hash("logprobs", fork.prompt.tolist(), parts)
