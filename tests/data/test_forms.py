"""Forms of columns: which reader reads rows by the columns they have, and what is refused."""

import pytest

from tests.data.examples import EXAMPLES
from zephyr.data import course
from zephyr.data.forms import FORMS, Form, form_of
from zephyr.data.readers import chat, choice, pair
from zephyr.data.readers.values import Reader
from zephyr.data.table import SOURCES
from zephyr.errors import ZephyrError
from zephyr.records import Kind


def form(columns: str, kind: Kind, name: str | None = None) -> Form:
    return form_of(columns.split(), kind, SOURCES[name] if name else None, "data.x, rows.jsonl:1")


def refusal(columns: str, kind: Kind, name: str | None = None) -> list[str]:
    with pytest.raises(ZephyrError) as caught:
        form(columns, kind, name)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.kind}: {' '.join(form.columns)}")
def test_a_form_is_found_by_its_columns(form: Form) -> None:
    """Further columns change nothing, but where they make up a form that stands before it."""
    assert form_of(form.columns, form.kind, None, "here") is form
    assert form_of((*form.columns, *form.optional, "other"), form.kind, None, "here").kind == (
        form.kind
    )


@pytest.mark.parametrize(
    ("columns", "kind", "reader"),
    [
        ("id messages source", "chat", chat.messages),
        ("instruction input output system history", "chat", chat.instruction),
        ("prompt completion", "chat", chat.prompt_completion),
        ("prompt chosen rejected aspect source", "pair", pair.prompt_pair),
        ("instruction input chosen rejected", "pair", pair.instruction_pair),
        ("conversations chosen rejected", "pair", pair.conversations_pair),
        ("chosen rejected", "pair", pair.turns_pair),
        ("question choices answer subject", "choice", choice.choices),
        ("train", "choice", choice.choices),
        ("id question answerKey", "choice", choice.arc),
        ("subject question answer", "choice", course.read),
    ],
)
def test_readers_of_ones_own_files(columns: str, kind: Kind, reader: Reader) -> None:
    assert form(columns, kind).reader is reader


@pytest.mark.parametrize("name", SOURCES)
def test_a_registered_source_is_read_by_its_own_reader(name: str) -> None:
    source = SOURCES[name]
    own = form_of([*source.columns, "other"], source.kind, source, "here")
    assert own == Form(
        source.kind, source.columns, source.reader, source.optional, many=source.many
    )


@pytest.mark.parametrize(
    ("name", "columns", "kind", "reader"),
    [
        ("arc_challenge", "id question answerKey", "choice", choice.arc),
        ("orca_dpo_pairs", "input preferred_output non_preferred_output", "pair", None),
        ("lima", "instruction input output history", "chat", chat.instruction),
        ("mmlu", "train", "choice", choice.choices),
        ("wiki_qa", "messages", "chat", chat.messages),
    ],
)
def test_a_registered_source_in_another_form(
    name: str, columns: str, kind: Kind, reader: Reader | None
) -> None:
    assert form(columns, kind, name).reader is (reader or pair.orca_messages)


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
    problem, _, found, allowed, *_ = refusal(columns, source.kind, name)
    assert problem.startswith("the columns of this source are of no form")
    assert found == f"  found:   {', '.join(sorted(columns.split()))}"
    assert allowed.startswith(f"  allowed: {', '.join(source.columns)}; ")
    assert f"; {', '.join(columns.split())}; " not in f"{allowed}; "


def test_rows_that_lack_a_column_may_be_read_by_a_source_that_does_not_need_it() -> None:
    assert form("question answer", "chat", "wiki_qa_all").reader is SOURCES["wiki_qa_all"].reader
    assert form("question answer", "chat").reader(EXAMPLES["wiki_qa"][1], "s")


FORMS_OF_CHAT = "messages; conversations; instruction, output; "
QUESTION_ANSWER = "question, answer; "
REST = "prompt, completion; prompt, response"


@pytest.mark.parametrize(
    ("columns", "name", "found", "allowed", "near"),
    [
        (
            "question answr",
            None,
            "answr, question",
            FORMS_OF_CHAT + QUESTION_ANSWER + REST,
            "answer -> answr",
        ),
        (
            "instruktion output",
            None,
            "instruktion, output",
            FORMS_OF_CHAT + QUESTION_ANSWER + REST,
            "instruction -> instruktion",
        ),
        (
            "Question Sentence Label",
            "wiki_qa",
            "Label, Question, Sentence",
            "question, answer, label; " + FORMS_OF_CHAT + REST,
            "question -> Question, label -> Label",
        ),
    ],
)
def test_columns_of_no_form_are_said_with_the_nearest(
    columns: str, name: str | None, found: str, allowed: str, near: str
) -> None:
    assert refusal(columns, "chat", name) == [
        "the columns of this source are of no form that is known for kind 'chat'",
        "  where:   data.x, rows.jsonl:1",
        f"  found:   {found}",
        f"  allowed: {allowed}",
        f"  nearest: {near}",
        "  to do:   map the names with `columns: {name that is allowed: name in the file}`",
    ]


def test_a_row_without_columns() -> None:
    assert "  found:   no columns" in refusal("", "passage")
