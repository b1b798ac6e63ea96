"""Readers of conversations: rows that hold a question and its answer, or turns."""

from collections.abc import Iterator

from zephyr.data.readers.values import (
    SPOKEN,
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
from zephyr.records import Chat, Message, Record


def question_answer(question: str, answer: str) -> Reader:
    """A reader of two columns."""

    def read(row: Columns, source: str) -> Iterator[Record]:
        prompt = asked(text(row, question))
        yield Chat(source, (*prompt, Message("assistant", text(row, answer))))

    return read


def prompt_completion(row: Columns, source: str) -> Iterator[Record]:
    """TRL's columns, as texts or as lists of turns."""
    spoken = [*said(row, "prompt", "user"), *said(row, "completion", "assistant")]
    yield Chat(source, conversation(spoken, "assistant"))


def instruction(row: Columns, source: str) -> Iterator[Record]:
    """Alpaca's columns, with LLaMA-Factory's `system` and `history` where they are there."""
    yield Chat(source, (*instructed(row), Message("assistant", text(row, "output"))))


def messages(row: Columns, source: str) -> Iterator[Record]:
    yield Chat(source, conversation(turns(row, "messages"), "assistant"))


def conversations(row: Columns, source: str) -> Iterator[Record]:
    """ShareGPT's turns, or LIMA's plain texts in turn."""
    values = items(row, "conversations")
    if all(isinstance(value, str) for value in values):
        spoken = [Message(SPOKEN[i % 2], text({"turn": v}, "turn")) for i, v in enumerate(values)]
    else:
        spoken = [message(value) for value in values]
    if spoken[-1].role == "user":
        spoken.pop()  # a last question without an answer teaches nothing
    if not spoken:
        raise Unreadable("column 'conversations' holds no answer")
    yield Chat(source, conversation(spoken, "assistant"))


def mathdial(row: Columns, source: str) -> Iterator[Record]:
    """A problem with a student's wrong solution, and the right one; the dialogue is not read."""
    tried = text(row, "student_incorrect_solution").strip()
    problem = f"{text(row, 'question').strip()}\n\nThis is what I have tried:\n{tried}"
    yield Chat(source, (*asked(problem), Message("assistant", text(row, "ground_truth"))))


def wiki_qa(row: Columns, source: str) -> Iterator[Record | LeftOut]:
    """Only the sentences that answer the question; the set holds many that don't (label 0)."""
    if str(row.get("label")) not in ("0", "1"):
        raise Unreadable("column 'label' is neither 0 nor 1")
    if str(row["label"]) == "0":
        raise LeftOut("the answer is marked as wrong")
    yield from question_answer("question", "answer")(row, source)
