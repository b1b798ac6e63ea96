"""Loads models for serving: models of one base share its weights (multi-LoRA)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zephyr.errors import ZephyrError
from zephyr.model.decoding import GREEDY, SamplingParams
from zephyr.model.example import Example
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
from zephyr.tutor.scheduler import GenerationRequest, ModelRunner, Scheduler

TOKEN_BUDGET = 2048


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

    def make_request(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        sampling: SamplingParams = GREEDY,
        seed: int = 0,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
    ) -> GenerationRequest:
        """Makes the generation request for the next answer of a conversation.

        By default an answer may fill the context.

        Raises:
            ZephyrError: the conversation fills the context, or its template refuses it.
        """
        prompt = self.template.encode_prompt(messages)
        free_tokens = self.context_length - len(prompt)
        if free_tokens < 1:
            raise ZephyrError(
                f"the conversation is longer than the context of {self.name}",
                found=f"{len(prompt)} tokens",
                allowed=f"at most {self.context_length - 1} tokens, "
                "so that there is room for an answer",
                todo="ask in fewer words, or begin a new conversation",
            )
        allowed_tokens = free_tokens if max_new_tokens is None else min(max_new_tokens, free_tokens)
        return GenerationRequest(
            self.name, prompt, allowed_tokens, sampling, seed, tuple(stop), top_logprobs
        )


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
        model = load_model(first, store, token_budget=TOKEN_BUDGET, dtype=dtype, form="answers")
        return ModelRunner(model.causal, model.template, list(lineages)), model
    tokenizer = load_tokenizer(folder)
    causal = load_network(folder, first.quantization, dtype, "answers")
    if dtype == "float32":
        to_fp16_weights(causal)
    multi_lora = MultiLora(causal, adapter_paths) if any(adapter_paths) else None
    model = build_model(causal, tokenizer, token_budget=TOKEN_BUDGET, thinking=first.thinking)
    return ModelRunner(causal, model.template, list(lineages), multi_lora), model


def _adapter_paths(lineage: Lineage, store: Path) -> list[Path]:
    return [store / path for path in lineage.adapters]
