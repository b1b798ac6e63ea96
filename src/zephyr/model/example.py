"""A training or scoring example: a prompt, and completions with loss masks; a network's input.

Supervised fine-tuning is an example with one completion, DPO with two, multiple choice with one
for each option, perplexity one after a single token of prompt.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

TokenIds = NDArray[np.int32]
"""Token ids [T]."""
LossMask = NDArray[np.bool_]
"""Loss mask [T]: True for tokens that count in the loss (label -100 elsewhere, in HF terms)."""


def to_token_ids(values: ArrayLike) -> TokenIds:
    """Token ids as an array [T] of int32."""
    return np.asarray(values, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """A completion: token ids [T] that follow a prompt; `loss_mask` [T] marks those that count."""

    ids: TokenIds
    loss_mask: LossMask


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """An example: a prompt of at least one token, and one or more completions of at least one."""

    prompt: TokenIds
    completions: tuple[Completion, ...]

    def __post_init__(self) -> None:
        assert len(self.prompt) > 0, "the first token of a completion needs one before it"
        assert self.completions, "an example has a completion"
        assert all(len(c.ids) > 0 for c in self.completions), "a completion has a token"

    @property
    def tree_length(self) -> int:
        """Tokens that enter a network in the `tree` layout, where the prompt is stored once.

        The last token of a completion is predicted and never read.
        """
        return len(self.prompt) + sum(len(c.ids) - 1 for c in self.completions)

    @property
    def max_sequence_length(self) -> int:
        """Tokens that enter a network for the prompt and its longest completion."""
        return len(self.prompt) + max(len(c.ids) for c in self.completions) - 1

    @property
    def num_loss_tokens(self) -> int:
        """How many tokens count in the loss (are True in a loss mask)."""
        return int(sum(c.loss_mask.sum() for c in self.completions))


def make_example(prompt: ArrayLike, *completions: ArrayLike) -> Example:
    """Makes an example with a loss mask of True for all completion tokens."""
    return Example(
        to_token_ids(prompt),
        tuple(
            Completion(to_token_ids(c), np.ones(np.shape(c), dtype=np.bool_)) for c in completions
        ),
    )


def examples_equal(a: Example, b: Example) -> bool:
    """Whether two examples hold the same token ids and loss masks."""

    def arrays(example: Example) -> list[Any]:
        return [example.prompt, *(x for c in example.completions for x in (c.ids, c.loss_mask))]

    left, right = arrays(a), arrays(b)
    return len(left) == len(right) and all(map(np.array_equal, left, right))
