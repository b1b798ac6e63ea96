"""A model: network, tokenizer and template, with two verbs, `logprobs` and `generate`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.fork import Fork, Ids
from zephyr.model.generate import GREEDY, Generation, Sampling, decode
from zephyr.model.layout import Layout, lay_out, pack
from zephyr.model.logprobs import ForkNetwork
from zephyr.model.template import Template


@dataclass
class Model:
    """A network that answers: `logprobs` of forks, and `generate` from prompts.

    `wrapper` is PEFT's, where there are adapters; `layout` is the faster one that this network
    computes right.
    """

    network: ForkNetwork
    tokenizer: Any
    template: Template
    context: int
    layout: Layout
    token_budget: int
    wrapper: Any = None

    @property
    def causal(self) -> Any:
        """The Hugging Face network inside."""
        return self.network.causal

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def logprobs(self, forks: Sequence[Fork]) -> list[list[NDArray[np.float32]]]:
        """Natural-log probabilities of the supervised tokens of every continuation, in order.

        Raises:
            ZephyrError: a fork is longer than the context of the model.
        """
        self._refuse_too_long(max((f.longest for f in forks), default=0))
        self.network.eval()
        results: list[list[NDArray[np.float32]]] = [[] for _ in forks]
        for members in pack(forks, self.token_budget, self.layout):
            batch = lay_out([forks[i] for i in members], self.layout).to(self.device)
            values = self.network(batch).cpu().numpy()
            owner = batch.owner.cpu().numpy()
            ordered = np.argsort(owner, kind="stable")
            bounds = np.searchsorted(owner[ordered], np.arange(1, batch.continuations))
            parts = iter(np.split(values[ordered], bounds))
            for i in members:
                results[i] = [next(parts) for _ in forks[i].continuations]
        return results

    def generate(
        self, prompts: Sequence[Ids], *, max_new_tokens: int, sampling: Sampling = GREEDY
    ) -> list[Generation]:
        """An answer to each prompt, greedily unless `sampling` says otherwise.

        An answer that would leave the context is cut there, and has not stopped.

        Raises:
            ZephyrError: a prompt fills the whole context.
        """
        self.network.eval()
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        results: list[Generation | None] = [None] * len(prompts)
        while order:
            longest = len(prompts[order[0]])
            self._refuse_too_long(longest + 1)
            most = max(1, 4 * self.token_budget // (longest + max_new_tokens))
            members, order = order[:most], order[most:]
            answers = decode(
                self.causal,
                [prompts[i] for i in members],
                stops=self.template.stops,
                limits=[min(max_new_tokens, self.context - len(prompts[i])) for i in members],
                sampling=sampling,
            )
            for i, answer in zip(members, answers, strict=True):
                results[i] = Generation(
                    answer.ids, self.template.decode(answer.ids), answer.stopped
                )
        return [r for r in results if r is not None]

    def stream(
        self,
        prompt: Ids,
        *,
        max_new_tokens: int,
        write: Callable[[str], None],
        sampling: Sampling = GREEDY,
    ) -> Generation:
        """The answer to one prompt, its text given to `write` piece by piece as it is made.

        A piece never ends within a character.

        Raises:
            ZephyrError: the prompt fills the whole context.
        """
        self._refuse_too_long(len(prompt) + 1)
        self.network.eval()
        made: list[int] = []
        written = ""

        def hear(_: int, token: int) -> None:
            nonlocal written
            made.append(token)
            text = self.template.decode(np.array(made, dtype=np.int32))
            if not text.endswith("\ufffd"):
                write(text[len(written) :])
                written = text

        room = min(max_new_tokens, self.context - len(prompt))
        (answer,) = decode(
            self.causal,
            [prompt],
            stops=self.template.stops,
            limits=[room],
            sampling=sampling,
            on_token=hear,
        )
        text = self.template.decode(answer.ids)
        write(text[len(written) :])
        return Generation(answer.ids, text, answer.stopped)

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
