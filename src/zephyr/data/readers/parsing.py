"""Parsing helpers of row readers: columns of text or lists, chat messages, conversations."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from zephyr.records import Message, Record, Role


class UnreadableRowError(Exception):
    """A malformed row, not of the format of its source: a short reason, and what to do about it."""

    def __init__(self, reason: str, todo: str = "") -> None:
        super().__init__(reason)
        self.todo = todo


class SkippedRecord(Exception):
    """A well-formed row or record that is skipped on purpose; the text is a short reason."""


RowValues = Mapping[str, Any]
RowReader = Callable[[RowValues, str], Iterator[Record | SkippedRecord]]
"""A row reader: (columns of a row, name of the source) to records."""


MISSING_VALUES = ("nan", "NaN", "<NA>")
"""What pandas writes for a missing value where it writes all cells as texts."""


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, blank text, an empty list or object."""
    if isinstance(value, float | Decimal):
        return math.isnan(value)
    if isinstance(value, str):
        return value.strip() in ("", "[]", "{}")
    return value is None or (isinstance(value, list | dict) and not value)


def to_text(value: Any) -> str | None:
    """The text of a cell: a number as its digits (25.0 as 25), a missing one as "", else None."""
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if not isinstance(value, int) and not math.isfinite(value):
        return None
    is_whole = (
        value == int(value) and -(2**53) < value < 2**53
    )  # beyond, a float has no exact digits
    return str(int(value)) if is_whole else str(value)


def read_text(row: RowValues, column: str, *, allow_empty: bool = False) -> str:
    """Reads the text of a column, or the digits of a number; blank only with `allow_empty`."""
    if column not in row:
        raise UnreadableRowError(f"column {column!r} is missing")
    text = to_text(row[column])
    if text is None:
        raise UnreadableRowError(f"column {column!r} is not text", "write the value in quotes")
    if not allow_empty and not text.strip():
        raise UnreadableRowError(f"column {column!r} is empty")
    return text


def read_list(row: RowValues, column: str) -> list[Any]:
    """Reads the list in a column, of at least one item."""
    value = row.get(column)
    if not isinstance(value, list) or not value:
        raise UnreadableRowError(f"column {column!r} is not a list")
    return value


# -- columns beside a conversation ----------------------------------------------------------------

CONTEXT_COLUMNS = ("system", "system_prompt", "history")
"""Columns that any conversation may have beside it, and that become its first messages."""

_ATTACHMENTS = {
    **dict.fromkeys(("tools", "functions"), "tools"),
    **dict.fromkeys(("images", "image"), "pictures"),
    **dict.fromkeys(("videos", "video"), "videos"),
    **dict.fromkeys(("audios", "audio"), "sounds"),
}
CONVERSATION_COLUMNS = (*CONTEXT_COLUMNS, "weight", *_ATTACHMENTS)
"""Columns beside a conversation that are read: as its context, or as a reason to leave it out."""

_HIDE = "or give the column another name to leave it unread (`columns: {unused: %s}`)"


def check_columns(row: RowValues) -> None:
    """Checks the columns beside a conversation: nothing that can't be learned, a weight of 1."""
    for column, things in _ATTACHMENTS.items():
        if not is_blank(row.get(column)):
            raise UnreadableRowError(
                f"column {column!r} holds {things}, and only text is learned",
                f"remove these rows, {_HIDE % column}",
            )
    if read_flag(row, "weight") is False:
        raise SkippedRecord("the row has a weight of 0")


def read_flag(values: RowValues, name: str) -> bool | None:
    """Reads a flag of a row or turn, such as `weight`: 0 or 1, false or true; None if blank."""
    value = values.get(name)
    if is_blank(value):
        return None
    text = str(value).strip().lower()
    if text in ("0", "0.0", "false"):
        return False
    if text in ("1", "1.0", "true"):
        return True
    raise UnreadableRowError(
        f"{name!r} is neither 0 nor 1",
        f"repeat or remove rows in place of a weight, {_HIDE % name}",
    )


def read_context(row: RowValues) -> list[Message]:
    """Reads the columns `system` and `history` beside a conversation: its first messages."""
    check_columns(row)
    systems = {
        text
        for column in ("system", "system_prompt")
        if column in row and (text := read_text(row, column, allow_empty=True)).strip()
    }
    if len(systems) > 1:
        raise UnreadableRowError("columns 'system' and 'system_prompt' differ", "keep one of them")
    messages = [Message("system", text) for text in systems]
    if is_blank(row.get("history")):
        return messages
    for earlier in read_list(row, "history"):
        if isinstance(earlier, dict):
            messages += parse_turns([earlier])
            continue
        if not isinstance(earlier, list) or len(earlier) != 2:
            raise UnreadableRowError("an earlier turn is not a question and an answer")
        texts = [read_text({"history": part}, "history") for part in earlier]
        messages += [Message(role, part) for role, part in zip(TURN_ROLES, texts, strict=True)]
    return messages


# -- turns of a conversation ----------------------------------------------------------------------

ROLE_ALIASES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
"""Chat roles by the names that data sets use for them, in lower case."""

_TOOL_ROLE = re.compile("(tool|function)([_-](calls?|response|result))?|observation|ipython")
_TOOL_CALLS = ("tool_calls", "function_call")
TURN_ROLES: tuple[Role, Role] = ("user", "assistant")
"""The roles that alternate in a conversation."""

TURN_KEYS = frozenset(("role", "from", "content", "value", *_TOOL_CALLS))
TURN_FLAGS = ("weight", "train", "training", "trainable", "loss")
"""Keys of a turn that say whether it is learned; only answers are, and all of them."""

_NO_TOOLS = "remove these rows: the models call no tools"


def parse_message(value: Any) -> Message:
    """Parses a chat message: {role, content} (OpenAI) or {from, value} (ShareGPT)."""
    if not isinstance(value, dict):
        raise UnreadableRowError("a turn is not an object")
    name = value.get("role", value.get("from"))
    role = name.lower() if isinstance(name, str) else ""
    if _TOOL_ROLE.fullmatch(role) or any(not is_blank(value.get(key)) for key in _TOOL_CALLS):
        raise UnreadableRowError("a turn calls a tool, or is a tool's", _NO_TOOLS)
    if role not in ROLE_ALIASES:
        raise UnreadableRowError("a turn has an unknown role", f"name it one of {_ROLE_NAMES}")
    content = _read_content(value)
    if not content.strip() and ROLE_ALIASES[role] != "system":
        raise UnreadableRowError(f"a turn of the {ROLE_ALIASES[role]} is empty", "fill it")
    return Message(ROLE_ALIASES[role], content)


_ROLE_NAMES = ", ".join(ROLE_ALIASES)


def _read_content(turn: RowValues) -> str:
    """Reads the content of a turn: text, or parts of text, which are joined as they stand."""
    key = "content" if "content" in turn else "value"
    parts = turn.get(key)
    if not isinstance(parts, list):
        text = to_text(parts)
        if key not in turn or text is None:
            raise UnreadableRowError(
                f"column {key!r} is {'not text' if key in turn else 'missing'}"
            )
        return text
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            is_picture = isinstance(kind, str) and "image" in kind
            thing = "a picture" if is_picture else "a part that is not text"
            raise UnreadableRowError(f"a turn holds {thing}, and only text is learned")
        texts.append(text)
    return "".join(texts)


def parse_turns(values: Sequence[Any]) -> list[Message]:
    """Parses chat messages; a blank system turn means none, and is left out."""
    messages = [parse_message(value) for value in values]
    return [m for m in messages if m.role != "system" or m.content.strip()]


def read_turns(row: RowValues, column: str) -> list[Message]:
    """Reads the list of chat messages in a column, of at least one."""
    messages = parse_turns(read_list(row, column))
    if not messages:
        raise UnreadableRowError(f"column {column!r} holds a blank system turn and no other")
    return messages


def read_turns_or_text(row: RowValues, column: str, role: Role) -> list[Message]:
    """Reads a column of chat messages, or of a text that becomes one message of `role`."""
    if isinstance(row.get(column), list):
        return read_turns(row, column)
    return [Message(role, read_text(row, column))]


def check_turn_flags(values: Sequence[Any]) -> None:
    """Checks that the flags of turns, such as `weight`, say that all answers are learned."""
    for value in values:
        if not isinstance(value, dict):
            continue
        is_answer = ROLE_ALIASES.get(str(value.get("role", value.get("from"))).lower())
        for flag in TURN_FLAGS:
            is_learned = read_flag(value, flag)
            if is_learned is False and is_answer == "assistant":
                raise UnreadableRowError(
                    f"{flag!r} says that an answer is not to be learned",
                    "all answers of a conversation are: cut it, so that this one is not in it",
                )
            if is_learned and is_answer != "assistant":
                raise UnreadableRowError(
                    f"{flag!r} says that a turn which is no answer is to be learned",
                    "only answers are: remove the flag",
                )


def make_conversation(
    row: RowValues, messages: Sequence[Message], last_role: Role
) -> tuple[Message, ...]:
    """Makes a conversation of a row's messages, after the `system` and `history` beside them."""
    context, turns = read_context(row), list(messages)
    if turns[:1] and turns[0].role == "system" and context[:1]:
        system = turns.pop(0)
        if context[0].role != "system":
            context.insert(0, system)
        elif context[0] != system:
            raise UnreadableRowError(
                "the system message of the turns is not that of the column", "keep one of them"
            )
    return check_conversation([*context, *turns], last_role)


def check_conversation(messages: Sequence[Message], last_role: Role) -> tuple[Message, ...]:
    """Checks that roles alternate: maybe system, then user and assistant, up to `last_role`."""
    roles = [m.role for m in messages]
    if roles[:1] == ["system"]:
        del roles[0]
    if "system" in roles:
        raise UnreadableRowError("a system turn is not the first", "move or remove it")
    if not roles:
        raise UnreadableRowError("a conversation has no turns of user and assistant")
    if roles[0] == "assistant":
        raise UnreadableRowError(
            "the first turn is the assistant's", "remove it, or put the user's before it"
        )
    for role, following in pairwise(roles):
        if role == following:
            raise UnreadableRowError(f"two turns of the {role} in a row", "join them into one")
    if roles[-1] != last_role:
        raise UnreadableRowError(
            f"the last turn is the {roles[-1]}'s, not the {last_role}'s", "remove or answer it"
        )
    return tuple(messages)


def make_prompt(question: str, system: str = "") -> tuple[Message, ...]:
    """Makes a prompt: a user message, after a system message if there is one."""
    user = Message("user", question)
    return (Message("system", system), user) if system.strip() else (user,)


def read_alpaca_prompt(row: RowValues) -> tuple[Message, ...]:
    """Reads the prompt in Alpaca's columns: instruction, and input if present.

    LLaMA-Factory's `system` and `history` (earlier questions with their answers) come before them.
    """
    question_parts = [read_text(row, "instruction", allow_empty=True)]
    question_parts += [read_text(row, "input", allow_empty=True)] if "input" in row else []
    if question_parts[-1] in MISSING_VALUES and "input" in row:  # never a text to work on
        question_parts.pop()
    question = "\n".join(part for part in question_parts if part)
    if not question.strip():
        raise UnreadableRowError("column 'instruction' is empty")
    return make_conversation(row, [Message("user", question)], "user")
