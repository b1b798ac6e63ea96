"""A model: network, tokenizer and template, with two verbs, `logprobs` and `generate`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.cache import memory
from zephyr.model.decode import GREEDY, Sampling
from zephyr.model.fork import Fork, Ids
from zephyr.model.generate import Ask, Generation, generate
from zephyr.model.layout import Batch, Layout, lay_out, pack
from zephyr.model.logprobs import ForkNetwork
from zephyr.model.prefix import Prefix, families
from zephyr.model.template import Template

Logprobs = list[NDArray[np.float32]]
"""Natural-log probabilities of the supervised tokens of each continuation of a fork."""


def ignore(at: int, found: Any) -> None:
    """Hears of a finished answer, and does nothing."""


ROOM = 4
"""Times the token budget that a running batch of answers may hold."""


@dataclass
class Model:
    """A network that answers: `logprobs` of forks, and `generate` from prompts.

    `wrapper` is PEFT's, where there are adapters; `layout` is the faster one that this network
    computes right, and `shares` says whether it computes a shared prefix once.
    """

    network: ForkNetwork
    tokenizer: Any
    template: Template
    context: int
    layout: Layout
    token_budget: int
    wrapper: Any = None
    shares: bool = False

    @property
    def causal(self) -> Any:
        """The Hugging Face network inside."""
        return self.network.causal

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def logprobs(
        self, forks: Sequence[Fork], *, done: Callable[[int, Logprobs], None] = ignore
    ) -> list[Logprobs]:
        """Natural-log probabilities of the supervised tokens of every continuation, in order.

        What prompts have in common is computed once. `done(i, values)` is called as soon as those
        of a fork are known.

        Raises:
            ZephyrError: a fork is longer than the context of the model.
        """
        self._refuse_too_long(max((f.longest for f in forks), default=0))
        self.network.eval()
        results: list[Logprobs] = [[] for _ in forks]
        for members, batch, past in self._batches(forks):
            values = self.network(batch, **past).cpu().numpy()
            owner = batch.owner.cpu().numpy()
            ordered = np.argsort(owner, kind="stable")
            bounds = np.searchsorted(owner[ordered], np.arange(1, batch.continuations))
            parts = iter(np.split(values[ordered], bounds))
            for i in members:
                results[i] = [next(parts) for _ in forks[i].continuations]
                done(i, results[i])
        return results

    def _batches(self, forks: Sequence[Fork]) -> Iterator[tuple[list[int], Batch, dict[str, Any]]]:
        """Numbers of forks, their batch, and the cache of what stands before it, by its name."""
        found, alone = families(forks) if self.shares else ([], list(range(len(forks))))
        name = memory(self.causal)
        for family in found:
            prefix = Prefix(self.causal, name, family.prefix, self.device)
            for members, batch in prefix.rows(family, forks):
                yield members, batch.to(self.device), {name: prefix.cache}
        others = [forks[i] for i in alone]
        for members in pack(others, self.token_budget, self.layout):
            batch = lay_out([others[i] for i in members], self.layout)
            yield [alone[i] for i in members], batch.to(self.device), {}

    def generate(
        self,
        prompts: Sequence[Ids],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: Sampling = GREEDY,
        seeds: Sequence[int] | None = None,
        until: Sequence[str] = (),
        done: Callable[[int, Generation], None] = ignore,
    ) -> list[Generation]:
        """An answer to each prompt, greedily unless `sampling` says otherwise.

        `seeds` are for draws, one for each prompt; `until` are strings that end an answer. An
        answer that would leave the context is cut there, and has not stopped. `done(i, answer)` is
        called as soon as one is finished.

        Raises:
            ZephyrError: a prompt fills the whole context.
        """
        most = (
            [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        )
        asks = [
            self._ask(prompt, limit, seed)
            for prompt, limit, seed in zip(prompts, most, seeds or [0] * len(prompts), strict=True)
        ]
        return self._generate(asks, sampling, until, done, None)

    def stream(
        self,
        prompt: Ids,
        *,
        max_new_tokens: int,
        write: Callable[[str], None],
        sampling: Sampling = GREEDY,
        seed: int = 0,
        until: Sequence[str] = (),
    ) -> Generation:
        """The answer to one prompt, its text given to `write` piece by piece as it is made.

        A piece never ends within a character.

        Raises:
            ZephyrError: the prompt fills the whole context.
        """
        ask = self._ask(prompt, max_new_tokens, seed)

        def hear(_: int, piece: str) -> None:
            if piece:
                write(piece)

        (answer,) = self._generate([ask], sampling, until, ignore, hear)
        return answer

    def _generate(
        self,
        asks: Sequence[Ask],
        sampling: Sampling,
        until: Sequence[str],
        done: Callable[[int, Generation], None],
        hear: Callable[[int, str], None] | None,
    ) -> list[Generation]:
        self.network.eval()
        return generate(
            self.causal,
            self.template,
            asks,
            room=ROOM * self.token_budget,
            sampling=sampling,
            until=until,
            done=done,
            hear=hear,
        )

    def _ask(self, prompt: Ids, limit: int, seed: int) -> Ask:
        self._refuse_too_long(len(prompt) + 1)
        return Ask(prompt, min(limit, self.context - len(prompt)), seed)

    def merge(self) -> None:
        """Adds all adapters into the weights."""
        if self.wrapper is not None:
            self.network.causal = adapter.merge(self.wrapper)
            self.wrapper = None

    def save(self, folder: Path) -> None:
        """Writes weights and tokenizer in Hugging Face format."""
        self.causal.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _refuse_too_long(self, tokens: int) -> None:
        if tokens > self.context:
            raise ZephyrError(
                "a text is longer than the context of the model",
                found=f"{tokens} tokens",
                allowed=f"at most {self.context} tokens",
            )
