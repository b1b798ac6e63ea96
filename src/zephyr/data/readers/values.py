"""What readers are made of: texts and lists in columns, turns, and conversations made of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zephyr.records import Message, Record, Role


class Unreadable(Exception):
    """A row that is not what its source promises; the text is a short reason."""


class LeftOut(Exception):
    """A row, or one of its records, that is read and not wanted; the text is a short reason."""


Columns = Mapping[str, Any]
Reader = Callable[[Columns, str], Iterator[Record | LeftOut]]
"""(columns of a row, name of the source) to records."""


def text(row: Columns, column: str, *, empty: bool = False) -> str:
    """The text of a column; blank only where `empty` allows it."""
    if column not in row:
        raise Unreadable(f"column {column!r} is missing")
    value = row[column]
    if value is None and empty:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"column {column!r} is not text")
    if not empty and not value.strip():
        raise Unreadable(f"column {column!r} is empty")
    return value


def items(row: Columns, column: str) -> list[Any]:
    """The list in a column, of at least one item."""
    value = row.get(column)
    if not isinstance(value, list) or not value:
        raise Unreadable(f"column {column!r} is not a list")
    return value


ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
}
"""The names of roles that are met in data, in small letters."""

SPOKEN: tuple[Role, Role] = ("user", "assistant")
"""Who speak in turn."""


def message(value: Any) -> Message:
    """A turn as {role, content} or {from, value}."""
    if not isinstance(value, dict):
        raise Unreadable("a turn is not an object")
    role = value.get("role", value.get("from"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise Unreadable("a turn has an unknown role")
    content = "content" if "content" in value else "value"
    return Message(ROLES[role.lower()], text(value, content))


def turns(row: Columns, column: str) -> list[Message]:
    """The list of turns in a column."""
    return [message(value) for value in items(row, column)]


def said(row: Columns, column: str, role: Role) -> list[Message]:
    """The turns in a column that holds a list of them, or a text that `role` says."""
    if isinstance(row.get(column), list):
        return turns(row, column)
    return [Message(role, text(row, column))]


def conversation(messages: Sequence[Message], last: Role) -> tuple[Message, ...]:
    """Turns by turns: perhaps a system message, then user and assistant, ending with `last`."""
    spoken = [m.role for m in messages]
    if spoken[:1] == ["system"]:
        del spoken[0]
    expected = [SPOKEN[i % 2] for i in range(len(spoken))]
    if spoken != expected or not spoken or spoken[-1] != last:
        raise Unreadable(f"turns don't alternate from a first user to a last {last}")
    return tuple(messages)


def asked(question: str, system: str = "") -> tuple[Message, ...]:
    """A question, after a system message if there is one."""
    user = Message("user", question)
    return (Message("system", system), user) if system.strip() else (user,)


def instructed(row: Columns) -> tuple[Message, ...]:
    """What comes before the answer in Alpaca's columns: instruction, and input if it is there.

    LLaMA-Factory's `system` and `history` (earlier questions with their answers) come before them.
    """
    system = text(row, "system", empty=True) if "system" in row else ""
    before = [Message("system", system)] if system.strip() else []
    for earlier in items(row, "history") if row.get("history") else ():
        if not isinstance(earlier, list) or len(earlier) != 2:
            raise Unreadable("an earlier turn is not a question and an answer")
        spoken = [text({"history": part}, "history") for part in earlier]
        before += [Message(role, part) for role, part in zip(SPOKEN, spoken, strict=True)]
    given = [text(row, "instruction", empty=True)]
    given += [text(row, "input", empty=True)] if "input" in row else []
    question = "\n".join(part for part in given if part)
    if not question.strip():
        raise Unreadable("column 'instruction' is empty")
    return conversation([*before, Message("user", question)], "user")
