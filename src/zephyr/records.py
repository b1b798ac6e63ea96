"""Records: rows of a data set (chat, preference pair, multiple choice, passage of text).

Four kinds, all frozen. `id` is a hash of the content alone, so the same example from two sources
has one id; `group` is a hash of the question: records of one group go to the same side of the
hold-out split.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

Role = Literal["system", "user", "assistant"]
RecordKind = Literal["chat", "pair", "choice", "passage"]
RECORD_KINDS: tuple[RecordKind, ...] = ("chat", "pair", "choice", "passage")


@dataclass(frozen=True, slots=True)
class Message:
    """One message (turn) of a conversation: role and content."""

    role: Role
    content: str


def content_hash(*parts: Any) -> str:
    """Content hash: sixteen hex digits of BLAKE2b over the canonical JSON of `parts`."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    data = text.encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Record:
    """Base class of the four kinds of records: source name, and identity by content hash."""

    source: str
    kind: ClassVar[RecordKind]

    @property
    def content(self) -> tuple[Any, ...]:
        """The content as JSON values: all that makes this record differ from another."""
        raise AssertionError("each kind defines its content")

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of this record, without role names."""
        raise AssertionError("each kind defines its texts")

    @property
    def question(self) -> Any:
        """The question: records with the same one go to the same side of the hold-out split."""
        return self.content

    @cached_property
    def id(self) -> str:
        """The content hash of the record, whatever its source."""
        return content_hash(self.kind, *self.content)

    @cached_property
    def group(self) -> str:
        """The group of the hold-out split: the question's hash, case and whitespace normalized."""
        question = self.question
        return content_hash(
            " ".join(question.split()).casefold() if isinstance(question, str) else question
        )


def _messages_to_json(messages: tuple[Message, ...]) -> list[list[str]]:
    return [[message.role, message.content] for message in messages]


@dataclass(frozen=True)
class Chat(Record):
    """A conversation for SFT: its assistant turns are learned, and it ends with one."""

    messages: tuple[Message, ...]
    kind: ClassVar[RecordKind] = "chat"

    @property
    def content(self) -> tuple[Any, ...]:
        return (_messages_to_json(self.messages),)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(m.content for m in self.messages)

    @property
    def question(self) -> Any:
        return next(m.content for m in self.messages if m.role == "user")


@dataclass(frozen=True)
class Pair(Record):
    """A preference pair: a prompt that ends with the user, a chosen and a rejected answer.

    `aspect` says what the preference is about (correctness, truth, safety, manner, …), so that
    reward accuracy can be shown for each; it is not part of the content.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    aspect: str = "unspecified"
    kind: ClassVar[RecordKind] = "pair"

    @property
    def content(self) -> tuple[Any, ...]:
        return (_messages_to_json(self.prompt), self.chosen, self.rejected)

    @property
    def texts(self) -> tuple[str, ...]:
        return (*(m.content for m in self.prompt), self.chosen, self.rejected)

    @property
    def question(self) -> Any:
        return next(m.content for m in self.prompt if m.role == "user")


@dataclass(frozen=True)
class Choice(Record):
    """A multiple-choice question; `choices[answer]` is the right one.

    `subject` is a topic where the source names one, else empty.
    """

    text: str
    choices: tuple[str, ...]
    answer: int
    subject: str = ""
    kind: ClassVar[RecordKind] = "choice"

    @property
    def content(self) -> tuple[Any, ...]:
        return (self.text, list(self.choices), self.answer)

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text, *self.choices)

    @property
    def question(self) -> Any:
        return self.text


@dataclass(frozen=True)
class Passage(Record):
    """Plain text, for pretraining, perplexity and calibration."""

    text: str
    kind: ClassVar[RecordKind] = "passage"

    @property
    def content(self) -> tuple[Any, ...]:
        return (self.text,)

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,)


_CLASS_BY_KIND: dict[str, type[Record]] = {
    "chat": Chat,
    "pair": Pair,
    "choice": Choice,
    "passage": Passage,
}


def to_json(record: Record) -> dict[str, Any]:
    """`record` as JSON-ready values; `from_json` is the inverse."""
    row: dict[str, Any] = {"kind": record.kind, "source": record.source}
    match record:
        case Chat():
            row["messages"] = _messages_to_json(record.messages)
        case Pair():
            row["prompt"] = _messages_to_json(record.prompt)
            row |= {"chosen": record.chosen, "rejected": record.rejected, "aspect": record.aspect}
        case Choice():
            row |= {"text": record.text, "choices": list(record.choices)}
            row |= {"answer": record.answer, "subject": record.subject}
        case Passage():
            row["text"] = record.text
    return row


def from_json(row: dict[str, Any]) -> Record:
    """The record that `to_json` wrote as `row`."""
    fields = {key: value for key, value in row.items() if key != "kind"}
    for key in ("messages", "prompt"):
        if key in fields:
            fields[key] = tuple(Message(role, text) for role, text in fields[key])
    if "choices" in fields:
        fields["choices"] = tuple(fields["choices"])
    return _CLASS_BY_KIND[row["kind"]](**fields)
