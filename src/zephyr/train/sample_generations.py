"""Sample generations: a few fixed prompts, decoded greedily at each evaluation in training.

Losses and reward margins do not show that completions no longer end with EOS, grow long, or repeat
themselves. Greedy decoding draws no random number and changes no weight, so that a training with
sample generations gives the same bits as one without.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from zephyr.errors import ZephyrError
from zephyr.model.adapter import temporarily_merged
from zephyr.model.example import Example, TokenIds
from zephyr.model.model import Model
from zephyr.model.tokenizer import describe_error

MAX_PROMPTS = 8
NGRAM_SIZE = 4


@dataclass
class SampleGenerations:
    """Evaluation callback that generates from fixed prompts; gives a metric row for a step.

    The row holds the share of completions that `stopped` by themselves, their mean `length` in
    tokens without the end, the mean share of `repeated` n-grams, the seconds, and the `answers`.
    Where generating fails, `on_failure` gets the reason once, and no row is given from then on: a
    training is worth more than its samples.
    """

    model: Model
    prompts: Sequence[TokenIds]
    max_new_tokens: int
    on_failure: Callable[[str], None] = lambda reason: None
    has_failed: bool = False

    def __call__(self, step: int) -> dict[str, Any] | None:
        if self.has_failed:
            return None
        try:
            return self._generate(step)
        except Exception as error:  # noqa: BLE001  # whatever it is, no weight has changed
            self.has_failed = True
            reason = error.problem if isinstance(error, ZephyrError) else describe_error(error)
            self.on_failure(reason)
            return None

    def _generate(self, step: int) -> dict[str, Any]:
        start = time.monotonic()
        with temporarily_merged(self.model.peft_model):
            completions = self.model.generate(self.prompts, max_new_tokens=self.max_new_tokens)
        return {
            "step": step,
            "split": "canary",
            "stopped": fmean(a.is_complete for a in completions),
            "length": fmean(len(a.ids) for a in completions),
            "repeated": fmean(repeated_ngram_share(a.ids.tolist()) for a in completions),
            "seconds": round(time.monotonic() - start, 4),
            "answers": [{"text": a.text, "stopped": a.is_complete} for a in completions],
        }

    @property
    def prompt_texts(self) -> list[str]:
        """The prompts decoded to text, control tokens included."""
        return [self.model.tokenizer.decode(prompt.tolist()) for prompt in self.prompts]


def choose_prompts(examples: Sequence[Example], seed: int, context_length: int) -> list[TokenIds]:
    """Chooses up to `MAX_PROMPTS` different prompts by `seed`, shorter than the context length."""
    order = np.random.default_rng([seed, MAX_PROMPTS]).permutation(len(examples))
    shuffled_prompts = (examples[i].prompt for i in order)
    unique_prompts = {
        prompt.tobytes(): prompt for prompt in shuffled_prompts if len(prompt) < context_length
    }
    return list(unique_prompts.values())[:MAX_PROMPTS]


def repeated_ngram_share(tokens: Sequence[int]) -> float:
    """Share of repeated n-grams (of `NGRAM_SIZE` tokens): 1 - unique / all.

    A completion too short to hold an n-gram repeats nothing.
    """
    ngrams = [tuple(tokens[at : at + NGRAM_SIZE]) for at in range(len(tokens) - NGRAM_SIZE + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
