"""Row readers of preference pairs (DPO): a prompt with a chosen and a rejected answer."""

import re
from collections.abc import Iterator

from zephyr.data.readers.parsing import (
    ROLE_ALIASES,
    RowReader,
    RowValues,
    SkippedRecord,
    UnreadableRowError,
    check_columns,
    check_conversation,
    make_conversation,
    make_prompt,
    parse_message,
    read_alpaca_prompt,
    read_list,
    read_text,
    read_turns,
    read_turns_or_text,
)
from zephyr.records import Message, Pair, Record


def _make_pair(
    source: str, prompt: tuple[Message, ...], chosen: str, rejected: str
) -> Iterator[Record]:
    if chosen == rejected:
        raise SkippedRecord("both answers are the same")
    yield Pair(source, prompt, chosen, rejected)


def preference_reader(
    question: str, chosen: str, rejected: str, system: str | None = None
) -> RowReader:
    """Makes a reader of preference pairs by column: question, chosen, rejected, maybe system."""

    def read_row(row: RowValues, source: str) -> Iterator[Record]:
        system_text = read_text(row, system, allow_empty=True) if system else ""
        prompt = make_prompt(read_text(row, question), system_text)
        yield from _make_pair(source, prompt, read_text(row, chosen), read_text(row, rejected))

    return read_row


def read_trl_pair(row: RowValues, source: str) -> Iterator[Record]:
    """Reads TRL's preference columns, as texts or as lists of messages.

    `chosen` and `rejected` may be whole conversations, as in UltraFeedback.
    """
    prompt = make_conversation(row, read_turns_or_text(row, "prompt", "user"), "user")
    yield from _read_answers(row, source, prompt)


def read_alpaca_pair(row: RowValues, source: str) -> Iterator[Record]:
    """Reads LLaMA-Factory's preference columns: Alpaca's, and two answers."""
    yield from _read_answers(row, source, read_alpaca_prompt(row))


def read_sharegpt_pair(row: RowValues, source: str) -> Iterator[Record]:
    """Reads LLaMA-Factory's ShareGPT preferences: messages, and two answers as messages."""
    prompt = make_conversation(row, read_turns(row, "conversations"), "user")
    yield from _read_answers(row, source, prompt)


def _read_answers(
    row: RowValues,
    source: str,
    prompt: tuple[Message, ...],
    columns: tuple[str, str] = ("chosen", "rejected"),
) -> Iterator[Record]:
    """Reads the two answers to a prompt; those that are conversations must begin with it."""
    (context, chosen), (other_context, rejected) = (_read_answer(row, side) for side in columns)
    contexts = [
        _join_context(prompt, turns, side)
        for turns, side in zip((context, other_context), columns, strict=True)
    ]
    if contexts[0] != contexts[1]:
        raise UnreadableRowError("the conversations part before the last answer")
    yield from _make_pair(source, contexts[0], chosen, rejected)


def _read_answer(row: RowValues, side: str) -> tuple[list[Message], str]:
    """Reads an answer, and the messages before it where it is a whole conversation."""
    value = row.get(side)
    if not isinstance(value, dict | list):
        return [], read_text(row, side)
    *context, answer = [parse_message(value)] if isinstance(value, dict) else read_turns(row, side)
    if answer.role != "assistant" or (context and context[0].role == "assistant"):
        raise UnreadableRowError(
            f"column {side!r} is not an answer, or a conversation that ends with one"
        )
    return context, answer.content


def _join_context(
    prompt: tuple[Message, ...], context: list[Message], side: str
) -> tuple[Message, ...]:
    """The messages before an answer: the prompt, and what a conversation adds between the two."""
    if not context:
        return prompt
    systems = [m for m in (*prompt[:1], *context[:1]) if m.role == "system"]
    if len({m.content.strip() for m in systems}) > 1:
        raise UnreadableRowError(f"the system message of column {side!r} is not the prompt's")
    prompt_turns, turns = ([m for m in each if m.role != "system"] for each in (prompt, context))
    start = [(m.role, m.content.strip()) for m in turns[: len(prompt_turns)]]
    if start != [(m.role, m.content.strip()) for m in prompt_turns]:
        raise UnreadableRowError(
            f"column {side!r} is a conversation that does not begin with the prompt",
            "mend the prompt, or hide it so that the conversations are read alone "
            "(`columns: {unused: prompt}`)",
        )
    return check_conversation([*systems[:1], *prompt_turns, *turns[len(prompt_turns) :]], "user")


def read_conversation_pair(row: RowValues, source: str) -> Iterator[Record]:
    """Reads two conversations that differ in the last answer, as messages or a transcript."""
    (*context, chosen), (*other_context, rejected) = (
        _read_conversation(row, side) for side in ("chosen", "rejected")
    )
    prompt = make_conversation(row, context, "user")
    if other_context != context:
        raise UnreadableRowError("the conversations part before the last answer")
    yield from _make_pair(source, prompt, chosen.content, rejected.content)


_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def _read_conversation(row: RowValues, side: str) -> list[Message]:
    value = row.get(side)
    if isinstance(value, str):
        start, *parts = _SPEAKER.split(value)
        if start.strip() or not parts:
            raise UnreadableRowError(f"column {side!r} is not a transcript")
        messages = [
            Message(ROLE_ALIASES[who.lower()], words.strip())
            for who, words in zip(parts[::2], parts[1::2], strict=True)
        ]
    else:
        messages = read_turns(row, side)
    if messages[-1].role != "assistant" or not all(m.content for m in messages):
        raise UnreadableRowError(f"column {side!r} does not end with an answer, or a turn is empty")
    return messages


def read_openai_pair(row: RowValues, source: str) -> Iterator[Record]:
    """Reads Intel's pairs in OpenAI's format: input.messages, and two outputs of one turn."""
    input_object = row.get("input")
    if not isinstance(input_object, dict):
        raise UnreadableRowError("column 'input' is not an object")
    check_columns(input_object)
    prompt = make_conversation(row, read_turns(input_object, "messages"), "user")
    yield from _read_answers(row, source, prompt, ("preferred_output", "non_preferred_output"))


def read_epfl(row: RowValues, source: str) -> Iterator[Record | SkippedRecord]:
    """Reads the course's raw preference file: a question and answers A and B, with votes.

    Preferences without an overall winner (AB), or with an empty answer (blank, or three dots), are
    skipped, as the seed project did.
    """
    prompt = make_prompt(read_text(row, "question_complete"))
    for comparison in read_list(row, "preference"):
        if not isinstance(comparison, dict):
            raise UnreadableRowError("a preference is not an object")
        answers = [read_text(comparison, side, allow_empty=True) for side in ("A", "B")]
        winner = comparison.get("overall")
        if winner not in ("A", "B"):
            yield SkippedRecord("neither answer is preferred overall")
        elif any(answer.strip() in ("", "...") for answer in answers):
            yield SkippedRecord("an answer is empty")
        elif answers[0] == answers[1]:
            yield SkippedRecord("both answers are the same")
        else:
            chosen, rejected = answers if winner == "A" else answers[::-1]
            yield Pair(source, prompt, chosen, rejected)


def read_shp(row: RowValues, source: str) -> Iterator[Record]:
    """Reads Stanford Human Preferences (SHP): `labels` is 1 where answer A was preferred."""
    if row.get("labels") not in (0, 1):
        raise UnreadableRowError("column 'labels' is neither 0 nor 1")
    sides = (read_text(row, "human_ref_B"), read_text(row, "human_ref_A"))
    chosen = int(row["labels"])
    yield from _make_pair(
        source, make_prompt(read_text(row, "history")), sides[chosen], sides[1 - chosen]
    )
