"""A fake model whose tokens are characters."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from zephyr.model.example import Example, TokenIds, make_example, to_token_ids
from zephyr.records import Chat, Message, Pair

END_TOKEN_ID = 0
"""The id of the end token."""


class FakeGeneration(NamedTuple):
    ids: TokenIds
    text: str
    finish_reason: str

    @property
    def is_complete(self) -> bool:
        return self.finish_reason != "length"


class CharTokenizer:
    """A tokenizer and a template: a token is a character, its id the code point."""

    start_ids = ()
    thinking = "off"
    bos_token_id = None
    eos_token_id = END_TOKEN_ID

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(c) for c in text] for text in texts]}

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(chr(token) for token in tokens)

    def encode_prompt(self, messages: Sequence[Message]) -> TokenIds:
        return to_token_ids([ord(c) for m in messages for c in f"{m.role}: {m.content}\n"])

    def make_chat_example(self, chat: Chat) -> Example:
        *prompt, answer = chat.messages
        ids = [ord(c) for c in answer.content] + [END_TOKEN_ID]
        return make_example(self.encode_prompt(prompt), ids)

    def make_pair_example(self, pair: Pair) -> Example:
        sides = [[ord(c) for c in text] + [END_TOKEN_ID] for text in (pair.chosen, pair.rejected)]
        return make_example(self.encode_prompt(pair.prompt), *sides)


class FakeModel:
    """Gives each token of a completion the log-probability `logprob_fn(prompt, completion)`."""

    def __init__(
        self,
        logprob_fn: Callable[[str, str], float] = lambda prompt, completion: -math.log(50),
        answer_fn: Callable[[str], str] = lambda prompt: "",
        context_length: int = 100_000,
    ) -> None:
        self.tokenizer = self.template = CharTokenizer()
        self.logprob_fn, self.answer_fn, self.context_length = logprob_fn, answer_fn, context_length
        self.scored_examples: list[Example] = []
        self.generate_kwargs: list[dict[str, Any]] = []

    def logprobs(self, examples: Sequence[Example], **_: Any) -> list[list[Any]]:
        self.scored_examples += examples
        text = self.tokenizer.decode
        return [
            [
                np.full(len(c.ids), self.logprob_fn(text(f.prompt), text(c.ids)), dtype=np.float32)
                for c in f.completions
            ]
            for f in examples
        ]

    def generate(
        self, prompts: Sequence[TokenIds], *, max_new_tokens: int, **kwargs: Any
    ) -> list[FakeGeneration]:
        self.generate_kwargs.append(kwargs)
        texts = [self.answer_fn(self.tokenizer.decode(prompt)) for prompt in prompts]
        generated = [text[:max_new_tokens] for text in texts]
        return [
            FakeGeneration(
                to_token_ids([ord(c) for c in k]), k, "end token" if k == t else "length"
            )
            for k, t in zip(generated, texts, strict=True)
        ]


@pytest.fixture
def fake_model() -> type[FakeModel]:
    return FakeModel
