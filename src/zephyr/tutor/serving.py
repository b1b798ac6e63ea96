"""Loads models for serving: models of one base share its weights (multi-LoRA)."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from zephyr.errors import ZephyrError
from zephyr.model.decoding import GREEDY, SamplingParams
from zephyr.model.example import Example, TokenIds
from zephyr.model.fp16_linear import to_fp16_weights
from zephyr.model.load import (
    Lineage,
    build_model,
    load_model,
    load_network,
    silence_libraries,
)
from zephyr.model.model import Logprobs, Model
from zephyr.model.multi_lora import MultiLora, can_batch_adapters
from zephyr.model.precision import Dtype, choose_dtype
from zephyr.model.template import ChatTemplate
from zephyr.model.tokenizer import load_tokenizer
from zephyr.records import Message
from zephyr.tutor.answer_stream import GenerationRequest
from zephyr.tutor.scheduler import ModelRunner, Scheduler

T = TypeVar("T")

TOKEN_BUDGET = 2048

PIECE_CHARACTERS = 8192
"""Characters of the pieces in which a long text is tokenized until it is known to be too long."""

_TOKENIZER_THREAD = ThreadPoolExecutor(1, "tokenizing")
"""One thread for all: a tokenizer is not thread-safe, and must not take all processors."""


async def run_tokenizer(function: Callable[[], T]) -> T:
    """Runs a function that encodes texts, away from the event loop, which answers everybody."""
    return await asyncio.get_running_loop().run_in_executor(_TOKENIZER_THREAD, function)


class ContextLengthError(ZephyrError):
    """A prompt leaves no room in the context; `param` is the field of the request (OpenAI's)."""

    def __init__(self, context_length: int, length: str, param: str) -> None:
        super().__init__(
            f"This model's maximum context length is {context_length} tokens. However, your "
            f"{param} resulted in {length}, which leave no room for an answer. "
            f"Please reduce the length of the {param}."
        )
        self.param = param


@dataclass(frozen=True)
class ServedModel:
    """A served model; `description` says in words what it is."""

    name: str
    description: str
    runner: ModelRunner
    model: Model
    scheduler: Scheduler

    @property
    def template(self) -> ChatTemplate:
        return self.model.template

    @property
    def context_length(self) -> int:
        """Context length: maximum tokens of prompt and completion together."""
        return self.model.context_length

    async def logprobs(self, examples: Sequence[Example]) -> list[Logprobs]:
        """Log-probabilities (natural log) of the tokens of every completion, in order.

        Raises:
            ZephyrError: an example is longer than the context.
        """

        def compute() -> list[Logprobs]:
            if self.runner.multi_lora is not None:
                self.runner.multi_lora.select_models([self.runner.model_names.index(self.name)])
            return self.model.logprobs(examples)

        return await self.scheduler.run_between_steps(compute)

    async def make_request(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        sampling: SamplingParams = GREEDY,
        seed: int = 0,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
        client: str = "",
    ) -> GenerationRequest:
        """Makes the generation request for the next answer of a conversation.

        By default an answer may fill the context.

        Raises:
            ContextLengthError: the conversation fills the context.
            ZephyrError: the model's template refuses the conversation.
        """
        prompt = await self._encode(
            [message.content for message in messages],
            partial(self.template.encode_prompt, messages),
            "messages",
        )
        return GenerationRequest(
            self.name,
            prompt,
            self._max_new_tokens(prompt, max_new_tokens),
            sampling,
            seed,
            tuple(stop),
            top_logprobs,
            client,
        )

    async def make_text_request(
        self, text: str, *, max_new_tokens: int, **options: Any
    ) -> GenerationRequest:
        """Makes the generation request for a text that goes on.

        Raises:
            ContextLengthError: the text fills the context.
        """
        encode = partial(self.template.encode_text, text)
        prompt = await self._encode([text], encode, "prompt")
        max_new_tokens = self._max_new_tokens(prompt, max_new_tokens)
        return GenerationRequest(
            self.name, prompt, max_new_tokens, is_text_completion=True, **options
        )

    def _max_new_tokens(self, prompt: TokenIds, requested: int | None) -> int:
        free_tokens = self.context_length - len(prompt)
        return free_tokens if requested is None else min(requested, free_tokens)

    async def _encode(
        self, texts: Sequence[str], encode: Callable[[], TokenIds], param: str
    ) -> TokenIds:
        """Encodes the texts of a prompt, unless they are known to be too long before.

        Raises:
            ContextLengthError: they fill the context.
        """
        error = partial(ContextLengthError, self.context_length, param=param)
        num_bytes = sum(len(text.encode()) for text in texts)
        if max_bytes := self.runner.token_bytes.max_bytes_per_token:
            least = num_bytes // max_bytes
            if least >= self.context_length:
                raise error(f"at least {least} tokens")
        prompt = await run_tokenizer(partial(self._encode_unless_long, texts, num_bytes, encode))
        if prompt is None:
            raise error(f"more than {self.context_length} tokens")
        if len(prompt) >= self.context_length:
            raise error(f"{len(prompt)} tokens")
        return prompt

    def _encode_unless_long(
        self, texts: Sequence[str], num_bytes: int, encode: Callable[[], TokenIds]
    ) -> TokenIds | None:
        """Encodes a prompt; None as soon as its pieces have twice the tokens of the context.

        Twice, for a text in pieces may have some tokens more than in one.
        """
        most = 2 * self.context_length
        if num_bytes > most:  # otherwise it can't have so many
            num_tokens = 0
            for text in texts:
                for at in range(0, len(text), PIECE_CHARACTERS):
                    piece = text[at : at + PIECE_CHARACTERS]
                    num_tokens += len(self.template.encode_text(piece))
                    if num_tokens > most:
                        return None
        return encode()


@dataclass(frozen=True)
class ServingEngine:
    """Serving engine: all served models by name, and their common scheduler."""

    models: dict[str, ServedModel]
    scheduler: Scheduler


def load_served_models(
    lineages: dict[str, Lineage],
    descriptions: dict[str, str],
    store: Path,
    *,
    batch: int,
    queue: int,
    dtype: Dtype | Literal["auto"] = "auto",
) -> ServingEngine:
    """Loads the models to serve, each base model once, and starts the scheduler.

    Raises:
        ZephyrError: weights can't be read.
    """
    silence_libraries()
    groups: dict[Any, list[str]] = {}
    for name, lineage in lineages.items():
        adapters = _adapter_paths(lineage, store)
        own_group = () if can_batch_adapters(adapters) else (name,)
        base = (lineage.weights, lineage.quantization, lineage.thinking)
        groups.setdefault((*base, *own_group), []).append(name)

    def load_all() -> dict[tuple[str, ...], tuple[ModelRunner, Model]]:
        return {
            tuple(names): _load_runner({name: lineages[name] for name in names}, store, dtype)
            for names in groups.values()
        }

    # Every computing thread has its own OpenMP pool while it lives. If pools have more threads than
    # there are cores, they sleep between matrix products instead of spinning: loading in a thread
    # that has ended leaves the cores to the scheduler's thread.
    with ThreadPoolExecutor(1) as executor:
        runners = executor.submit(load_all).result()
    scheduler = Scheduler([runner for runner, _ in runners.values()], batch=batch, queue=queue)
    served_models = {
        name: ServedModel(name, descriptions[name], network, model, scheduler)
        for names, (network, model) in runners.items()
        for name in names
    }
    scheduler.start()
    return ServingEngine({name: served_models[name] for name in lineages}, scheduler)


def _load_runner(
    lineages: dict[str, Lineage], store: Path, requested_dtype: Dtype | Literal["auto"]
) -> tuple[ModelRunner, Model]:
    """Loads the model runner of models that differ only in their LoRA adapters."""
    first = next(iter(lineages.values()))
    folder = first.weights_folder(store)
    dtype = choose_dtype(requested_dtype, folder)
    adapter_paths = [_adapter_paths(lineage, store) for lineage in lineages.values()]
    if not can_batch_adapters(adapter_paths[0]):
        model = load_model(first, store, token_budget=TOKEN_BUDGET, dtype=dtype, form="inference")
        return ModelRunner(model.causal, model.template, list(lineages)), model
    tokenizer = load_tokenizer(folder)
    causal = load_network(folder, first.quantization, dtype, "inference")
    if dtype == "float32":
        to_fp16_weights(causal)
    multi_lora = MultiLora(causal, adapter_paths) if any(adapter_paths) else None
    model = build_model(causal, tokenizer, token_budget=TOKEN_BUDGET, thinking=first.thinking)
    return ModelRunner(causal, model.template, list(lineages), multi_lora), model


def _adapter_paths(lineage: Lineage, store: Path) -> list[Path]:
    return [store / path for path in lineage.adapters]
