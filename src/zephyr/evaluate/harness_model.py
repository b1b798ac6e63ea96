"""lm-evaluation-harness adapter (`TemplateLM`): runs lm-eval requests on an EvalModel.

Texts are tokenized and truncated as in lm-eval's `HFLM`. An answer ends at the stop strings of the
task (`until`), or at a stop token of the model.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from zephyr.errors import ZephyrError
from zephyr.evaluate.interface import EvalModel
from zephyr.evaluate.ranking import OptionTokens, merge_same_prompts, start_token_id
from zephyr.model.example import to_token_ids
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import content_hash

if TYPE_CHECKING:
    from zephyr.model.generate import Generation

_LOG_HALF = math.log(0.5)
_SUPPORTED_GEN_KWARGS = frozenset({"until", "do_sample", "temperature", "top_p", "max_gen_toks"})


class LmEvalModel(TemplateLM):  # type: ignore[misc]  # the harness ships no types
    """lm-eval `LM` on an EvalModel; `finish_reasons` by prompt, `truncated_count` of requests."""

    def __init__(
        self, model: EvalModel, settings: TaskSpec, seed: int, tasks: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model, self.settings, self.seed = model, settings, seed
        self.tokenizer = model.tokenizer
        self.finish_reasons: dict[str, str] = {}
        self.truncated_count = 0
        self._needs_greedy_flags = any(_reads_greedy_flag(task) for task in tasks.values())

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return start_token_id(self.model)

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
        """Token ids of a text, with special tokens as the tokenizer adds them by default.

        A text that begins with the start token gets no second one.
        """
        if add_special_tokens is None and string.startswith(
            self.tokenizer.decode(self.prefix_token_id)
        ):
            add_special_tokens = False
        tokenizer_kwargs = (
            {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        )
        encoded: list[int] = self.tokenizer(
            string, truncation=False, max_length=10**9, **tokenizer_kwargs
        )["input_ids"]
        return encoded

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each completion, and whether greedy decoding would generate it."""
        options = [self._make_option(context, rest) for _, context, rest in requests]
        values = self._completion_logprobs(options)
        greedy = (
            self._greedy_flags(options, values)
            if self._needs_greedy_flags
            else [False] * len(options)
        )
        return [(sum(found), same) for found, same in zip(values, greedy, strict=True)]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Rolling log-likelihood: the summed logprobs of each text, in disjoint windows."""
        options: list[OptionTokens] = []
        request_indices: list[int] = []
        for at, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.model.context_length,
                context_len=1,
            )
            for window in windows:
                options.append(self._make_option(*make_disjoint_window(window)))
                request_indices.append(at)
        summed_logprobs = [0.0] * len(requests)
        for at, found in zip(request_indices, self._completion_logprobs(options), strict=True):
            summed_logprobs[at] += sum(found)
        return summed_logprobs

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Generates answers up to the stop strings; requests are grouped by their gen_kwargs."""
        indices_by_kwargs: dict[str, list[int]] = {}
        for at, request in enumerate(requests):
            indices_by_kwargs.setdefault(repr(sorted(request.args[1].items())), []).append(at)
        texts = [""] * len(requests)
        for indices in indices_by_kwargs.values():
            gen_kwargs = normalize_gen_kwargs(requests[indices[0]].args[1])
            contexts = [requests[at].args[0] for at in indices]
            stop_strings = [stop for stop in _as_list(gen_kwargs.pop("until", None)) if stop]
            for at, answer in zip(
                indices, self._generate_answers(contexts, stop_strings, gen_kwargs), strict=True
            ):
                text = self.tokenizer.decode(answer.ids.tolist(), skip_special_tokens=True)
                ends = [end for stop in stop_strings if (end := text.find(stop)) >= 0]
                texts[at] = text[: min(ends, default=len(text))]
                self.finish_reasons[requests[at].args[0]] = answer.finish_reason
        return texts

    def _generate_answers(
        self, contexts: Sequence[str], stop: Sequence[str], gen_kwargs: dict[str, Any]
    ) -> "list[Generation]":
        from zephyr.model.decoding import SamplingParams  # imports torch

        unsupported = {k: v for k, v in gen_kwargs.items() if k not in _SUPPORTED_GEN_KWARGS}
        max_new_tokens = self.settings.max_new_tokens or gen_kwargs["max_gen_toks"]
        max_prompt_tokens = self.model.context_length - max_new_tokens
        where = f"evaluate.tasks.{self.settings.key}"
        if unsupported:
            raise ZephyrError(
                "this task of lm-eval wants answers chosen in a way that is not known here",
                where=where,
                found=", ".join(f"{k}: {v}" for k, v in unsupported.items()),
                allowed=sorted(_SUPPORTED_GEN_KWARGS),
            )
        if max_prompt_tokens < 1:
            raise ZephyrError(
                "this task of lm-eval wants longer answers than the model's context",
                where=where,
                found=f"{max_new_tokens} tokens, context {self.model.context_length}",
                todo="set `max_new_tokens`",
            )
        encoded = [self.tok_encode(context) for context in contexts]
        self.truncated_count += sum(len(tokens) > max_prompt_tokens for tokens in encoded)
        temperature = gen_kwargs["temperature"] if gen_kwargs["do_sample"] else 0.0
        return self.model.generate(
            [to_token_ids(tokens[-max_prompt_tokens:]) for tokens in encoded],
            max_new_tokens=max_new_tokens,
            sampling=SamplingParams(temperature, gen_kwargs.get("top_p", 1.0)),
            seeds=[int(content_hash(self.seed, context)[:12], 16) for context in contexts],
            stop=stop,
        )

    def _make_option(self, context: list[int], completion: list[int]) -> OptionTokens:
        """Prompt and completion token ids; a long prompt is truncated from the left."""
        if not 0 < len(completion) <= self.model.context_length:
            raise ZephyrError(
                "lm-eval can't ask this: a continuation must have a token, and fit the context",
                where=f"evaluate.tasks.{self.settings.key}",
                found=f"{len(completion)} tokens, context {self.model.context_length}",
            )
        max_prompt_tokens = self.model.context_length + 1 - len(completion)
        self.truncated_count += max_prompt_tokens < len(context)
        return OptionTokens(
            tuple(context[-max_prompt_tokens:]), tuple(completion), max_prompt_tokens < len(context)
        )

    def _completion_logprobs(self, options: Sequence[OptionTokens]) -> list[list[float]]:
        examples, completion_indices = merge_same_prompts(options, first_index=0)
        answers = self.model.logprobs(examples)
        values: list[list[float]] = [answers[f][c].tolist() for f, c in completion_indices]
        if nonfinite_count := sum(not all(map(math.isfinite, found)) for found in values):
            raise ZephyrError(
                f"task {self.settings.name!r} has no score: log-probabilities are not all finite",
                found=f"{nonfinite_count} of {len(values)} requests",
                todo="look at the loss of its training for NaN or inf; a lower `lr` may help",
            )
        return values

    def _greedy_flags(
        self, options: Sequence[OptionTokens], values: Sequence[Sequence[float]]
    ) -> list[bool]:
        """Whether greedy decoding would begin with each completion.

        It does if each of its tokens has a probability above one half; for the others, the answer
        is generated and compared.
        """
        flags = [min(logprobs) > _LOG_HALF for logprobs in values]
        unsure_indices = [at for at, sure in enumerate(flags) if not sure]
        generations = self.model.generate(
            [to_token_ids(options[at].prompt) for at in unsure_indices],
            max_new_tokens=[len(options[at].completion) for at in unsure_indices],
        )
        for at, answer in zip(unsure_indices, generations, strict=True):
            flags[at] = tuple(answer.ids.tolist()) == options[at].completion
        return flags


def _reads_greedy_flag(task: Any) -> bool:
    """Whether a task reads the is-greedy flag; most multiple-choice metrics do not."""
    has_own_scoring = callable(task.get_config("process_results"))
    if task.OUTPUT_TYPE == "multiple_choice":
        return has_own_scoring or "exact_match" in task.aggregation()
    return bool(task.OUTPUT_TYPE == "loglikelihood")


def _as_list(stop: str | Sequence[str] | None) -> list[str]:
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else list(stop)
