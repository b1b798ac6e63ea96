"""Readers: rows in the columns of their sources give exactly these records."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.in_memory_sources import read_source
from zephyr.data import quiz_format
from zephyr.data.column_formats import COLUMN_FORMATS
from zephyr.data.readers import chat, choice, pair
from zephyr.data.readers.parsing import RowReader, SkippedRecord, UnreadableRowError
from zephyr.data.table import SOURCES
from zephyr.errors import ZephyrError
from zephyr.recipe.data import SourceSpec
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record, RecordKind

Row = dict[str, Any]


def make_messages(*texts: str, system: str = "") -> tuple[Message, ...]:
    """Texts that user and assistant say in turn."""
    messages = [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return (Message("system", system), *messages) if system else tuple(messages)


def reader_of(name: str) -> RowReader:
    return SOURCES[name].reader


def read_one(reader: RowReader, row: Row) -> Record | SkippedRecord:
    [record] = reader(row, "s")
    return record


def failure_reason(reader: RowReader, row: Row, kind: type[Exception] = UnreadableRowError) -> str:
    with pytest.raises(kind) as caught:
        list(reader(row, "s"))
    return str(caught.value)


# -- chat -----------------------------------------------------------------------------------------

CHAT_COLUMNS = {
    "khan_academy": ("prompt", "text"),
    "math_college": ("prompt_college", "completion"),
    "arxiv_math": ("question", "answer"),
    "magicoder": ("problem", "solution"),
    "goat": ("instruction", "output"),
    "metamathqa": ("query", "response"),
    "code_assistant": ("question", "answer"),
    "gsm8k": ("question", "answer"),
    "gsm8k_socratic": ("question", "answer"),
}


@pytest.mark.parametrize("name", CHAT_COLUMNS)
def test_two_columns(name: str) -> None:
    """Columns beside them change nothing: goat's `input` and `answer`, for one."""
    question, answer = CHAT_COLUMNS[name]
    row = {"input": "1 + 1", "answer": "2", question: " Why?\n", answer: "So."}
    assert SOURCES[name].columns == (question, answer)
    assert read_one(reader_of(name), row) == Chat("s", make_messages(" Why?\n", "So."))
    assert failure_reason(reader_of(name), row | {answer: " \n"}) == f"column {answer!r} is empty"
    assert (
        failure_reason(reader_of(name), row | {question: None}) == f"column {question!r} is empty"
    )
    del row[question]
    assert failure_reason(reader_of(name), row) == f"column {question!r} is missing"


@pytest.mark.parametrize("name", ["open_platypus", "math_instruct", "code_alpaca"])
def test_instruction_and_input_are_joined(name: str) -> None:
    row = {"instruction": "Add.", "input": "1, 2", "output": "3", "data_source": "x"}
    assert read_one(reader_of(name), row) == Chat("s", make_messages("Add.\n1, 2", "3"))
    for nothing in ("", None):
        assert read_one(reader_of(name), row | {"input": nothing}) == Chat(
            "s", make_messages("Add.", "3")
        )
    without = {column: value for column, value in row.items() if column != "instruction"}
    assert failure_reason(reader_of(name), without) == "column 'instruction' is missing"
    del row["input"]
    assert read_one(reader_of(name), row) == Chat("s", make_messages("Add.", "3"))
    assert (
        failure_reason(reader_of(name), row | {"instruction": ""})
        == "column 'instruction' is empty"
    )


def test_history_and_system_as_llama_factory_writes_them() -> None:
    row = {
        "instruction": "And 3?",
        "input": "",
        "output": "9",
        "system": "Be brief.",
        "history": [["1?", "1"], ["2?", "4"]],
    }
    expected = make_messages("1?", "1", "2?", "4", "And 3?", "9", system="Be brief.")
    assert read_one(chat.read_alpaca, row) == Chat("s", expected)
    for nothing in (None, []):
        plain = row | {"history": nothing, "system": None}
        assert read_one(chat.read_alpaca, plain) == Chat("s", make_messages("And 3?", "9"))


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ("1?", "column 'history' is not a list"),
        (7, "column 'history' is not a list"),
        (["1?", "1"], "an earlier turn is not a question and an answer"),
        ([["1?"]], "an earlier turn is not a question and an answer"),
        ([["1?", "1", "2?"]], "an earlier turn is not a question and an answer"),
        ([["1?", ""]], "column 'history' is empty"),
        ([["1?", None]], "column 'history' is empty"),
        ([["1?", True]], "column 'history' is not text"),
    ],
)
def test_a_history_of_another_form(history: Any, expected: str) -> None:
    row = {"instruction": "3?", "output": "9", "history": history}
    assert failure_reason(chat.read_alpaca, row) == expected


def test_prompts_and_completions_as_trl_writes_them() -> None:
    row = {"prompt": "a", "completion": " b\n"}
    assert read_one(chat.read_prompt_completion, row) == Chat("s", make_messages("a", " b\n"))
    prompt = [{"role": "system", "content": "c"}, {"role": "user", "content": "a"}]
    conversational_row = {"prompt": prompt, "completion": [{"role": "assistant", "content": "b"}]}
    assert read_one(chat.read_prompt_completion, conversational_row) == Chat(
        "s", make_messages("a", "b", system="c")
    )
    assert read_one(
        chat.read_prompt_completion, conversational_row | {"completion": "b"}
    ) == read_one(chat.read_prompt_completion, conversational_row)
    odd = "a system turn is not the first"
    assert (
        failure_reason(chat.read_prompt_completion, conversational_row | {"completion": prompt})
        == odd
    )
    assert (
        failure_reason(chat.read_prompt_completion, conversational_row | {"prompt": []})
        == "column 'prompt' is not a list"
    )
    assert failure_reason(chat.read_prompt_completion, row | {"completion": ""}) == (
        "column 'completion' is empty"
    )
    assert (
        failure_reason(chat.read_prompt_completion, {"prompt": "a"})
        == "column 'completion' is missing"
    )


def test_lima_keeps_later_turns_and_drops_a_last_question() -> None:
    lima = reader_of("lima")
    assert read_one(lima, {"conversations": ["a", "b"]}) == Chat("s", make_messages("a", "b"))
    assert read_one(lima, {"conversations": ["a", "b", "c", "d"]}) == Chat(
        "s", make_messages("a", "b", "c", "d")
    )
    chat_record, skipped = lima({"conversations": ["a", "b", "c"]}, "s")
    assert chat_record == Chat("s", make_messages("a", "b"))
    assert str(skipped) == "the last turn of the conversation is a question without an answer"
    assert (
        failure_reason(lima, {"conversations": ["a"]}) == "column 'conversations' holds no answer"
    )
    assert failure_reason(lima, {"conversations": ["a", ""]}) == "column 'turn' is empty"
    for nothing in ([], "a", None):
        assert (
            failure_reason(lima, {"conversations": nothing})
            == "column 'conversations' is not a list"
        )


TOOL_TURN = "a turn calls a tool, or is a tool's"
SHAREGPT_TURNS = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("reader", "column"),
    [(chat.read_sharegpt, "conversations"), (chat.read_openai_messages, "messages")],
)
def test_turns_in_both_spellings(reader: RowReader, column: str) -> None:
    assert read_one(reader, {column: SHAREGPT_TURNS}) == Chat("s", make_messages("a", "b"))
    messages = [
        {"role": "System", "content": "c"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    assert read_one(reader, {column: messages}) == Chat("s", make_messages("a", "b", system="c"))


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        (
            SHAREGPT_TURNS[::-1] + SHAREGPT_TURNS[1:],
            "the first turn is the assistant's",
        ),
        ([SHAREGPT_TURNS[0], *SHAREGPT_TURNS], "two turns of the user in a row"),
        ([*SHAREGPT_TURNS, SHAREGPT_TURNS[1]], "two turns of the assistant in a row"),
        (
            [*SHAREGPT_TURNS, {"role": "system", "content": "c"}, *SHAREGPT_TURNS],
            "a system turn is not the first",
        ),
        (SHAREGPT_TURNS[1:], "the first turn is the assistant's"),
        ([{"role": "tool", "content": "x"}, *SHAREGPT_TURNS], TOOL_TURN),
        ([SHAREGPT_TURNS[0], {"from": "function_call", "value": "{}"}], TOOL_TURN),
        ([SHAREGPT_TURNS[0], {"from": "Observation", "value": "51"}], TOOL_TURN),
        (
            [SHAREGPT_TURNS[0], {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}],
            TOOL_TURN,
        ),
        ([{"role": "narrator", "content": "x"}, *SHAREGPT_TURNS], "a turn has an unknown role"),
        ([SHAREGPT_TURNS[0], {"from": "gpt", "value": " "}], "a turn of the assistant is empty"),
        ([SHAREGPT_TURNS[0], {"from": "gpt", "value": None}], "a turn of the assistant is empty"),
        ([SHAREGPT_TURNS[0], {"from": "gpt", "value": True}], "column 'value' is not text"),
        ([{"from": "human", "value": ""}, SHAREGPT_TURNS[1]], "a turn of the user is empty"),
        ([{"role": None, "content": "x"}, *SHAREGPT_TURNS], "a turn has an unknown role"),
        ([{"from": "human"}, SHAREGPT_TURNS[1]], "column 'value' is missing"),
        (["a", *SHAREGPT_TURNS], "a turn is not an object"),
    ],
)
def test_turns_of_another_form(conversation: Any, expected: str) -> None:
    assert failure_reason(chat.read_sharegpt, {"conversations": conversation}) == expected
    assert failure_reason(chat.read_openai_messages, {"messages": conversation}) == expected


def test_wiki_qa_leaves_wrong_answers_out() -> None:
    row = {"question": "Where?", "document_title": "D", "answer": "There.", "label": 1}
    assert read_one(reader_of("wiki_qa"), row) == Chat("s", make_messages("Where?", "There."))
    assert read_one(reader_of("wiki_qa"), row | {"label": "1"}) == Chat(
        "s", make_messages("Where?", "There.")
    )
    for wrong in (0, "0"):
        assert failure_reason(reader_of("wiki_qa"), row | {"label": wrong}, SkippedRecord) == (
            "the answer is marked as wrong"
        )
    for odd in (2, "yes", None, True):
        assert (
            failure_reason(reader_of("wiki_qa"), row | {"label": odd})
            == "column 'label' is neither 0 nor 1"
        )


def test_mathdial_asks_with_what_the_student_tried() -> None:
    row = {"question": " Why? ", "student_incorrect_solution": "4\n", "ground_truth": "So.\n 5"}
    question = "Why?\n\nThis is what I have tried:\n4"
    assert read_one(reader_of("mathdial"), row) == Chat("s", make_messages(question, "So.\n 5"))
    for column in row:
        assert (
            failure_reason(reader_of("mathdial"), row | {column: " "})
            == f"column {column!r} is empty"
        )


# -- columns and keys beside a conversation -------------------------------------------------------

CHAT_FORMS: list[tuple[RowReader, Row]] = [
    (chat.read_openai_messages, {"messages": SHAREGPT_TURNS}),
    (chat.read_sharegpt, {"conversations": SHAREGPT_TURNS}),
    (chat.read_sharegpt, {"conversations": ["a", "b"]}),
    (chat.read_alpaca, {"instruction": "a", "output": "b"}),
    (chat.read_prompt_completion, {"prompt": "a", "completion": "b"}),
    (chat.question_answer_reader("question", "answer"), {"question": "a", "answer": "b"}),
]
PAIR_FORMS: list[tuple[RowReader, Row]] = [
    (pair.read_trl_pair, {"prompt": "a", "chosen": "b", "rejected": "c"}),
    (pair.read_alpaca_pair, {"instruction": "a", "chosen": "b", "rejected": "c"}),
    (
        pair.read_sharegpt_pair,
        {"conversations": SHAREGPT_TURNS[:1], "chosen": "b", "rejected": "c"},
    ),
    (
        pair.read_conversation_pair,
        {
            "chosen": SHAREGPT_TURNS,
            "rejected": [SHAREGPT_TURNS[0], {"from": "gpt", "value": "c"}],
        },
    ),
    (
        pair.read_openai_pair,
        {
            "input": {"messages": SHAREGPT_TURNS[:1]},
            "preferred_output": SHAREGPT_TURNS[1:],
            "non_preferred_output": [{"role": "assistant", "content": "c"}],
        },
    ),
]


def as_record(reader: RowReader, *prompt: str, system: str = "") -> Record:
    """The record that a form above gives: the answer b to this prompt, rather than c."""
    if any(reader is form for form, _ in PAIR_FORMS):
        return Pair("s", make_messages(*prompt, system=system), "b", "c")
    return Chat("s", make_messages(*prompt, "b", system=system))


@pytest.mark.parametrize(("reader", "row"), CHAT_FORMS + PAIR_FORMS)
def test_system_and_history_beside_any_form_are_its_first_messages(
    reader: RowReader, row: Row
) -> None:
    for column in ("system", "system_prompt"):
        assert read_one(reader, row | {column: "Rhyme."}) == as_record(reader, "a", system="Rhyme.")
    history = {"history": [["x", "y"]], "system": "Rhyme."}
    assert read_one(reader, row | history) == as_record(reader, "x", "y", "a", system="Rhyme.")
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert read_one(reader, row | {"history": turns}) == as_record(reader, "x", "y", "a")
    for blank in (None, float("nan"), "", " "):
        nothing = {"system": blank, "history": None, "tools": blank, "weight": blank}
        assert read_one(reader, row | nothing) == as_record(reader, "a")
    two = {"system": "Rhyme.", "system_prompt": "Sing."}
    assert failure_reason(reader, row | two) == "columns 'system' and 'system_prompt' differ"


@pytest.mark.parametrize(("reader", "row"), CHAT_FORMS + PAIR_FORMS)
def test_columns_that_cannot_be_learned(reader: RowReader, row: Row) -> None:
    for column, things in (("tools", "tools"), ("images", "pictures"), ("audios", "sounds")):
        reason = f"column {column!r} holds {things}, and only text is learned"
        assert failure_reason(reader, row | {column: [{"name": "x"}]}) == reason
        for blank in ([], "[]", None, {}):
            assert read_one(reader, row | {column: blank}) == as_record(reader, "a")
    for one in (1, 1.0, "1", True):
        assert read_one(reader, row | {"weight": one}) == as_record(reader, "a")
    for zero in (0, 0.0, "0", False):
        reason = failure_reason(reader, row | {"weight": zero}, SkippedRecord)
        assert reason == "the row has a weight of 0"
    assert failure_reason(reader, row | {"weight": 0.5}) == "'weight' is neither 0 nor 1"


def test_a_system_message_in_a_column_and_in_the_turns() -> None:
    turns = [{"role": "system", "content": "Rhyme."}, *SHAREGPT_TURNS]
    expected = Chat("s", make_messages("a", "b", system="Rhyme."))
    row = {"messages": turns, "system": "Rhyme."}
    assert read_one(chat.read_openai_messages, row) == expected
    with_history = {"messages": turns, "history": [["x", "y"]]}
    assert read_one(chat.read_openai_messages, with_history) == Chat(
        "s", make_messages("x", "y", "a", "b", system="Rhyme.")
    )
    assert failure_reason(chat.read_openai_messages, row | {"system": "Sing."}) == (
        "the system message of the turns is not that of the column"
    )


@pytest.mark.parametrize("flag", ["weight", "train", "training", "loss"])
def test_flags_of_turns_say_that_answers_are_learned_or_the_row_is_not_read(flag: str) -> None:
    question, answer = SHAREGPT_TURNS

    def row(question_flag: Any, answer_flag: Any) -> Row:
        return {"conversations": [question | {flag: question_flag}, answer | {flag: answer_flag}]}

    for question_flag, answer_flag in ((0, 1), (None, 1.0), (False, True), (None, None)):
        assert read_one(chat.read_sharegpt, row(question_flag, answer_flag)) == Chat(
            "s", make_messages("a", "b")
        )
    for not_learned in (0, False, "0"):
        assert failure_reason(chat.read_sharegpt, row(0, not_learned)) == (
            f"{flag!r} says that an answer is not to be learned"
        )
    assert failure_reason(chat.read_sharegpt, row(1, 1)) == (
        f"{flag!r} says that a turn which is no answer is to be learned"
    )
    assert failure_reason(chat.read_sharegpt, row(0, 0.3)) == f"{flag!r} is neither 0 nor 1"


def test_completions_that_are_marked_as_wrong_are_not_learned() -> None:
    """TRL's and LLaMA-Factory's forms for KTO."""
    wrong = "the answer is marked as wrong"
    row = {"prompt": "a", "completion": "b"}
    assert failure_reason(chat.read_prompt_completion, row | {"label": False}, SkippedRecord) == (
        wrong
    )
    assert read_one(chat.read_prompt_completion, row | {"label": True})
    for reader, values in CHAT_FORMS[:4]:
        assert failure_reason(reader, values | {"kto_tag": "false"}, SkippedRecord) == wrong
        assert read_one(reader, values | {"kto_tag": True})


@pytest.mark.parametrize("system", ["", " \n", None, float("nan"), []])
@pytest.mark.parametrize("reader", [chat.read_openai_messages, chat.read_sharegpt])
def test_a_blank_system_turn_is_none(reader: RowReader, system: Any) -> None:
    turns = [{"role": "system", "content": system}, *SHAREGPT_TURNS]
    row = {"messages": turns, "conversations": turns}
    assert read_one(reader, row) == Chat("s", make_messages("a", "b"))
    assert read_one(reader, row | {"system": "Rhyme."}) == Chat(
        "s", make_messages("a", "b", system="Rhyme.")
    )


def test_other_names_of_roles() -> None:
    turns = [
        {"role": "developer", "content": "Rhyme."},
        {"role": "user", "content": "a"},
        {"role": "model", "content": "b"},
    ]
    expected = Chat("s", make_messages("a", "b", system="Rhyme."))
    assert read_one(chat.read_openai_messages, {"messages": turns}) == expected


def test_parts_of_text_are_joined_and_other_parts_are_not_read() -> None:
    def turns(*parts: Any) -> Row:
        return {"messages": [{"role": "user", "content": list(parts)}, SHAREGPT_TURNS[1]]}

    text = {"type": "text", "text": "Why is "}
    row = turns(text, {"type": "input_text", "text": "it"}, " so?")
    expected = Chat("s", make_messages("Why is it so?", "b"))
    assert read_one(chat.read_openai_messages, row) == expected
    for picture in ({"type": "image_url", "image_url": {"url": "x"}}, {"type": "image"}):
        assert failure_reason(chat.read_openai_messages, turns(text, picture)) == (
            "a turn holds a picture, and only text is learned"
        )
    for other in ({"type": "input_audio"}, {"text": 7}, 7, {"type": ["text"], "text": "a"}):
        assert failure_reason(chat.read_openai_messages, turns(text, other)) == (
            "a turn holds a part that is not text, and only text is learned"
        )
    blank = turns({"type": "text", "text": " "})
    assert failure_reason(chat.read_openai_messages, blank) == "a turn of the user is empty"


@pytest.mark.parametrize(
    ("cell", "text"),
    [(25, "25"), (25.0, "25"), (-3, "-3"), (0, "0"), (2.5, "2.5"), (Decimal("25.00"), "25")],
)
def test_a_number_is_its_digits(cell: Any, text: str) -> None:
    expected = Chat("s", make_messages("a", text))
    row = {"instruction": "a", "input": float("nan"), "output": cell}
    assert read_one(chat.read_alpaca, row) == expected
    turns = [SHAREGPT_TURNS[0], {"from": "gpt", "value": cell}]
    assert read_one(chat.read_sharegpt, {"conversations": turns}) == expected


def test_a_missing_value_is_no_text() -> None:
    row = {"instruction": "a", "output": "b"}
    expected = Chat("s", make_messages("a", "b"))
    assert read_one(chat.read_alpaca, row | {"input": "nan"}) == expected
    for missing in (None, float("nan"), Decimal("nan")):
        assert read_one(chat.read_alpaca, row | {"input": missing}) == expected
        assert failure_reason(chat.read_alpaca, row | {"output": missing}) == (
            "column 'output' is empty"
        )
    for odd in (True, float("inf"), ["b"], {"a": "b"}):
        assert failure_reason(chat.read_alpaca, row | {"output": odd}) == (
            "column 'output' is not text"
        )


# -- pair -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orca_dpo_pairs", "truthy_dpo"])
def test_a_system_message_where_there_is_one(name: str) -> None:
    question = {"orca_dpo_pairs": "question", "truthy_dpo": "prompt"}[name]
    row = {"system": "Be true.", question: "Why?", "chosen": "So.", "rejected": "No."}
    assert read_one(reader_of(name), row) == Pair(
        "s", make_messages("Why?", system="Be true."), "So.", "No."
    )
    for nothing in ("", None):
        assert read_one(reader_of(name), row | {"system": nothing}) == Pair(
            "s", make_messages("Why?"), "So.", "No."
        )
    del row["system"]
    assert failure_reason(reader_of(name), row) == "column 'system' is missing"


PAIR_COLUMNS = {
    "code_vulnerability": ("question", "chosen", "rejected"),
    "py_dpo": ("prompt", "chosen", "rejected"),
    "h4rmony": ("Prompt", "BetterCompletion", "WorseCompletion"),
}


@pytest.mark.parametrize("name", PAIR_COLUMNS)
def test_a_question_and_two_answers(name: str) -> None:
    question, chosen, rejected = PAIR_COLUMNS[name]
    row = {"lang": "c", "system": "unused", question: "Why?", chosen: "So.", rejected: "No."}
    assert read_one(reader_of(name), row) == Pair("s", make_messages("Why?"), "So.", "No.")
    assert (
        failure_reason(reader_of(name), row | {chosen: "No."}, SkippedRecord)
        == "both answers are the same"
    )
    assert failure_reason(reader_of(name), row | {rejected: ""}) == f"column {rejected!r} is empty"


def test_shp_takes_the_side_that_its_label_names() -> None:
    row = {
        "history": "Why?",
        "human_ref_A": "a",
        "human_ref_B": "b",
        "labels": 1,
        "score_A": 9,
        "score_B": 3,
    }
    for domain in ("askengineers", "askphysics", "askscience", "explainlikeimfive"):
        reader = reader_of(f"shp_{domain}")
        assert read_one(reader, row) == Pair("s", make_messages("Why?"), "a", "b")
        assert read_one(reader, row | {"labels": 0}) == Pair("s", make_messages("Why?"), "b", "a")
        assert failure_reason(reader, row | {"labels": 2}) == "column 'labels' is neither 0 nor 1"
        assert failure_reason(reader, row | {"labels": [1]}) == "column 'labels' is neither 0 nor 1"


PROMPT_TURNS = [
    {"content": "a", "role": "user"},
    {"content": "b", "role": "assistant"},
    {"content": "c", "role": "user"},
]


@pytest.mark.parametrize("name", ["dpo_mix_zero_math_untoxic", "exp_dpo_3"])
def test_whole_conversations_part_at_the_last_answer(name: str) -> None:
    row = {
        side: [*PROMPT_TURNS, {"content": side, "role": "assistant"}]
        for side in ("chosen", "rejected")
    }
    assert read_one(reader_of(name), row) == Pair(
        "s", make_messages("a", "b", "c"), "chosen", "rejected"
    )
    system = {"content": "d", "role": "system"}
    longer = {side: [system, *messages] for side, messages in row.items()}
    assert read_one(reader_of(name), longer) == Pair(
        "s", make_messages("a", "b", "c", system="d"), *row
    )
    assert failure_reason(reader_of(name), row | {"rejected": longer["rejected"]}) == (
        "the conversations part before the last answer"
    )
    assert failure_reason(reader_of(name), row | {"chosen": PROMPT_TURNS}) == (
        "column 'chosen' does not end with an answer, or a turn is empty"
    )
    assert failure_reason(reader_of(name), row | {"rejected": row["chosen"]}, SkippedRecord) == (
        "both answers are the same"
    )


def test_hh_rlhf_transcripts() -> None:
    start = "\n\nHuman: Who said\nHuman: hello?\n\nAssistant: Who?\n\nHuman: Me. \n\nAssistant:"
    row = {"chosen": f"{start} Hi.\n\nBye.", "rejected": f"{start} No."}
    prompt = make_messages("Who said\nHuman: hello?", "Who?", "Me.")
    assert read_one(pair.read_conversation_pair, row) == Pair("s", prompt, "Hi.\n\nBye.", "No.")
    empty = "column 'chosen' does not end with an answer, or a turn is empty"
    assert failure_reason(pair.read_conversation_pair, row | {"chosen": start}) == empty
    assert (
        failure_reason(pair.read_conversation_pair, row | {"chosen": start[: start.rindex("\n\n")]})
        == empty
    )
    for text in ("", "hello", f"hello{start} Hi."):
        assert failure_reason(pair.read_conversation_pair, row | {"chosen": text}) == (
            "column 'chosen' is not a transcript"
        )
    assert failure_reason(
        pair.read_conversation_pair, {side: f"\n\nAssistant: a{text}" for side, text in row.items()}
    ) == ("the first turn is the assistant's")


def test_prompt_pairs_as_trl_writes_them() -> None:
    expected = Pair("s", make_messages("Why?"), "So.", "No.")
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    assert read_one(pair.read_trl_pair, row) == expected
    listed = {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    assert read_one(pair.read_trl_pair, listed) == expected
    assert read_one(pair.read_trl_pair, listed | {"rejected": "No."}) == expected
    assert failure_reason(pair.read_trl_pair, listed | {"chosen": listed["prompt"]}) == (
        "column 'chosen' is not an answer, or a conversation that ends with one"
    )
    assert failure_reason(pair.read_trl_pair, listed | {"prompt": listed["chosen"]}) == (
        "the first turn is the assistant's"
    )


def make_turns(*texts: str, system: str | None = None) -> list[Row]:
    turns = [{"role": m.role, "content": m.content} for m in make_messages(*texts)]
    return [{"role": "system", "content": system}, *turns] if system is not None else turns


@pytest.mark.parametrize("prompt", ["Why? ", make_turns("Why?")])
def test_a_prompt_before_whole_conversations_as_in_ultrafeedback(prompt: Any) -> None:
    row = {
        "prompt": prompt,
        "chosen": make_turns("Why?", "So."),
        "rejected": make_turns("Why?", "No."),
    }
    [found] = pair.read_trl_pair(row, "s")
    assert isinstance(found, Pair)
    assert (found.chosen, found.rejected) == ("So.", "No.")
    assert [m.content.strip() for m in found.prompt] == ["Why?"]
    with_system = {
        side: make_turns("Why?", answer, system="Rhyme.")
        for side, answer in (("chosen", "So."), ("rejected", "No."))
    }
    [found] = pair.read_trl_pair(row | with_system, "s")
    assert [m.content.strip() for m in found.prompt] == ["Rhyme.", "Why?"]
    longer = {
        side: make_turns("Why?", "Who asks?", "Me.", answer)
        for side, answer in (("chosen", "So."), ("rejected", "No."))
    }
    [found] = pair.read_trl_pair(row | longer, "s")
    assert [m.content.strip() for m in found.prompt] == ["Why?", "Who asks?", "Me."]


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (
            make_turns("How?", "So."),
            make_turns("How?", "No."),
            "column 'chosen' is a conversation that does not begin with the prompt",
        ),
        (
            make_turns("Why?", "So."),
            make_turns("How?", "No."),
            "column 'rejected' is a conversation that does not begin with the prompt",
        ),
        (
            make_turns("Why?", "Well?", "Go on.", "So."),
            make_turns("Why?", "No."),
            "the conversations part before the last answer",
        ),
        (
            make_turns("Why?", "So.", "And?"),
            make_turns("Why?", "No."),
            "column 'chosen' is not an answer, or a conversation that ends with one",
        ),
        (
            make_turns("Why?", "So.")[1:] + make_turns("More?", "No."),
            "No.",
            "column 'chosen' is not an answer, or a conversation that ends with one",
        ),
        (
            make_turns("Why?", "So.", system="Sing."),
            make_turns("Why?", "No.", system="Sing."),
            "the system message of column 'chosen' is not the prompt's",
        ),
    ],
)
def test_conversations_that_are_not_of_the_prompt(
    chosen: Any, rejected: Any, expected: str
) -> None:
    row = {"system": "Rhyme.", "prompt": "Why?", "chosen": chosen, "rejected": rejected}
    assert failure_reason(pair.read_trl_pair, row) == expected


def test_pairs_as_llama_factory_writes_them() -> None:
    row = {"instruction": "Add.", "input": "1, 2", "chosen": "3", "rejected": "12"}
    assert read_one(pair.read_alpaca_pair, row) == Pair("s", make_messages("Add.\n1, 2"), "3", "12")
    before = {"system": "Be brief.", "history": [["1?", "1"]]}
    prompt = make_messages("1?", "1", "Add.\n1, 2", system="Be brief.")
    assert read_one(pair.read_alpaca_pair, row | before) == Pair("s", prompt, "3", "12")
    sharegpt_row = {
        "conversations": [*SHAREGPT_TURNS, {"from": "human", "value": "c"}],
        "chosen": {"from": "gpt", "value": "d"},
        "rejected": {"from": "gpt", "value": "e"},
    }
    assert read_one(pair.read_sharegpt_pair, sharegpt_row) == Pair(
        "s", make_messages("a", "b", "c"), "d", "e"
    )


def test_orca_in_openais_form() -> None:
    row = {
        "input": {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why?"},
            ]
        },
        "preferred_output": [{"role": "assistant", "content": "So."}],
        "non_preferred_output": [{"role": "assistant", "content": "No."}],
    }
    assert read_one(pair.read_openai_pair, row) == Pair(
        "s", make_messages("Why?", system="Be brief."), "So.", "No."
    )
    silent = {"messages": [{"role": "system", "content": ""}, row["input"]["messages"][1]]}
    assert read_one(pair.read_openai_pair, row | {"input": silent}) == Pair(
        "s", make_messages("Why?"), "So.", "No."
    )
    for odd in ({"messages": [7]}, {"messages": [{"role": "user", "content": ""}]}, [], None):
        assert failure_reason(pair.read_openai_pair, row | {"input": odd})


def preference(overall: Any, first: Any = "a", second: Any = "b") -> Row:
    criteria = {"overall": overall, "correctness": "AB", "other": "Brevity: B"}
    return {"A": first, "B": second, "overall": overall, "criteria": criteria}


def test_epfl_gives_a_pair_for_each_preference_with_a_winner() -> None:
    """What students say of criteria is not the preference: only the overall winner is."""
    preferences = [
        preference("A"),
        preference("B"),
        preference("AB"),
        preference(None),
        preference(["A"]),
        preference("A", "", "b"),
        preference("B", "a", "..."),
        preference("B", "a", None),
        preference("A", " ...\n", "b"),
        preference("A", "a", "a"),
        preference("B", "c", "d"),
    ]
    row = {
        "question_id": 1,
        "course_id": 2,
        "question_complete": "Q: Why?",
        "preference": preferences,
    }
    found = list(reader_of("epfl")(row, "s"))
    assert [part for part in found if isinstance(part, Record)] == [
        Pair("s", make_messages("Q: Why?"), "a", "b"),
        Pair("s", make_messages("Q: Why?"), "b", "a"),
        Pair("s", make_messages("Q: Why?"), "d", "c"),
    ]
    assert [str(part) for part in found if isinstance(part, SkippedRecord)] == [
        *["neither answer is preferred overall"] * 3,
        *["an answer is empty"] * 4,
        "both answers are the same",
    ]


def test_epfl_questions_of_another_form() -> None:
    row = {"question_complete": "Q", "preference": [preference("A")]}
    assert (
        failure_reason(reader_of("epfl"), row | {"preference": []})
        == "column 'preference' is not a list"
    )
    assert (
        failure_reason(reader_of("epfl"), row | {"preference": ["A"]})
        == "a preference is not an object"
    )
    assert (
        failure_reason(reader_of("epfl"), row | {"preference": [{"overall": "A"}]})
        == "column 'A' is missing"
    )
    assert failure_reason(reader_of("epfl"), row | {"question_complete": ""}) == (
        "column 'question_complete' is empty"
    )


def test_what_is_left_out_within_a_row_is_counted(tmp_path: Path) -> None:
    (tmp_path / "epfl.json").write_text(
        '[{"question_complete": "Q", "preference": ['
        '{"A": "a", "B": "b", "overall": "A"}, {"A": "a", "B": "b", "overall": "AB"}]}]'
    )
    source = SourceSpec(name="epfl", path="epfl.json")
    records, tally = read_source(source, "pair", tmp_path)
    assert tally.item_count == 2
    assert records == [Pair("epfl", make_messages("Q"), "a", "b", "correctness")]
    assert dict(tally.skip_reasons) == {"neither answer is preferred overall": 1}


# -- choice ---------------------------------------------------------------------------------------

ARC = {
    "id": "x",
    "question": "Why?",
    "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]},
    "answerKey": "B",
}


@pytest.mark.parametrize("name", ["arc_challenge", "arc_easy"])
def test_arc_keys_are_letters_or_digits(name: str) -> None:
    assert read_one(reader_of(name), ARC) == Choice("s", "Why?", ("a", "b", "c"), 1)
    numbered = {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}
    digits = ARC | {"choices": numbered, "answerKey": "3"}
    assert read_one(reader_of(name), digits) == Choice("s", "Why?", ("a", "b", "c"), 2)
    for key in ("D", "1", "b"):
        assert (
            failure_reason(reader_of(name), ARC | {"answerKey": key})
            == "the answer is none of the options"
        )
    fewer = {"text": ["a", "b", "c"], "label": ["A", "B"]}
    assert (
        failure_reason(reader_of(name), ARC | {"choices": fewer})
        == "the answer is none of the options"
    )


def test_arc_in_ai2s_own_form() -> None:
    row = {
        "id": "x",
        "question": {
            "stem": "Why?",
            "choices": [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}],
        },
        "answerKey": "1",
    }
    assert read_one(choice.read_arc, row) == Choice("s", "Why?", ("a", "b"), 0)
    odd = {"stem": "Why?", "choices": ["a", "b"]}
    assert failure_reason(choice.read_arc, row | {"question": odd}) == "an option is not an object"


MMLU = {"question": "Why?", "subject": "physics", "choices": ["a", "b", "c", "d"], "answer": 3}


def test_mmlu_flat_and_nested() -> None:
    expected = Choice("s", "Why?", ("a", "b", "c", "d"), 3, "physics")
    assert read_one(reader_of("mmlu"), MMLU) == expected
    nested = MMLU | {"subject": "", "answer": 0}
    assert read_one(reader_of("mmlu"), {"train": nested}) == Choice(
        "s", "Why?", ("a", "b", "c", "d"), 0
    )
    for answer in ("D", "3", " D "):
        assert read_one(reader_of("mmlu"), MMLU | {"answer": answer}) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (4, "the answer is none of the options"),
        (-1, "the answer is none of the options"),
        ("-1", "the answer is none of the options"),
        ("E", "the answer is none of the options"),
        ("٣", "the answer is none of the options"),
        ("9" * 5_000, "the answer is none of the options"),
        (1.5, "the answer is neither a letter nor a number"),
        (float("nan"), "the answer is neither a letter nor a number"),
        (True, "the answer is neither a letter nor a number"),
        (None, "the answer is neither a letter nor a number"),
    ],
)
def test_an_answer_that_is_none_of_the_options(answer: Any, expected: str) -> None:
    assert failure_reason(choice.read_choices, MMLU | {"answer": answer}) == expected


def test_options_are_two_texts_or_more() -> None:
    for few in (["a"], [], None):
        assert failure_reason(choice.read_choices, MMLU | {"choices": few}) == (
            "there are fewer than two options"
        )
    every = ["a"] * 26
    assert read_one(choice.read_choices, MMLU | {"choices": every, "answer": "Z"}) == Choice(
        "s", "Why?", tuple(every), 25, "physics"
    )
    assert failure_reason(choice.read_choices, MMLU | {"choices": [*every, "a"]}) == (
        "there are more than 26 options"
    )
    for odd in (["a", ""], ["a", None], ["a", True], ["a", ["b"]]):
        assert failure_reason(choice.read_choices, MMLU | {"choices": odd}) == (
            "an option is not text, or empty"
        )


def test_hellaswag_is_cleaned_by_the_rules_of_lm_eval() -> None:
    """Label and both parts joined, [title] a full stop, other brackets gone, double blanks once."""
    row = {
        "ind": 4,
        "activity_label": "Making tea",
        "ctx_a": "A cup [header] Boil [title] water.",
        "ctx_b": "tHE woman",
        "ctx": "A cup [header] Boil [title] water. the woman",
        "endings": [" drinks [step] it.", "a  b   c.", "pours [substeps] tea [title] .", "x"],
        "label": "2",
    }
    assert read_one(reader_of("hellaswag"), row) == Choice(
        "s",
        "Making tea: A cup Boil.  water. The woman".replace(".  ", ". "),
        ("drinks it.", "a b  c.", "pours tea.  .".replace(".  ", ". "), "x"),
        2,
    )
    assert failure_reason(reader_of("hellaswag"), row | {"label": ""}) == "the answer is empty"


def test_hellaswag_that_is_clean_already_is_left_as_it_stands() -> None:
    row = {"ind": 0, "ctx": "Tea: a [cup]  of", "label": 1, "endings": ["[a]", "b  c"]}
    assert read_one(reader_of("hellaswag"), row) == Choice(
        "s", "Tea: a [cup]  of", ("[a]", "b  c"), 1
    )


# -- passage --------------------------------------------------------------------------------------


def test_blank_lines_belong_to_wikitext_and_to_no_other_text() -> None:
    for text in ("", " = A = \n"):
        assert read_one(reader_of("wikitext2"), {"text": text}) == Passage("s", text)
    assert read_one(reader_of("primer"), {"text": "a"}) == Passage("s", "a")
    assert failure_reason(reader_of("primer"), {"text": " "}) == "column 'text' is empty"


# -- all of them ----------------------------------------------------------------------------------

SHAREGPT_PROMPT = [*SHAREGPT_TURNS, {"from": "human", "value": "c"}]
ANSWER_TURN = {"role": "assistant", "content": "d"}
STRUCTURED_COLUMNS: dict[RowReader, Row] = {
    chat.read_alpaca: {"system": "s", "history": [["a", "b"]], "input": "c"},
    chat.read_openai_messages: {"messages": SHAREGPT_TURNS},
    chat.read_prompt_completion: {"prompt": PROMPT_TURNS, "completion": [ANSWER_TURN]},
    chat.read_sharegpt: {"conversations": SHAREGPT_TURNS},
    chat.read_wiki_qa: {"label": 1},
    pair.read_trl_pair: {
        "prompt": PROMPT_TURNS,
        "chosen": [ANSWER_TURN],
        "rejected": [ANSWER_TURN | {"content": "e"}],
    },
    pair.read_sharegpt_pair: {
        "conversations": SHAREGPT_PROMPT,
        "chosen": ANSWER_TURN,
        "rejected": "e",
    },
    pair.read_conversation_pair: {
        "chosen": [*PROMPT_TURNS, ANSWER_TURN],
        "rejected": [*PROMPT_TURNS, ANSWER_TURN | {"content": "e"}],
    },
    pair.read_openai_pair: {
        "input": {"messages": [{"role": "system", "content": "s"}, *PROMPT_TURNS]},
        "preferred_output": [ANSWER_TURN],
        "non_preferred_output": [ANSWER_TURN | {"content": "e"}],
    },
    pair.read_epfl: {"preference": [preference("A"), preference("B")]},
    pair.read_shp: {"labels": 1},
    choice.read_choices: {"train": MMLU},
    choice.read_arc: ARC,
    quiz_format.read_quiz_row: {
        "question": "Question: a\n\nOptions:\nA. b\nB. c\n\nAnswer:",
        "answer": "B",
    },
    choice.read_hellaswag: {"endings": ["a", "b"], "label": "1", "ctx_a": "a", "ctx_b": "b"}
    | {"activity_label": "c"},
}
"""Columns whose values are not just texts; in the rows below every other one holds its name."""

READERS_BY_COLUMNS = {form.columns: form.reader for form in COLUMN_FORMATS} | {
    (name, *source.columns): source.reader for name, source in SOURCES.items()
}
ROWS = [
    (reader, {column: column for column in columns} | STRUCTURED_COLUMNS.get(reader, {}))
    for columns, reader in READERS_BY_COLUMNS.items()
]
STRUCTURED_ROWS = [(reader, row) for reader, row in ROWS if reader in STRUCTURED_COLUMNS]
TEXTS = ["", " ", "A", "0", "3", "user", "gpt", "...", "a\u2028b", "\ud83d", "٣", "9" * 5_000]
TEXTS += ["\n\nHuman: a\n\nAssistant: b", "\n\nAssistant:"]
TEXTS += ["system", "tool", "NaN", "[]"]
LEAVES = st.none() | st.integers() | st.booleans() | st.floats() | st.sampled_from(TEXTS)
VALUES = st.recursive(
    LEAVES | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "A", "text", "weight"]), inner, max_size=3
        )
    ),
    max_leaves=4,
)


def is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def corrupt_value(value: Any, data: st.DataObject) -> Any:
    """`value` with something in it replaced or taken away."""
    keys = (
        list(value if isinstance(value, dict) else range(len(value))) if is_container(value) else []
    )
    if not keys or data.draw(st.integers(0, 3)) == 0:
        return data.draw(VALUES)
    key = data.draw(st.sampled_from(keys))
    changed = dict(value) if isinstance(value, dict) else list(value)
    if data.draw(st.integers(0, 4)) == 0:
        del changed[key]
    else:
        changed[key] = corrupt_value(changed[key], data)
    return changed


def read_or_reason(reader: RowReader, row: Row) -> list[Record | SkippedRecord] | str:
    try:
        return list(reader(row, "s"))
    except (UnreadableRowError, SkippedRecord) as error:
        return str(error)


@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(STRUCTURED_ROWS) | st.sampled_from(ROWS), st.integers(0, 3), st.data())
def test_any_row_gives_records_or_a_reason(
    case: tuple[RowReader, Row], num_corruptions: int, data: st.DataObject
) -> None:
    """Whatever is missing, empty, of another type, huge or odd: never another exception."""
    reader, row = case
    for _ in range(num_corruptions):
        changed = corrupt_value(row, data)
        row = changed if isinstance(changed, dict) else {}
    found = read_or_reason(reader, row)
    assert found
    if isinstance(found, str):
        assert num_corruptions, found
        assert len(found) < 100
    else:
        assert all(isinstance(part, SkippedRecord) or len(part.id) == 16 for part in found)


# -- through a source -----------------------------------------------------------------------------


def test_columns_of_ones_own_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"Q": "Why?", "A": "So."}\n')
    source = SourceSpec(path="rows.jsonl", columns={"question": "Q", "answer": "A"})
    records, _ = read_source(source, "chat", tmp_path)
    assert records == [Chat("rows", make_messages("Why?", "So."))]


def test_the_word_nan_in_a_table_of_texts_is_a_missing_value(tmp_path: Path) -> None:
    """In JSON it is a word, for there are other values for what is missing."""
    (tmp_path / "rows.csv").write_text(
        "instruction,input,output,topic\na,nan,b,NaN\na,x,nan,\n<NA>,NaN,b,\n"
    )
    records, tally = read_source(SourceSpec(path="rows.csv"), "chat", tmp_path)
    assert records == [Chat("rows", make_messages("a", "b"))]
    assert tally.unreadable_reasons == {
        "column 'output' is empty": 1,
        "column 'instruction' is empty": 1,
    }
    assert not tally.unused_columns
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "nan"}')
    records, _ = read_source(SourceSpec(path="rows.jsonl"), "chat", tmp_path)
    assert records == [Chat("rows", make_messages("a", "nan"))]
    (tmp_path / "quiz.csv").write_text(
        "subject,question,answer\n"
        'x,"Question: What is 0/0?\n\nOptions:\nA. NaN\nB. 1\n\nAnswer:",A\n'
    )
    records, _ = read_source(SourceSpec(path="quiz.csv"), "choice", tmp_path)
    assert [record.texts for record in records] == [("What is 0/0?", "NaN", "1")]


def test_columns_that_were_not_read_are_counted(tmp_path: Path) -> None:
    turns = [SHAREGPT_TURNS[0] | {"name": "Ann"}, SHAREGPT_TURNS[1] | {"weight": 1}]
    rows = [
        {"conversations": turns, "system": "Rhyme.", "topic": "x", "id": 0},
        {"conversations": SHAREGPT_TURNS, "topic": None, "id": 1},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    records, tally = read_source(SourceSpec(path="rows.json"), "chat", tmp_path)
    assert len(records) == 2
    assert tally.unused_columns == {"topic": 1, "id": 2, "conversations.name": 1}


def test_a_registered_source_is_read_by_its_own_columns_and_the_others_are_counted(
    tmp_path: Path,
) -> None:
    row = {"conversations": ["a", "b"], "system": "Rhyme.", "weight": 0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    records, tally = read_source(SourceSpec(name="lima", path="rows.jsonl"), "chat", tmp_path)
    assert records == [Chat("lima", make_messages("a", "b"))]
    assert tally.unused_columns == {"system": 1, "weight": 1}


def test_a_column_can_be_hidden_by_another_name(tmp_path: Path) -> None:
    row = {"messages": SHAREGPT_TURNS, "tools": [{"name": "x"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    source = SourceSpec(path="rows.jsonl", columns={"unused": "tools"})
    records, tally = read_source(source, "chat", tmp_path)
    assert records == [Chat("rows", make_messages("a", "b"))]
    assert tally.unused_columns == {"unused": 1}
    _, tally = read_source(SourceSpec(path="rows.jsonl"), "chat", tmp_path)
    with pytest.raises(ZephyrError, match=r"column 'tools' holds tools(.|\n)*`columns: {unused: "):
        tally.check_unreadable_share(0.05)


def test_each_reason_has_its_place_and_a_way_out(tmp_path: Path) -> None:
    question, answer = SHAREGPT_TURNS
    odd = [
        [question, {"from": "tool", "value": "x"}, answer],
        [answer, question, answer],
        [question, answer, answer],
        [question, answer | {"value": ""}],
    ]
    rows = [*([SHAREGPT_TURNS] * 16), *odd]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"conversations": row}) + "\n" for row in rows)
    )
    _, tally = read_source(SourceSpec(path="rows.jsonl"), "chat", tmp_path)
    tally.check_unreadable_share(0.2)
    with pytest.raises(ZephyrError) as caught:
        tally.check_unreadable_share(0.1)
    _, where, found, _, todo = str(caught.value).splitlines()
    assert where == f"  where:   {tmp_path}/rows.jsonl:17"
    assert found == (
        f"  found:   4 of 20 rows: 1 x {TOOL_TURN} (rows.jsonl:17), "
        "1 x the first turn is the assistant's (rows.jsonl:18), "
        "1 x two turns of the assistant in a row (rows.jsonl:19), "
        "1 x a turn of the assistant is empty (rows.jsonl:20)"
    )
    assert "two turns of the assistant in a row: join them into one; " in todo
    assert todo.endswith("or leave the rows out with `unreadable: 0.2`")


def test_a_source_of_another_kind_and_one_that_is_unknown(tmp_path: Path) -> None:
    def read(kind: RecordKind, **settings: str) -> None:
        read_source(SourceSpec(**settings), kind, tmp_path)

    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(ZephyrError) as caught:
        read("pair", name="gsm8k", path="rows.jsonl")
    assert str(caught.value).splitlines() == [
        "source 'gsm8k' is of another kind",
        "  where:   data.gsm8k",
        "  found:   chat",
        "  allowed: pair",
    ]
    with pytest.raises(ZephyrError, match=r"unknown source 'gsmk8'(.|\n)*nearest: gsm8k"):
        read("chat", name="gsmk8")
