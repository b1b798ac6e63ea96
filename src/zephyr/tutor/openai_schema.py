"""Request schemas of the OpenAI-compatible API (pydantic); unsupported fields are an error."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from zephyr.data.readers.parsing import UnreadableRowError, check_conversation
from zephyr.records import Message

MAX_TURNS = 200
MAX_TEXT_LENGTH = 1 << 20


def check_turn_order(messages: Sequence[Message]) -> None:
    """Checks that roles alternate, and that the last message is the user's.

    Raises:
        ValueError: they don't, or it is not.
    """
    try:
        check_conversation(messages, "user")
    except UnreadableRowError as error:
        raise ValueError(f"messages: {error}") from error


class StrictModel(BaseModel):
    """Base of all request schemas: strict types, unknown fields are forbidden."""

    model_config = ConfigDict(extra="forbid", strict=True)


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class TextContentPart(StrictModel):
    """A text content part of a message; images and audio are not supported."""

    type: Literal["text"]
    text: Text


class ChatMessage(StrictModel):
    """One chat message: role and content."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextContentPart], Field(min_length=1, max_length=64)]
    name: ShortName | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(StrictModel):
    """Options of a stream (OpenAI's `stream_options`)."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(StrictModel):
    """The response format (OpenAI's `response_format`): only text."""

    type: Literal["text"] = "text"


Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=False)]
OnlyZero = Annotated[float, Field(ge=0, le=0, strict=False)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class BaseCompletionRequest(StrictModel):
    """Fields common to chat and text completion requests: sampling params, n, stream."""

    model: ShortName
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=8)] = 1
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: OnlyZero | None = None
    presence_penalty: OnlyZero | None = None
    user: Text | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        stop = self.stop or ()
        return (stop,) if isinstance(stop, str) else tuple(stop)

    @property
    def with_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionRequest(BaseCompletionRequest):
    """Body of a chat completion request: a conversation that ends with a user message."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_TURNS)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _check_messages(self) -> Self:
        check_turn_order(self.conversation)
        if not self.messages[-1].text.strip():
            raise ValueError("messages: the last one is empty")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs")
        return self

    @property
    def conversation(self) -> list[Message]:
        return [
            Message("system" if turn.role == "developer" else turn.role, turn.text)
            for turn in self.messages
        ]

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_top_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(BaseCompletionRequest):
    """Body of a text completion request: a prompt to complete."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
