"""Models of a recipe in memory, ready to answer: those of one base share it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zephyr.errors import ZephyrError
from zephyr.model.decode import GREEDY, Sampling
from zephyr.model.fork import Fork
from zephyr.model.half import halve
from zephyr.model.load import Lineage, assemble, load, load_network, load_tokenizer, quiet
from zephyr.model.mixed import Mixed, can_mix
from zephyr.model.model import Logprobs, Model
from zephyr.model.precision import Dtype, choose
from zephyr.model.template import Template
from zephyr.records import Message
from zephyr.tutor.scheduler import Network, Request, Scheduler

TOKEN_BUDGET = 2048


@dataclass(frozen=True)
class Served:
    """A model that answers; `about` says in words what it is."""

    name: str
    about: str
    network: Network
    model: Model
    scheduler: Scheduler

    @property
    def template(self) -> Template:
        return self.model.template

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return self.model.context

    async def logprobs(self, forks: Sequence[Fork]) -> list[Logprobs]:
        """Natural-log probabilities of the tokens of every continuation, in order.

        Raises:
            ZephyrError: a fork is longer than the context.
        """

        def work() -> list[Logprobs]:
            if self.network.mixed is not None:
                self.network.mixed.choose([self.network.members.index(self.name)])
            return self.model.logprobs(forks)

        return await self.scheduler.run(work)

    def request(
        self,
        messages: Sequence[Message],
        *,
        limit: int | None = None,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        until: Sequence[str] = (),
        alternatives: int | None = None,
    ) -> Request:
        """What is asked of the scheduler so that the model answers a conversation.

        Without a limit an answer may fill the context.

        Raises:
            ZephyrError: the conversation fills the context, or its template refuses it.
        """
        prompt = self.template.prompt(messages)
        room = self.context - len(prompt)
        if room < 1:
            raise ZephyrError(
                f"the conversation is longer than the context of {self.name}",
                found=f"{len(prompt)} tokens",
                allowed=f"at most {self.context - 1} tokens, so that there is room for an answer",
                todo="ask in fewer words, or begin a new conversation",
            )
        most = room if limit is None else min(limit, room)
        return Request(self.name, prompt, most, sampling, seed, tuple(until), alternatives)


@dataclass(frozen=True)
class Serving:
    """All models that are served, by name, and the scheduler that they share."""

    models: dict[str, Served]
    scheduler: Scheduler


def open_models(
    lineages: dict[str, Lineage],
    about: dict[str, str],
    store: Path,
    *,
    batch: int,
    queue: int,
    dtype: Dtype | Literal["auto"] = "auto",
) -> Serving:
    """Loads models, each base once, and starts to answer.

    Raises:
        ZephyrError: weights can't be read.
    """
    quiet()
    families: dict[Any, list[str]] = {}
    for name, lineage in lineages.items():
        adapters = _adapters(lineage, store)
        alone = () if can_mix(adapters) else (name,)
        families.setdefault((lineage.weights, lineage.load, *alone), []).append(name)

    def load_all() -> dict[tuple[str, ...], tuple[Network, Model]]:
        return {
            tuple(names): _open({name: lineages[name] for name in names}, store, dtype)
            for names in families.values()
        }

    # Every thread that computes has helpers of its own in OpenMP, for as long as it lives. Where
    # these are more than the processors, all of them sleep between products instead of waiting
    # awake: one that has ended leaves the processors to the thread that decodes.
    with ThreadPoolExecutor(1) as opening:
        made = opening.submit(load_all).result()
    scheduler = Scheduler([network for network, _ in made.values()], batch=batch, queue=queue)
    found = {
        name: Served(name, about[name], network, model, scheduler)
        for names, (network, model) in made.items()
        for name in names
    }
    scheduler.start()
    return Serving({name: found[name] for name in lineages}, scheduler)


def _open(
    lineages: dict[str, Lineage], store: Path, wanted: Dtype | Literal["auto"]
) -> tuple[Network, Model]:
    """The network of models that differ in their adapters alone."""
    first = next(iter(lineages.values()))
    folder = first.folder(store)
    dtype = choose(wanted, folder)
    stacks = [_adapters(lineage, store) for lineage in lineages.values()]
    if not can_mix(stacks[0]):
        model = load(first, store, token_budget=TOKEN_BUDGET, dtype=dtype, form="answers")
        return Network(model.causal, model.template, list(lineages)), model
    tokenizer = load_tokenizer(folder)
    causal = load_network(folder, first.load, dtype, "answers")
    if dtype == "float32":
        halve(causal)
    mixed = Mixed(causal, stacks) if any(stacks) else None
    model = assemble(causal, tokenizer, token_budget=TOKEN_BUDGET)
    return Network(causal, model.template, list(lineages), mixed), model


def _adapters(lineage: Lineage, store: Path) -> list[Path]:
    return [store / path for path in lineage.adapters]
