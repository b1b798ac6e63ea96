"""A model as lm-evaluation-harness asks one: its requests become forks and prompts.

Texts are encoded and cut by the harness's rules, those of its class for Hugging Face models. An
answer ends at the stop strings of the task, or at the tokens that end an answer of this model.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from zephyr.errors import ZephyrError
from zephyr.evaluate.asking import Model
from zephyr.evaluate.ranking import Option, share_prompts, start_token
from zephyr.model.fork import ids
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import content_hash

if TYPE_CHECKING:
    from zephyr.model.generate import Generation

_HALF = math.log(0.5)
_HEEDED = frozenset({"until", "do_sample", "temperature", "top_p", "max_gen_toks"})


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness ships no types
    """`ended` says of each prompt how its answer ended, `cut` how many requests were too long."""

    def __init__(
        self, model: Model, settings: TaskSpec, seed: int, tasks: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model, self.settings, self.seed = model, settings, seed
        self.tokenizer = model.tokenizer
        self.ended: dict[str, str] = {}
        self.cut = 0
        self._asks_greedy = any(_asks_greedy(task) for task in tasks.values())

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return start_token(self.model)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The tokens of a text, with special tokens as the tokenizer adds them by default.

        A text that begins with the start token gets no second one.
        """
        if add_special_tokens is None and string.startswith(
            self.tokenizer.decode(self.prefix_token_id)
        ):
            add_special_tokens = False
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        encoded: list[int] = self.tokenizer(string, truncation=False, max_length=10**9, **how)[
            "input_ids"
        ]
        return encoded

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Sums of log-probabilities, and whether each continuation is the greedy answer."""
        options = [self._option(context, rest) for _, context, rest in requests]
        values = self._logprobs(options)
        greedy = self._greedy(options, values) if self._asks_greedy else [False] * len(options)
        return [(sum(found), same) for found, same in zip(values, greedy, strict=True)]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """The summed log-probability of each text, in windows that don't overlap."""
        options: list[Option] = []
        owners: list[int] = []
        for at, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.model.context,
                context_len=1,
            )
            for window in windows:
                options.append(self._option(*make_disjoint_window(window)))
                owners.append(at)
        sums = [0.0] * len(requests)
        for at, found in zip(owners, self._logprobs(options), strict=True):
            sums[at] += sum(found)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers; requests that ask for different settings are answered apart."""
        by_settings: dict[str, list[int]] = {}
        for at, request in enumerate(requests):
            by_settings.setdefault(repr(sorted(request.args[1].items())), []).append(at)
        texts = [""] * len(requests)
        for places in by_settings.values():
            told = normalize_gen_kwargs(requests[places[0]].args[1])
            contexts = [requests[at].args[0] for at in places]
            until = [stop for stop in _listed(told.pop("until", None)) if stop]
            for at, answer in zip(places, self._write(contexts, until, told), strict=True):
                text = self.tokenizer.decode(answer.ids.tolist(), skip_special_tokens=True)
                ends = [end for stop in until if (end := text.find(stop)) >= 0]
                texts[at] = text[: min(ends, default=len(text))]
                self.ended[requests[at].args[0]] = answer.ended
        return texts

    def _write(
        self, contexts: Sequence[str], until: Sequence[str], told: dict[str, Any]
    ) -> "list[Generation]":
        from zephyr.model.decode import Sampling  # imports torch

        foreign = {k: v for k, v in told.items() if k not in _HEEDED}
        most = self.settings.max_new_tokens or told["max_gen_toks"]
        room = self.model.context - most
        where = f"evaluate.tasks.{self.settings.key}"
        if foreign:
            raise ZephyrError(
                "this task of lm-eval wants answers chosen in a way that is not known here",
                where=where,
                found=", ".join(f"{k}: {v}" for k, v in foreign.items()),
                allowed=sorted(_HEEDED),
            )
        if room < 1:
            raise ZephyrError(
                "this task of lm-eval wants longer answers than the model's context",
                where=where,
                found=f"{most} tokens, context {self.model.context}",
                todo="set `max_new_tokens`",
            )
        encoded = [self.tok_encode(context) for context in contexts]
        self.cut += sum(len(tokens) > room for tokens in encoded)
        temperature = told["temperature"] if told["do_sample"] else 0.0
        return self.model.generate(
            [ids(tokens[-room:]) for tokens in encoded],
            max_new_tokens=most,
            sampling=Sampling(temperature, told.get("top_p", 1.0)),
            seeds=[int(content_hash(self.seed, context)[:12], 16) for context in contexts],
            until=until,
        )

    def _option(self, context: list[int], continuation: list[int]) -> Option:
        """The tokens that enter the network: the last of too many, as the harness keeps them."""
        if not 0 < len(continuation) <= self.model.context:
            raise ZephyrError(
                "lm-eval can't ask this: a continuation must have a token, and fit the context",
                where=f"evaluate.tasks.{self.settings.key}",
                found=f"{len(continuation)} tokens, context {self.model.context}",
            )
        room = self.model.context + 1 - len(continuation)
        self.cut += room < len(context)
        return Option(tuple(context[-room:]), tuple(continuation), room < len(context))

    def _logprobs(self, options: Sequence[Option]) -> list[list[float]]:
        forks, places = share_prompts(options, first=0)
        answers = self.model.logprobs(forks)
        values: list[list[float]] = [answers[f][c].tolist() for f, c in places]
        if broken := sum(not all(map(math.isfinite, found)) for found in values):
            raise ZephyrError(
                f"task {self.settings.name!r} has no score: log-probabilities are not all finite",
                found=f"{broken} of {len(values)} requests",
                todo="look at the loss of its training for NaN or inf; a lower `lr` may help",
            )
        return values

    def _greedy(self, options: Sequence[Option], values: Sequence[Sequence[float]]) -> list[bool]:
        """Whether a greedy answer would begin with each continuation.

        It does where each of its tokens has more than half of the probability; the others are
        written to see.
        """
        found = [min(logprobs) > _HALF for logprobs in values]
        open_ = [at for at, sure in enumerate(found) if not sure]
        written = self.model.generate(
            [ids(options[at].prompt) for at in open_],
            max_new_tokens=[len(options[at].continuation) for at in open_],
        )
        for at, answer in zip(open_, written, strict=True):
            found[at] = tuple(answer.ids.tolist()) == options[at].continuation
        return found


def _asks_greedy(task: Any) -> bool:
    """Whether a task looks at the flag; the usual metrics of multiple choice do not."""
    own = callable(task.get_config("process_results"))
    if task.OUTPUT_TYPE == "multiple_choice":
        return own or "exact_match" in task.aggregation()
    return bool(task.OUTPUT_TYPE == "loglikelihood")


def _listed(until: str | Sequence[str] | None) -> list[str]:
    if until is None:
        return []
    return [until] if isinstance(until, str) else list(until)
