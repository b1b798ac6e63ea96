"""Readers: one row of a source to records.

A reader is given the columns of a row and yields records (one EPFL question holds several pairs).
What can't be read raises `Unreadable`, what is left out on purpose raises `LeftOut`, or is yielded
as one where the row holds more, each with a short reason, so that nothing is dropped without being
counted.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zephyr.records import Chat, Choice, Message, Pair, Passage, Record, Role


class Unreadable(Exception):
    """A row that is not what its source promises; the text is a short reason."""


class LeftOut(Exception):
    """A row, or one of its records, that is read and not wanted; the text is a short reason."""


Columns = Mapping[str, Any]
Reader = Callable[[Columns, str], Iterator[Record | LeftOut]]
"""(columns of a row, name of the source) to records."""


# -- values ---------------------------------------------------------------------------------------


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


_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
}


def message(value: Any) -> Message:
    """A turn as {role, content} or {from, value}."""
    if not isinstance(value, dict):
        raise Unreadable("a turn is not an object")
    role = value.get("role", value.get("from"))
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise Unreadable("a turn has an unknown role")
    content = "content" if "content" in value else "value"
    return Message(_ROLES[role.lower()], text(value, content))


def conversation(turns: Sequence[Message], last: Role) -> tuple[Message, ...]:
    """Turns by turns: perhaps a system message, then user and assistant, ending with `last`."""
    spoken = [m.role for m in turns[1:] if turns[0].role == "system"] or [m.role for m in turns]
    expected = (["user", "assistant"] * len(spoken))[: len(spoken)]
    if spoken != expected or not spoken or spoken[-1] != last:
        raise Unreadable(f"turns don't alternate from a first user to a last {last}")
    return tuple(turns)


def asked(question: str, system: str = "") -> tuple[Message, ...]:
    """A question, after a system message if there is one."""
    user = Message("user", question)
    return (Message("system", system), user) if system.strip() else (user,)


def pair(source: str, prompt: tuple[Message, ...], chosen: str, rejected: str) -> Iterator[Record]:
    if chosen == rejected:
        raise LeftOut("both answers are the same")
    yield Pair(source, prompt, chosen, rejected)


_NUMBER = re.compile("[0-9]{1,9}")


def position(answer: Any, labels: Sequence[str]) -> int:
    """The 0-based place of an answer given as a label, a letter, or a 0-based number."""
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise Unreadable("the answer is neither a letter nor a number")
    if isinstance(answer, int):
        at = answer
    elif answer.strip() in labels:
        at = labels.index(answer.strip())
    elif _NUMBER.fullmatch(answer.strip()):
        at = int(answer)
    else:
        raise Unreadable("the answer is none of the options")
    if not 0 <= at < len(labels):
        raise Unreadable("the answer is none of the options")
    return at


def options(values: Any) -> tuple[str, ...]:
    """At least two options, all of them text."""
    if not isinstance(values, list) or len(values) < 2:
        raise Unreadable("there are fewer than two options")
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise Unreadable("an option is not text, or empty")
    return tuple(values)


LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


# -- chat -----------------------------------------------------------------------------------------


def question_answer(question: str, answer: str) -> Reader:
    """A reader of two columns."""

    def read(row: Columns, source: str) -> Iterator[Record]:
        prompt = asked(text(row, question))
        yield Chat(source, (*prompt, Message("assistant", text(row, answer))))

    return read


_SPOKEN: tuple[Role, Role] = ("user", "assistant")


def instructed(row: Columns) -> str:
    """What the user says in Alpaca's columns: instruction and input, each if it is there."""
    given = [text(row, column, empty=True) for column in ("instruction", "input") if column in row]
    said = "\n".join(part for part in given if part)
    if not said.strip():
        raise Unreadable("column 'instruction' is empty")
    return said


def instruction(row: Columns, source: str) -> Iterator[Record]:
    """Alpaca's columns, with LLaMA-Factory's `system` and `history` where they are there."""
    system = text(row, "system", empty=True) if "system" in row else ""
    turns = [Message("system", system)] if system.strip() else []
    for earlier in items(row, "history") if row.get("history") else ():
        if not isinstance(earlier, list) or len(earlier) != 2:
            raise Unreadable("an earlier turn is not a question and an answer")
        said = [text({"history": part}, "history") for part in earlier]
        turns += [Message(r, t) for r, t in zip(_SPOKEN, said, strict=True)]
    turns += [Message("user", instructed(row)), Message("assistant", text(row, "output"))]
    yield Chat(source, conversation(turns, "assistant"))


def messages(row: Columns, source: str) -> Iterator[Record]:
    turns = [message(value) for value in items(row, "messages")]
    yield Chat(source, conversation(turns, "assistant"))


def conversations(row: Columns, source: str) -> Iterator[Record]:
    """ShareGPT's turns, or LIMA's plain texts in turn."""
    turns = items(row, "conversations")
    if all(isinstance(turn, str) for turn in turns):
        said = [Message(_SPOKEN[i % 2], text({"turn": t}, "turn")) for i, t in enumerate(turns)]
    else:
        said = [message(turn) for turn in turns]
    if said[-1].role == "user":
        said.pop()  # a last question without an answer teaches nothing
    if not said:
        raise Unreadable("column 'conversations' holds no answer")
    yield Chat(source, conversation(said, "assistant"))


def wiki_qa(row: Columns, source: str) -> Iterator[Record | LeftOut]:
    """Only the sentences that answer the question; the set holds many that don't (label 0)."""
    if str(row.get("label")) not in ("0", "1"):
        raise Unreadable("column 'label' is neither 0 nor 1")
    if str(row["label"]) == "0":
        raise LeftOut("the answer is marked as wrong")
    yield from question_answer("question", "answer")(row, source)


# -- pair -----------------------------------------------------------------------------------------


def preference(question: str, chosen: str, rejected: str, system: str | None = None) -> Reader:
    """A reader of a question, two answers, and perhaps a system message."""

    def read(row: Columns, source: str) -> Iterator[Record]:
        before = text(row, system, empty=True) if system else ""
        prompt = asked(text(row, question), before)
        yield from pair(source, prompt, text(row, chosen), text(row, rejected))

    return read


def prompt_pair(row: Columns, source: str) -> Iterator[Record | LeftOut]:
    """TRL's columns, as texts or as lists of turns."""
    if isinstance(row.get("prompt"), str):
        yield from preference("prompt", "chosen", "rejected")(row, source)
        return
    prompt = conversation([message(v) for v in items(row, "prompt")], "user")
    chosen, rejected = (_answer(row, side) for side in ("chosen", "rejected"))
    yield from pair(source, prompt, chosen, rejected)


def instruction_pair(row: Columns, source: str) -> Iterator[Record]:
    """LLaMA-Factory's columns."""
    prompt = asked(instructed(row))
    yield from pair(source, prompt, text(row, "chosen"), text(row, "rejected"))


def conversations_pair(row: Columns, source: str) -> Iterator[Record]:
    """LLaMA-Factory's turns, and two answers that are turns themselves."""
    prompt = conversation([message(v) for v in items(row, "conversations")], "user")
    chosen, rejected = (_answer(row, side) for side in ("chosen", "rejected"))
    yield from pair(source, prompt, chosen, rejected)


def turns_pair(row: Columns, source: str) -> Iterator[Record]:
    """Two whole conversations that part at the last answer, as turns or as a transcript."""
    both = [_turns(row, side) for side in ("chosen", "rejected")]
    prompt = conversation(both[0][:-1], "user")
    if both[1][:-1] != both[0][:-1]:
        raise Unreadable("the conversations part before the last answer")
    yield from pair(source, prompt, both[0][-1].content, both[1][-1].content)


_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def _turns(row: Columns, side: str) -> list[Message]:
    value = row.get(side)
    if isinstance(value, str):
        start, *parts = _SPEAKER.split(value)
        if start.strip() or not parts:
            raise Unreadable(f"column {side!r} is not a transcript")
        turns = [
            Message(_ROLES[who.lower()], said.strip())
            for who, said in zip(parts[::2], parts[1::2], strict=True)
        ]
    else:
        turns = [message(turn) for turn in items(row, side)]
    if turns[-1].role != "assistant" or not all(m.content for m in turns):
        raise Unreadable(f"column {side!r} does not end with an answer, or a turn is empty")
    return turns


def _answer(row: Columns, side: str) -> str:
    value = row.get(side)
    if isinstance(value, str):
        return text(row, side)
    turn = message(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if turn.role != "assistant":
        raise Unreadable(f"column {side!r} is not an answer")
    return turn.content


def orca_messages(row: Columns, source: str) -> Iterator[Record]:
    """Intel's pairs in OpenAI's form: input.messages, and two outputs of one turn."""
    given = row.get("input")
    if not isinstance(given, dict):
        raise Unreadable("column 'input' is not an object")
    said = items(given, "messages")
    silent = said[0] == {"role": "system", "content": ""}
    turns = [message(turn) for turn in said[silent:]]
    sides = [items(row, side) for side in ("preferred_output", "non_preferred_output")]
    chosen, rejected = (message(side[-1]).content for side in sides)
    yield from pair(source, conversation(turns, "user"), chosen, rejected)


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
    yield from pair(source, asked(text(row, "history")), sides[chosen], sides[1 - chosen])


# -- choice ---------------------------------------------------------------------------------------


def choices(row: Columns, source: str) -> Iterator[Record]:
    """A question, a list of options, and the answer as a letter or a 0-based number (MMLU)."""
    row = row["train"] if isinstance(row.get("train"), dict) else row  # MMLU's auxiliary_train
    given = options(row.get("choices"))
    answer = position(row.get("answer"), LETTERS[: len(given)])
    subject = row.get("subject")
    yield Choice(
        source, text(row, "question"), given, answer, subject if isinstance(subject, str) else ""
    )


def arc(row: Columns, source: str) -> Iterator[Record]:
    """ARC as on the hub (text and label lists), or in AI2's own form (stem and choices)."""
    question = row.get("question")
    if isinstance(question, dict):
        stem = text(question, "stem")
        rows = items(question, "choices")
        if not all(isinstance(option, dict) for option in rows):
            raise Unreadable("an option is not an object")
        given = options([option.get("text") for option in rows])
        labels = [str(option.get("label")) for option in rows]
    else:
        stem = text(row, "question")
        listed = row.get("choices")
        if not isinstance(listed, dict):
            raise Unreadable("column 'choices' is not an object")
        given = options(listed.get("text"))
        labels = [str(label) for label in items(listed, "label")]
    key = text(row, "answerKey")
    if len(labels) != len(given) or key not in labels:
        raise Unreadable("the answer is none of the options")
    yield Choice(source, stem, given, labels.index(key))


_TITLE = re.compile(r" \[title\]")
_BRACKETS = re.compile(r"\[.*?\]")


def hellaswag(row: Columns, source: str) -> Iterator[Record]:
    """HellaSwag as lm-evaluation-harness prepares it, or a file where that has been done."""
    context, endings = text(row, "ctx"), options(row.get("endings"))
    if "ctx_a" in row:
        second = text(row, "ctx_b", empty=True).capitalize()
        context = _clean(f"{text(row, 'activity_label')}: {text(row, 'ctx_a')} {second}")
        endings = tuple(map(_clean, endings))
    answer = position(row.get("label"), [str(i) for i in range(len(endings))])
    yield Choice(source, context, endings, answer)


def _clean(said: str) -> str:
    """The harness's rules: titles end a sentence, other brackets go, then double blanks, once."""
    return _BRACKETS.sub("", _TITLE.sub(". ", said.strip())).replace("  ", " ")


# -- passage --------------------------------------------------------------------------------------


def passage(row: Columns, source: str) -> Iterator[Record]:
    yield Passage(source, text(row, "text"))


def line(row: Columns, source: str) -> Iterator[Record]:
    """WikiText's lines; blank ones belong to the text, whose protocols join all of them."""
    yield Passage(source, text(row, "text", empty=True))
