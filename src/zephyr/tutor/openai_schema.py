"""Request schemas of the OpenAI-compatible API (pydantic).

Fields that ask for nothing are accepted (`neutral_fields`), and histories are read as clients send
them back; whatever asks for something else is refused by its name.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from zephyr.data.readers.parsing import UnreadableRowError, check_conversation
from zephyr.records import Message, Role
from zephyr.tutor.neutral_fields import MESSAGE_LABELS, REQUEST_LABELS, is_neutral

MAX_TURNS = 200
MAX_TEXT_LENGTH = 1 << 20
MAX_PROMPTS = 32
MESSAGE_SEPARATOR = "\n\n"
"""Stands between messages of one role that are joined."""


def check_turn_order(messages: Sequence[Message]) -> None:
    """Checks that roles alternate, and that the last message is the user's.

    Raises:
        ValueError: they don't, or it is not.
    """
    try:
        check_conversation(messages, "user")
    except UnreadableRowError as error:
        raise ValueError(f"messages: {error}") from error


def field_error(code: str, param: str, problem: str) -> PydanticCustomError:
    """The validation error of a field, with OpenAI's code for it."""
    return PydanticCustomError(code, "{problem}", {"param": param, "problem": problem})


class StrictModel(BaseModel):
    """Base of all request schemas: strict types, unknown fields are forbidden."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TolerantModel(StrictModel):
    """Base of OpenAI's schemas: an optional field may be null, and neutral fields are accepted."""

    labels: ClassVar[frozenset[str]] = frozenset()
    """Fields that are accepted whatever their value, for they never change an answer."""

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral_fields(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body

        def is_kept(name: str, value: Any) -> bool:
            if name in cls.model_fields:
                return value is not None or cls.model_fields[name].is_required()
            return name not in cls.labels and not is_neutral(name, value)

        return {name: value for name, value in body.items() if is_kept(name, value)}


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH)]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _to_stop_list(value: Any) -> Any:
    return [] if value == "" else _to_list(value)


def _to_parts(value: Any) -> Any:
    """The content parts of a message; an answer that broke off has null, and none."""
    if value is None:
        return []
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _prompts(value: Any) -> Any:
    prompts = _to_list(value)
    if isinstance(prompts, list) and any(isinstance(one, int | list) for one in prompts):
        problem = "'prompt' of token ids is not supported by this server; send the text."
        raise field_error("unsupported_value", "prompt", f"Unsupported value: {problem}")
    return prompts


def _list_or_one(function: Callable[[Any], Any], one: Any, items: Any) -> BeforeValidator:
    """Reads one value as a list of one."""
    return BeforeValidator(function, json_schema_input_type=one | items)


class TextContentPart(TolerantModel):
    """A text content part of a message; images and audio are not supported."""

    labels = MESSAGE_LABELS

    type: Literal["text"]
    text: Text


ContentParts = Annotated[list[TextContentPart], Field(max_length=64)]


class ChatMessage(TolerantModel):
    """One chat message: role and content."""

    labels = MESSAGE_LABELS

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[ContentParts, _list_or_one(_to_parts, Text | None, ContentParts)] = []
    name: Annotated[str, StringConstraints(max_length=64)] | None = None

    @property
    def prompt_role(self) -> Role:
        """The role in a chat template: a developer's message is the system's."""
        return "system" if self.role == "developer" else self.role

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


def to_conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation of a history: one system message, and turns that alternate to the user.

    System messages before the first user message are joined, and so are turns of one role that
    follow each other, as where a question was sent again. An answer that broke off is empty.

    Raises:
        PydanticCustomError: a system message comes later, or no user message is the last.
    """
    system_texts: list[str] = []
    turns: list[Message] = []
    for at, message in enumerate(messages):
        role = message.prompt_role
        if role == "system":
            if any(turn.role == "user" for turn in turns):
                why = "a system message must come before the first user message; move it there."
                raise _message_error(at, "role", message.role, why)
            system_texts.append(message.text)
        elif turns and turns[-1].role == role:
            turns[-1] = Message(role, _join([turns[-1].content, message.text]))
        else:
            turns.append(Message(role, message.text))
    last = len(messages) - 1
    if messages[last].role != "user":
        why = "the last message must be the user's."
        raise _message_error(last, "role", messages[last].role, why)
    if not turns[-1].content.strip():
        why = "the last message must have a text."
        raise _message_error(last, "content", messages[last].text, why)
    system = _join(system_texts)
    return [Message("system", system), *turns] if system else turns


def _message_error(at: int, name: str, value: str, why: str) -> PydanticCustomError:
    param = f"messages[{at}].{name}"
    return field_error("invalid_value", param, f"Invalid value for '{param}': {value!r}; {why}")


def _join(texts: Sequence[str]) -> str:
    return MESSAGE_SEPARATOR.join(text for text in texts if text.strip())


class StreamOptions(TolerantModel):
    """Options of a stream (OpenAI's `stream_options`)."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(TolerantModel):
    """The response format (OpenAI's `response_format`): only text."""

    type: Literal["text"] = "text"


Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=False)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
StopList = Annotated[list[StopString], Field(max_length=4)]


class BaseCompletionRequest(TolerantModel):
    """Fields common to chat and text completion requests: sampling params, n, stream."""

    labels = REQUEST_LABELS

    model: ShortName
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    stop: Annotated[StopList, _list_or_one(_to_stop_list, StopString, StopList)] = []
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=8)] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: Text | None = None


class ChatCompletionRequest(BaseCompletionRequest):
    """Body of a chat completion request: a conversation that ends with a user message."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_TURNS)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    response_format: ResponseFormat = ResponseFormat()
    _conversation: list[Message] = PrivateAttr()

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._conversation = to_conversation(self.messages)
        if self.top_logprobs and not self.logprobs:
            problem = "Invalid value: 'top_logprobs' needs 'logprobs' to be true."
            raise field_error("invalid_value", "top_logprobs", problem)
        return self

    @property
    def conversation(self) -> list[Message]:
        return self._conversation

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_top_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs else None


PromptText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH)]
PromptList = Annotated[list[PromptText], Field(min_length=1, max_length=MAX_PROMPTS)]


class CompletionRequest(BaseCompletionRequest):
    """Body of a text completion request: a prompt to complete, or several."""

    prompt: Annotated[PromptList, _list_or_one(_prompts, PromptText, PromptList)]
    logprobs: Annotated[
        Annotated[int, Field(ge=0, le=5)] | None,
        BeforeValidator(lambda value: None if value is False else value),
    ] = None
