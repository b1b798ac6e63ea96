"""Readers of preferences: rows that hold a question and two answers, in many arrangements."""

import re
from collections.abc import Iterator

from zephyr.data.readers.values import (
    ROLES,
    Columns,
    LeftOut,
    Reader,
    Unreadable,
    asked,
    conversation,
    instructed,
    items,
    message,
    said,
    text,
    turns,
)
from zephyr.records import Message, Pair, Record


def _pair(source: str, prompt: tuple[Message, ...], chosen: str, rejected: str) -> Iterator[Record]:
    if chosen == rejected:
        raise LeftOut("both answers are the same")
    yield Pair(source, prompt, chosen, rejected)


def preference(question: str, chosen: str, rejected: str, system: str | None = None) -> Reader:
    """A reader of a question, two answers, and perhaps a system message."""

    def read(row: Columns, source: str) -> Iterator[Record]:
        before = text(row, system, empty=True) if system else ""
        prompt = asked(text(row, question), before)
        yield from _pair(source, prompt, text(row, chosen), text(row, rejected))

    return read


def prompt_pair(row: Columns, source: str) -> Iterator[Record]:
    """TRL's columns, as texts or as lists of turns."""
    prompt = conversation(said(row, "prompt", "user"), "user")
    yield from _pair(source, prompt, _answer(row, "chosen"), _answer(row, "rejected"))


def instruction_pair(row: Columns, source: str) -> Iterator[Record]:
    """LLaMA-Factory's columns: Alpaca's, and two answers."""
    yield from _pair(source, instructed(row), text(row, "chosen"), text(row, "rejected"))


def conversations_pair(row: Columns, source: str) -> Iterator[Record]:
    """LLaMA-Factory's turns, and two answers that are turns themselves."""
    prompt = conversation(turns(row, "conversations"), "user")
    yield from _pair(source, prompt, _answer(row, "chosen"), _answer(row, "rejected"))


def _answer(row: Columns, side: str) -> str:
    value = row.get(side)
    if isinstance(value, str):
        return text(row, side)
    turn = message(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if turn.role != "assistant":
        raise Unreadable(f"column {side!r} is not an answer")
    return turn.content


def turns_pair(row: Columns, source: str) -> Iterator[Record]:
    """Two whole conversations that part at the last answer, as turns or as a transcript."""
    (*before, chosen), (*other, rejected) = (_whole(row, side) for side in ("chosen", "rejected"))
    prompt = conversation(before, "user")
    if other != before:
        raise Unreadable("the conversations part before the last answer")
    yield from _pair(source, prompt, chosen.content, rejected.content)


_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def _whole(row: Columns, side: str) -> list[Message]:
    value = row.get(side)
    if isinstance(value, str):
        start, *parts = _SPEAKER.split(value)
        if start.strip() or not parts:
            raise Unreadable(f"column {side!r} is not a transcript")
        spoken = [
            Message(ROLES[who.lower()], words.strip())
            for who, words in zip(parts[::2], parts[1::2], strict=True)
        ]
    else:
        spoken = turns(row, side)
    if spoken[-1].role != "assistant" or not all(m.content for m in spoken):
        raise Unreadable(f"column {side!r} does not end with an answer, or a turn is empty")
    return spoken


def orca_messages(row: Columns, source: str) -> Iterator[Record]:
    """Intel's pairs in OpenAI's form: input.messages, and two outputs of one turn."""
    given = row.get("input")
    if not isinstance(given, dict):
        raise Unreadable("column 'input' is not an object")
    spoken = items(given, "messages")
    silent = spoken[0] == {"role": "system", "content": ""}
    prompt = conversation([message(turn) for turn in spoken[silent:]], "user")
    sides = [items(row, side) for side in ("preferred_output", "non_preferred_output")]
    chosen, rejected = (message(side[-1]).content for side in sides)
    yield from _pair(source, prompt, chosen, rejected)


def epfl(row: Columns, source: str) -> Iterator[Record | LeftOut]:
    """The course's raw file: a question and answers A and B, compared by students.

    Preferences without an overall winner (AB), or with an empty answer (blank, or three dots), are
    left out, as the seed did.
    """
    prompt = asked(text(row, "question_complete"))
    for preferred in items(row, "preference"):
        if not isinstance(preferred, dict):
            raise Unreadable("a preference is not an object")
        answers = [text(preferred, side, empty=True) for side in ("A", "B")]
        winner = preferred.get("overall")
        if winner not in ("A", "B"):
            yield LeftOut("neither answer is preferred overall")
        elif any(answer.strip() in ("", "...") for answer in answers):
            yield LeftOut("an answer is empty")
        elif answers[0] == answers[1]:
            yield LeftOut("both answers are the same")
        else:
            chosen, rejected = answers if winner == "A" else answers[::-1]
            yield Pair(source, prompt, chosen, rejected)


def shp(row: Columns, source: str) -> Iterator[Record]:
    """Stanford Human Preferences: `labels` is 1 where answer A was preferred."""
    if row.get("labels") not in (0, 1):
        raise Unreadable("column 'labels' is neither 0 nor 1")
    sides = (text(row, "human_ref_B"), text(row, "human_ref_A"))
    chosen = int(row["labels"])
    yield from _pair(source, asked(text(row, "history")), sides[chosen], sides[1 - chosen])
