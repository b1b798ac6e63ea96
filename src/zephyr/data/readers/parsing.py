"""Parsing helpers of row readers: columns of text or lists, chat messages, conversations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zephyr.records import Message, Record, Role


class UnreadableRowError(Exception):
    """A malformed row, not of the format of its source; the text is a short reason."""


class SkippedRecord(Exception):
    """A well-formed row or record that is skipped on purpose; the text is a short reason."""


RowValues = Mapping[str, Any]
RowReader = Callable[[RowValues, str], Iterator[Record | SkippedRecord]]
"""A row reader: (columns of a row, name of the source) to records."""


def read_text(row: RowValues, column: str, *, allow_empty: bool = False) -> str:
    """Reads the text of a column; blank only where `allow_empty` is true."""
    if column not in row:
        raise UnreadableRowError(f"column {column!r} is missing")
    value = row[column]
    if value is None and allow_empty:
        return ""
    if not isinstance(value, str):
        raise UnreadableRowError(f"column {column!r} is not text")
    if not allow_empty and not value.strip():
        raise UnreadableRowError(f"column {column!r} is empty")
    return value


def read_list(row: RowValues, column: str) -> list[Any]:
    """Reads the list in a column, of at least one item."""
    value = row.get(column)
    if not isinstance(value, list) or not value:
        raise UnreadableRowError(f"column {column!r} is not a list")
    return value


ROLE_ALIASES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
}
"""Chat roles by the names that data sets use for them, in lower case."""

TURN_ROLES: tuple[Role, Role] = ("user", "assistant")
"""The roles that alternate in a conversation."""


def parse_message(value: Any) -> Message:
    """Parses a chat message: {role, content} (OpenAI) or {from, value} (ShareGPT)."""
    if not isinstance(value, dict):
        raise UnreadableRowError("a turn is not an object")
    role = value.get("role", value.get("from"))
    if not isinstance(role, str) or role.lower() not in ROLE_ALIASES:
        raise UnreadableRowError("a turn has an unknown role")
    content = "content" if "content" in value else "value"
    return Message(ROLE_ALIASES[role.lower()], read_text(value, content))


def read_turns(row: RowValues, column: str) -> list[Message]:
    """Reads the list of chat messages in a column."""
    return [parse_message(value) for value in read_list(row, column)]


def read_turns_or_text(row: RowValues, column: str, role: Role) -> list[Message]:
    """Reads a column of chat messages, or of a text that becomes one message of `role`."""
    if isinstance(row.get(column), list):
        return read_turns(row, column)
    return [Message(role, read_text(row, column))]


def check_conversation(messages: Sequence[Message], last_role: Role) -> tuple[Message, ...]:
    """Checks that roles alternate: maybe system, then user and assistant, up to `last_role`."""
    roles = [m.role for m in messages]
    if roles[:1] == ["system"]:
        del roles[0]
    expected = [TURN_ROLES[i % 2] for i in range(len(roles))]
    if roles != expected or not roles or roles[-1] != last_role:
        raise UnreadableRowError(f"turns don't alternate from a first user to a last {last_role}")
    return tuple(messages)


def make_prompt(question: str, system: str = "") -> tuple[Message, ...]:
    """Makes a prompt: a user message, after a system message if there is one."""
    user = Message("user", question)
    return (Message("system", system), user) if system.strip() else (user,)


def read_alpaca_prompt(row: RowValues) -> tuple[Message, ...]:
    """Reads the prompt in Alpaca's columns: instruction, and input if present.

    LLaMA-Factory's `system` and `history` (earlier questions with their answers) come before them.
    """
    system = read_text(row, "system", allow_empty=True) if "system" in row else ""
    messages = [Message("system", system)] if system.strip() else []
    for earlier_turn in read_list(row, "history") if row.get("history") else ():
        if not isinstance(earlier_turn, list) or len(earlier_turn) != 2:
            raise UnreadableRowError("an earlier turn is not a question and an answer")
        texts = [read_text({"history": part}, "history") for part in earlier_turn]
        messages += [Message(role, part) for role, part in zip(TURN_ROLES, texts, strict=True)]
    question_parts = [read_text(row, "instruction", allow_empty=True)]
    question_parts += [read_text(row, "input", allow_empty=True)] if "input" in row else []
    question = "\n".join(part for part in question_parts if part)
    if not question.strip():
        raise UnreadableRowError("column 'instruction' is empty")
    return check_conversation([*messages, Message("user", question)], "user")
