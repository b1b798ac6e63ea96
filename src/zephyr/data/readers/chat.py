"""Row readers of chats: a question and its answer, or messages (OpenAI, ShareGPT, Alpaca)."""

from collections.abc import Iterator

from zephyr.data.readers.parsing import (
    TURN_ROLES,
    RowReader,
    RowValues,
    SkippedRecord,
    UnreadableRowError,
    check_conversation,
    make_prompt,
    parse_message,
    read_alpaca_prompt,
    read_list,
    read_text,
    read_turns,
    read_turns_or_text,
)
from zephyr.records import Chat, Message, Record


def question_answer_reader(question: str, answer: str) -> RowReader:
    """Makes a reader of two columns: the question and its answer."""

    def read_row(row: RowValues, source: str) -> Iterator[Record]:
        prompt = make_prompt(read_text(row, question))
        yield Chat(source, (*prompt, Message("assistant", read_text(row, answer))))

    return read_row


def read_prompt_completion(row: RowValues, source: str) -> Iterator[Record]:
    """Reads TRL's prompt and completion, as texts or as lists of messages."""
    all_messages = [
        *read_turns_or_text(row, "prompt", "user"),
        *read_turns_or_text(row, "completion", "assistant"),
    ]
    yield Chat(source, check_conversation(all_messages, "assistant"))


def read_alpaca(row: RowValues, source: str) -> Iterator[Record]:
    """Reads Alpaca's columns, with LLaMA-Factory's `system` and `history` if present."""
    yield Chat(source, (*read_alpaca_prompt(row), Message("assistant", read_text(row, "output"))))


def read_openai_messages(row: RowValues, source: str) -> Iterator[Record]:
    """Reads OpenAI's chat format: the column `messages`."""
    yield Chat(source, check_conversation(read_turns(row, "messages"), "assistant"))


def read_sharegpt(row: RowValues, source: str) -> Iterator[Record]:
    """Reads ShareGPT's `conversations`, or LIMA's plain texts as alternating turns."""
    values = read_list(row, "conversations")
    if all(isinstance(value, str) for value in values):
        parsed_messages = [
            Message(TURN_ROLES[i % 2], read_text({"turn": v}, "turn")) for i, v in enumerate(values)
        ]
    else:
        parsed_messages = [parse_message(value) for value in values]
    if parsed_messages[-1].role == "user":
        parsed_messages.pop()  # a last question without an answer can't be trained on
    if not parsed_messages:
        raise UnreadableRowError("column 'conversations' holds no answer")
    yield Chat(source, check_conversation(parsed_messages, "assistant"))


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
        raise SkippedRecord("the answer is marked as wrong")
    yield from question_answer_reader("question", "answer")(row, source)
