"""Column formats: which reader reads rows by the columns they have, and what is refused."""

import pytest

from tests.data.sample_rows import SAMPLE_ROWS
from zephyr.data import quiz_format
from zephyr.data.column_formats import COLUMN_FORMATS, ColumnFormat, detect_format
from zephyr.data.readers import chat, choice, pair
from zephyr.data.readers.parsing import RowReader
from zephyr.data.table import SOURCES
from zephyr.errors import ZephyrError
from zephyr.records import RecordKind


def detect_from(columns: str, kind: RecordKind, name: str | None = None) -> ColumnFormat:
    return detect_format(
        columns.split(), kind, SOURCES[name] if name else None, "data.x, rows.jsonl:1"
    )


def error_lines(columns: str, kind: RecordKind, name: str | None = None) -> list[str]:
    with pytest.raises(ZephyrError) as caught:
        detect_from(columns, kind, name)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "form", COLUMN_FORMATS, ids=lambda form: f"{form.kind}: {' '.join(form.columns)}"
)
def test_a_form_is_found_by_its_columns(form: ColumnFormat) -> None:
    """Further columns change nothing, but where they make up a form that stands before it."""
    assert detect_format(form.columns, form.kind, None, "here") is form
    assert detect_format(
        (*form.columns, *form.optional_columns, "other"), form.kind, None, "here"
    ).kind == (form.kind)


@pytest.mark.parametrize(
    ("columns", "kind", "reader"),
    [
        ("id messages source", "chat", chat.read_openai_messages),
        ("instruction input output system history", "chat", chat.read_alpaca),
        ("prompt completion", "chat", chat.read_prompt_completion),
        ("prompt chosen rejected aspect source", "pair", pair.read_trl_pair),
        ("instruction input chosen rejected", "pair", pair.read_alpaca_pair),
        ("conversations chosen rejected", "pair", pair.read_sharegpt_pair),
        ("chosen rejected", "pair", pair.read_conversation_pair),
        ("question choices answer subject", "choice", choice.read_choices),
        ("train", "choice", choice.read_choices),
        ("id question answerKey", "choice", choice.read_arc),
        ("subject question answer", "choice", quiz_format.read_quiz_row),
    ],
)
def test_readers_of_ones_own_files(columns: str, kind: RecordKind, reader: RowReader) -> None:
    assert detect_from(columns, kind).reader is reader


@pytest.mark.parametrize("name", SOURCES)
def test_a_registered_source_is_read_by_its_own_reader(name: str) -> None:
    source = SOURCES[name]
    own = detect_format([*source.columns, "other"], source.kind, source, "here")
    assert own == ColumnFormat(
        source.kind,
        source.columns,
        source.reader,
        source.optional_columns,
        has_many_records=source.has_many_records,
    )


@pytest.mark.parametrize(
    ("name", "columns", "kind", "reader"),
    [
        ("arc_challenge", "id question answerKey", "choice", choice.read_arc),
        ("orca_dpo_pairs", "input preferred_output non_preferred_output", "pair", None),
        ("lima", "instruction input output history", "chat", chat.read_alpaca),
        ("mmlu", "train", "choice", choice.read_choices),
        ("wiki_qa", "messages", "chat", chat.read_openai_messages),
    ],
)
def test_a_registered_source_in_another_form(
    name: str, columns: str, kind: RecordKind, reader: RowReader | None
) -> None:
    assert detect_from(columns, kind, name).reader is (reader or pair.read_openai_pair)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("wiki_qa", "question answer"),
        ("truthy_dpo", "prompt chosen rejected"),
        ("orca_dpo_pairs", "question chosen rejected"),
        ("code_vulnerability", "chosen rejected"),
    ],
)
def test_a_registered_source_that_lacks_a_column_is_refused(name: str, columns: str) -> None:
    """The rest of its columns may look like another form, which would read it as what it is not."""
    source = SOURCES[name]
    problem, _, found, allowed, *_ = error_lines(columns, source.kind, name)
    assert problem.startswith("the columns of this source are of no form")
    assert found == f"  found:   {', '.join(sorted(columns.split()))}"
    assert allowed.startswith(f"  allowed: {', '.join(source.columns)}; ")
    assert f"; {', '.join(columns.split())}; " not in f"{allowed}; "


def test_rows_that_lack_a_column_may_be_read_by_a_source_that_does_not_need_it() -> None:
    assert (
        detect_from("question answer", "chat", "wiki_qa_all").reader
        is SOURCES["wiki_qa_all"].reader
    )
    assert detect_from("question answer", "chat").reader(SAMPLE_ROWS["wiki_qa"][1], "s")


CHAT_COLUMNS = "messages; conversations; instruction, output; "
QUESTION_ANSWER = "question, answer; "
OTHER_CHAT_COLUMNS = "prompt, completion; prompt, response"


@pytest.mark.parametrize(
    ("columns", "name", "found", "allowed", "near"),
    [
        (
            "question answr",
            None,
            "answr, question",
            CHAT_COLUMNS + QUESTION_ANSWER + OTHER_CHAT_COLUMNS,
            "answer -> answr",
        ),
        (
            "instruktion output",
            None,
            "instruktion, output",
            CHAT_COLUMNS + QUESTION_ANSWER + OTHER_CHAT_COLUMNS,
            "instruction -> instruktion",
        ),
        (
            "Question Sentence Label",
            "wiki_qa",
            "Label, Question, Sentence",
            "question, answer, label; " + CHAT_COLUMNS + OTHER_CHAT_COLUMNS,
            "question -> Question, label -> Label",
        ),
    ],
)
def test_columns_of_no_form_are_said_with_the_nearest(
    columns: str, name: str | None, found: str, allowed: str, near: str
) -> None:
    assert error_lines(columns, "chat", name) == [
        "the columns of this source are of no form that is known for kind 'chat'",
        "  where:   data.x, rows.jsonl:1",
        f"  found:   {found}",
        f"  allowed: {allowed}",
        f"  nearest: {near}",
        "  to do:   map the names with `columns: {name that is allowed: name in the file}`",
    ]


def test_a_row_without_columns() -> None:
    assert "  found:   no columns" in error_lines("", "passage")
