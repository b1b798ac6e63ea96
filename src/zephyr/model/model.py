"""A language model: network, tokenizer and chat template, with `logprobs` and `generate`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.attention_config import longrope_limit
from zephyr.model.batching import Batch, Layout, collate, pack_batches
from zephyr.model.decoding import GREEDY, SamplingParams
from zephyr.model.example import Example, TokenIds
from zephyr.model.generate import Generation, GenerationRequest, generate
from zephyr.model.kv_cache import cache_argument_name
from zephyr.model.logprobs import LogprobNetwork
from zephyr.model.prefix_cache import CachedPrefix, group_by_prefix
from zephyr.model.template import ChatTemplate

Logprobs = list[NDArray[np.float32]]
"""Log-probabilities (natural) of each completion of an example: its loss-mask tokens, [N]."""


def do_nothing(at: int, result: Any) -> None:
    """The default callback for a finished completion: does nothing."""


DECODE_BUDGET_FACTOR = 4
"""How many times the token budget of a forward pass the KV cache of a decode batch may hold."""


@dataclass
class Model:
    """A loaded language model: `logprobs` of examples, and `generate` from prompts.

    `peft_model` is PEFT's, where there are adapters; `layout` is the fastest batch layout that this
    network computes right, and `shares_prefixes` says whether it supports prefix caching.
    """

    network: LogprobNetwork
    tokenizer: Any
    template: ChatTemplate
    context_length: int
    layout: Layout
    token_budget: int
    peft_model: Any = None
    shares_prefixes: bool = False

    @property
    def causal(self) -> Any:
        """The Hugging Face causal LM (`AutoModelForCausalLM`) inside."""
        return self.network.causal

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def logprobs(
        self, examples: Sequence[Example], *, on_done: Callable[[int, Logprobs], None] = do_nothing
    ) -> list[Logprobs]:
        """Log-probabilities [N] of the loss-mask tokens of every completion, in order.

        A shared prefix of prompts is computed once. `on_done(i, values)` is called as soon as those
        of an example are known.

        Raises:
            ZephyrError: an example is longer than the context of the model.
        """
        self._check_fits_context(max((e.max_sequence_length for e in examples), default=0))
        self.network.eval()
        results: list[Logprobs] = [[] for _ in examples]
        for indices, batch, past in self._batches(examples):
            values = self.network(batch, **past).cpu().numpy()
            owner = batch.completion_index.cpu().numpy()
            ordered = np.argsort(owner, kind="stable")
            bounds = np.searchsorted(owner[ordered], np.arange(1, batch.num_completions))
            parts = iter(np.split(values[ordered], bounds))
            for i in indices:
                results[i] = [next(parts) for _ in examples[i].completions]
                on_done(i, results[i])
        return results

    def _batches(
        self, examples: Sequence[Example]
    ) -> Iterator[tuple[list[int], Batch, dict[str, Any]]]:
        """Indices of examples, their batch, and its prefix's KV cache as a keyword argument."""
        groups, ungrouped = (
            group_by_prefix(examples) if self.shares_prefixes else ([], list(range(len(examples))))
        )
        cache_argument = cache_argument_name(self.causal)
        for group in groups:
            prefix = CachedPrefix(self.causal, cache_argument, group.prefix, self.device)
            for indices, batch in prefix.suffix_batches(group, examples):
                yield indices, batch.to(self.device), {cache_argument: prefix.cache}
        others = [examples[i] for i in ungrouped]
        for indices in pack_batches(others, self.token_budget, self.layout):
            batch = collate([others[i] for i in indices], self.layout)
            yield [ungrouped[i] for i in indices], batch.to(self.device), {}

    def generate(
        self,
        prompts: Sequence[TokenIds],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: SamplingParams = GREEDY,
        seeds: Sequence[int] | None = None,
        stop: Sequence[str] = (),
        on_done: Callable[[int, Generation], None] = do_nothing,
    ) -> list[Generation]:
        """Generates a completion of each prompt, greedily unless `sampling` says otherwise.

        `seeds` are for sampling, one for each prompt; `stop` are strings that end a completion. One
        that would exceed the context length is truncated there, with finish reason "length".
        `on_done(i, generation)` is called as soon as one is finished.

        Raises:
            ZephyrError: a prompt fills the whole context.
        """
        max_tokens = (
            [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        )
        requests = [
            self._make_request(prompt, max_tokens_each, seed)
            for prompt, max_tokens_each, seed in zip(
                prompts, max_tokens, seeds or [0] * len(prompts), strict=True
            )
        ]
        return self._generate(requests, sampling, stop, on_done, None)

    def stream(
        self,
        prompt: TokenIds,
        *,
        max_new_tokens: int,
        on_text: Callable[[str], None],
        sampling: SamplingParams = GREEDY,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Generation:
        """Generates for one prompt, and streams its text to `on_text` chunk by chunk.

        A chunk of text never ends within a character.

        Raises:
            ZephyrError: the prompt fills the whole context.
        """
        request = self._make_request(prompt, max_new_tokens, seed)

        def forward_text(_: int, new_text: str) -> None:
            if new_text:
                on_text(new_text)

        (answer,) = self._generate([request], sampling, stop, do_nothing, forward_text)
        return answer

    def _generate(
        self,
        requests: Sequence[GenerationRequest],
        sampling: SamplingParams,
        stop: Sequence[str],
        on_done: Callable[[int, Generation], None],
        on_text: Callable[[int, str], None] | None,
    ) -> list[Generation]:
        self.network.eval()
        return generate(
            self.causal,
            self.template,
            requests,
            token_budget=DECODE_BUDGET_FACTOR * self.token_budget,
            sampling=sampling,
            stop=stop,
            on_done=on_done,
            on_text=on_text,
        )

    def _make_request(self, prompt: TokenIds, max_new_tokens: int, seed: int) -> GenerationRequest:
        """A generation request whose tokens fit in the context."""
        self._check_fits_context(len(prompt) + 1)
        return GenerationRequest(
            prompt, min(max_new_tokens, self.context_length - len(prompt)), seed
        )

    def merge_adapters(self) -> None:
        """Merges all LoRA adapters into the base weights."""
        if self.peft_model is not None:
            self.network.causal = adapter.merge_adapters(self.peft_model)
            self.peft_model = None

    def save(self, folder: Path) -> None:
        """Writes weights and tokenizer in Hugging Face format."""
        self.causal.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _check_fits_context(self, tokens: int) -> None:
        if tokens > self.context_length:
            raise ZephyrError(
                "a text is longer than the context of the model",
                found=f"{tokens} tokens",
                allowed=f"at most {self.context_length} tokens"
                + (
                    " (longrope: beyond them a long text would change all others of its batch)"
                    if longrope_limit(self.causal.config)
                    else ""
                ),
            )
