"""Row readers of chats: a question and its answer, or messages (OpenAI, ShareGPT, Alpaca)."""

from collections.abc import Iterator

from zephyr.data.readers.parsing import (
    TURN_ROLES,
    RowReader,
    RowValues,
    SkippedRecord,
    UnreadableRowError,
    check_turn_flags,
    make_conversation,
    make_prompt,
    parse_turns,
    read_alpaca_prompt,
    read_flag,
    read_list,
    read_text,
    read_turns_or_text,
)
from zephyr.records import Chat, Message, Record

_ENDS_WITH_QUESTION = "the last turn of the conversation is a question without an answer"
_MARKED_WRONG = "the answer is marked as wrong"


def question_answer_reader(question: str, answer: str) -> RowReader:
    """Makes a reader of two columns: the question and its answer."""

    def read_row(row: RowValues, source: str) -> Iterator[Record]:
        turns = [Message("user", read_text(row, question))]
        turns.append(Message("assistant", read_text(row, answer)))
        yield Chat(source, make_conversation(row, turns, "assistant"))

    return read_row


def read_prompt_completion(row: RowValues, source: str) -> Iterator[Record]:
    """Reads TRL's prompt and completion, as texts or as lists of messages.

    With `label` (its format for KTO), completions that are marked as wrong are skipped.
    """
    if read_flag(row, "label") is False:
        raise SkippedRecord(_MARKED_WRONG)
    for column in ("prompt", "completion"):
        check_turn_flags(row[column] if isinstance(row.get(column), list) else ())
    all_messages = [
        *read_turns_or_text(row, "prompt", "user"),
        *read_turns_or_text(row, "completion", "assistant"),
    ]
    yield Chat(source, make_conversation(row, all_messages, "assistant"))


def read_alpaca(row: RowValues, source: str) -> Iterator[Record]:
    """Reads Alpaca's columns, with LLaMA-Factory's `system`, `history` and `kto_tag` if present."""
    if read_flag(row, "kto_tag") is False:
        raise SkippedRecord(_MARKED_WRONG)
    yield Chat(source, (*read_alpaca_prompt(row), Message("assistant", read_text(row, "output"))))


def read_openai_messages(row: RowValues, source: str) -> Iterator[Record]:
    """Reads OpenAI's chat format: the column `messages`."""
    values = read_list(row, "messages")
    if read_flag(row, "kto_tag") is False:
        raise SkippedRecord(_MARKED_WRONG)
    check_turn_flags(values)
    yield Chat(source, make_conversation(row, parse_turns(values), "assistant"))


def read_sharegpt(row: RowValues, source: str) -> Iterator[Record | SkippedRecord]:
    """Reads ShareGPT's `conversations`, or LIMA's plain texts as alternating turns.

    A last question without an answer is skipped, and what stands before it is read.
    """
    values = read_list(row, "conversations")
    if read_flag(row, "kto_tag") is False:
        raise SkippedRecord(_MARKED_WRONG)
    if all(isinstance(value, str) for value in values):
        messages = [
            Message(TURN_ROLES[i % 2], read_text({"turn": v}, "turn")) for i, v in enumerate(values)
        ]
    else:
        check_turn_flags(values)
        messages = parse_turns(values)
    ends_with_question = messages[-1:] != [] and messages[-1].role == "user"
    if ends_with_question:
        messages.pop()
    if not messages:
        raise UnreadableRowError("column 'conversations' holds no answer")
    yield Chat(source, make_conversation(row, messages, "assistant"))
    if ends_with_question:
        yield SkippedRecord(_ENDS_WITH_QUESTION)


def read_mathdial(row: RowValues, source: str) -> Iterator[Record]:
    """Reads MathDial: a problem with a student's wrong solution, and the correct solution."""
    attempt = read_text(row, "student_incorrect_solution").strip()
    problem = f"{read_text(row, 'question').strip()}\n\nThis is what I have tried:\n{attempt}"
    yield Chat(
        source, (*make_prompt(problem), Message("assistant", read_text(row, "ground_truth")))
    )


def read_wiki_qa(row: RowValues, source: str) -> Iterator[Record | SkippedRecord]:
    """Reads WikiQA: skips the many sentences that do not answer the question (label 0)."""
    if str(row.get("label")) not in ("0", "1"):
        raise UnreadableRowError("column 'label' is neither 0 nor 1")
    if str(row["label"]) == "0":
        raise SkippedRecord(_MARKED_WRONG)
    yield from question_answer_reader("question", "answer")(row, source)
