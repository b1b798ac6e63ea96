"""The canary: a few fixed prompts, answered greedily each time a training looks at its hold-out.

Losses and margins do not tell that answers have stopped ending, grow long, or say one thing over
and over. Decoding draws no random number and changes no weight, so that a training with a canary
ends with the same bits as one without.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from zephyr.model.adapter import merged
from zephyr.model.fork import Fork, Ids
from zephyr.model.model import Model

PROMPTS = 8
NGRAM = 4


@dataclass(frozen=True)
class Canary:
    """Prompts, and the most tokens of an answer; called with a step, it gives a row of metrics.

    The row holds the share of answers that `stopped` by themselves, their mean `length` in tokens
    without the end, the mean share of `repeated` n-grams, the seconds it took, and the `answers`.
    """

    model: Model
    prompts: Sequence[Ids]
    most: int

    def __call__(self, step: int) -> dict[str, Any]:
        start = time.monotonic()
        with merged(self.model.wrapper):
            answers = self.model.generate(self.prompts, max_new_tokens=self.most)
        return {
            "step": step,
            "split": "canary",
            "stopped": fmean(a.stopped for a in answers),
            "length": fmean(len(a.ids) for a in answers),
            "repeated": fmean(repeated(a.ids.tolist()) for a in answers),
            "seconds": round(time.monotonic() - start, 4),
            "answers": [{"text": a.text, "stopped": a.stopped} for a in answers],
        }

    @property
    def asked(self) -> list[str]:
        """The prompts as they are read, control tokens included."""
        return [self.model.tokenizer.decode(prompt.tolist()) for prompt in self.prompts]


def choose(forks: Sequence[Fork], seed: int, context: int) -> list[Ids]:
    """At most `PROMPTS` different prompts of `forks`, drawn by `seed`, with room for an answer."""
    order = np.random.default_rng([seed, PROMPTS]).permutation(len(forks))
    drawn = (forks[i].prompt for i in order)
    different = {prompt.tobytes(): prompt for prompt in drawn if len(prompt) < context}
    return list(different.values())[:PROMPTS]


def repeated(tokens: Sequence[int]) -> float:
    """The share of runs of `NGRAM` tokens that stood before: 1 - different runs / runs.

    An answer that is too short to hold a run repeats nothing.
    """
    runs = [tuple(tokens[at : at + NGRAM]) for at in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
