"""A model in twenty lines, whose tokens are characters."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from zephyr.model.example import Example, TokenIds, make_example, to_token_ids
from zephyr.records import Message, Pair

END = 0
"""The id of the end token."""


class Answer(NamedTuple):
    ids: TokenIds
    text: str
    finish_reason: str

    @property
    def is_complete(self) -> bool:
        return self.finish_reason != "length"


class Letters:
    """A tokenizer and a template: a token is a character, its id the code point."""

    bos_token_id = None
    eos_token_id = END

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(c) for c in text] for text in texts]}

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(chr(token) for token in tokens)

    def encode_prompt(self, messages: Sequence[Message]) -> TokenIds:
        return to_token_ids([ord(c) for m in messages for c in f"{m.role}: {m.content}\n"])

    def make_pair_example(self, pair: Pair) -> Example:
        sides = [[ord(c) for c in text] + [END] for text in (pair.chosen, pair.rejected)]
        return make_example(self.encode_prompt(pair.prompt), *sides)


class Fake:
    """Gives each token of `a completion the log-probability `likes(prompt, completion)`."""

    def __init__(
        self,
        likes: Callable[[str, str], float] = lambda prompt, completion: -math.log(50),
        writes: Callable[[str], str] = lambda prompt: "",
        context_length: int = 100_000,
    ) -> None:
        self.tokenizer = self.template = Letters()
        self.likes, self.writes, self.context_length = likes, writes, context_length
        self.asked: list[Example] = []
        self.given: list[dict[str, Any]] = []

    def logprobs(self, examples: Sequence[Example], **_: Any) -> list[list[Any]]:
        self.asked += examples
        text = self.tokenizer.decode
        return [
            [
                np.full(len(c.ids), self.likes(text(f.prompt), text(c.ids)), dtype=np.float32)
                for c in f.completions
            ]
            for f in examples
        ]

    def generate(
        self, prompts: Sequence[TokenIds], *, max_new_tokens: int, **given: Any
    ) -> list[Answer]:
        self.given.append(given)
        texts = [self.writes(self.tokenizer.decode(prompt)) for prompt in prompts]
        kept = [text[:max_new_tokens] for text in texts]
        return [
            Answer(to_token_ids([ord(c) for c in k]), k, "end token" if k == t else "length")
            for k, t in zip(kept, texts, strict=True)
        ]


@pytest.fixture
def fake() -> type[Fake]:
    return Fake
