"""Quizzes as teachers have them: option columns, lists in cells, keys of every convention."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.in_memory_sources import read_source
from zephyr.data.read_stats import ReadStats
from zephyr.data.readers.answer_key import split_labels
from zephyr.data.readers.choice import QuizReader, parse_option_list, read_choices
from zephyr.data.readers.option_columns import find_quiz_columns
from zephyr.data.readers.parsing import UnreadableRowError
from zephyr.data.rows import SourceRow
from zephyr.data.sources import OpenedSource, open_source, read_records
from zephyr.errors import ZephyrError
from zephyr.recipe.data import SourceSpec
from zephyr.records import Choice

RIVERS = [
    ("Which river flows through Vienna?", ("Rhine", "Danube", "Elbe"), 1),
    ("Which river flows through Dresden?", ("Rhine", "Danube", "Elbe"), 2),
    ("Which river flows through Cologne?", ("Rhine", "Danube", "Elbe"), 0),
]


def open_text(folder: Path, name: str, text: str, **settings: Any) -> OpenedSource:
    (folder / name).write_text(text, encoding="utf-8")
    spec = SourceSpec.model_validate({"path": name, **settings})
    return open_source(spec, kind="choice", use="exam", origin=None, base=folder, where="quiz")


def read_quiz(
    folder: Path, name: str, text: str, **settings: Any
) -> tuple[list[tuple[str, tuple[str, ...], int]], ReadStats, str]:
    """The questions of a file with options and answer, what became of its rows, and its note."""
    opened = open_text(folder, name, text, **settings)
    records, stats = read_records(opened)
    assert opened.column_format is not None
    assert isinstance(opened.column_format.reader, QuizReader)
    assert all(isinstance(record, Choice) for record in records)
    quizzes = [(r.text, r.choices, r.answer) for r in records if isinstance(r, Choice)]
    return quizzes, stats, "; ".join(opened.column_format.reader.notes)


@pytest.mark.parametrize(
    "header",
    [
        "id;question;option_A;option_B;option_C;correct",
        "id;Question;A;B;C;Answer",
        "no;question;option1;option2;option3;key",
        "id;Question Text;Option 1;Option 2;Option 3;Correct Answer",
        "id;question;choice_a;choice_b;choice_c;correct_answer",
        "id;question;opt1;opt2;opt3;solution",
        "id;question;answer1;answer2;answer3;correct_option",
        "id;question;0;1;2;answer",
        "id;stem;(A);(B);(C);answer-key",
    ],
)
def test_option_columns_by_their_usual_names(tmp_path: Path, header: str) -> None:
    rows = [f"{n};{q};{';'.join(options)};{'ABC'[a]}" for n, (q, options, a) in enumerate(RIVERS)]
    quizzes, _, note = read_quiz(tmp_path, "r.csv", "\n".join([header, *rows]))
    assert quizzes == RIVERS
    assert note == "the keys of source 'r' are read: 3 as a letter"


@pytest.mark.parametrize(
    "columns",
    [
        "question a b",
        "question a answer",
        "question a c answer option1 option3",
        "question a b option1 option2 answer",
        "question option_a option_c answer",
        "question option_a option_b option_d answer",
        "question a b answer correct",
        "question a A b answer",
        "a b answer",
    ],
)
def test_columns_that_leave_open_which_is_which(columns: str) -> None:
    assert find_quiz_columns(columns.split()) is None


def test_a_question_may_have_fewer_options_than_there_are_columns(tmp_path: Path) -> None:
    text = "question,A,B,C,D,answer\nOne?,p, q ,, ,B\nTwo?,p,q,r,s,D\nGap?,p,,r,,A\nNone?,p,q,,,C\n"
    quizzes, stats, _ = read_quiz(tmp_path, "r.csv", text)
    assert quizzes == [("One?", ("p", "q"), 1), ("Two?", ("p", "q", "r", "s"), 3)]
    assert stats.unreadable_reasons == {
        "an option is not text, or empty": 1,
        "the answer is none of the options": 1,
    }


def test_columns_may_be_mapped_to_their_usual_names(tmp_path: Path) -> None:
    text = "Frage;A;B;Loesung\nWarum?;p;q;b\n"
    names = {"question": "Frage", "answer": "Loesung"}
    assert read_quiz(tmp_path, "r.csv", text, columns=names)[0] == [("Warum?", ("p", "q"), 1)]


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ('["a, b", "c"]', ["a, b", "c"]),
        ("[1, 2.5]", ["1", "2.5"]),
        ("['a', \"it's\"]", ["a", "it's"]),
        (r"['a\'b', 'c']", ["a'b", "c"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("a|b; or c".replace(";", ","), ["a", "b, or c"]),
        ("a ; b; c", ["a", "b", "c"]),
        ("A) a\nB) b", ["A) a", "B) b"]),
    ],
)
def test_lists_in_a_cell(cell: str, options: list[str]) -> None:
    assert parse_option_list(cell) == options


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("a|b;c", "separated by more than one sign"),
        ("a, b, c", "no list"),
        ("[a, b]", "neither JSON nor Python"),
        ("['a', b]", "neither JSON nor Python"),
        ("['a' 'b", "no list"),
        (r'["\ud83d", "b"]', "half a character"),
        (r"['\ud83d', 'b']", "half a character"),
        ("[" * 20_000 + "]" * 20_000, "neither JSON nor Python"),
        (r"['\x', 'b']", "neither JSON nor Python"),
    ],
)
def test_cells_that_leave_open_where_an_option_ends(cell: str, reason: str) -> None:
    with pytest.raises(UnreadableRowError, match=reason):
        parse_option_list(cell)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["A. x", "B. y"], ("x", "y")),
        (["a) x", "b) y"], ("x", "y")),
        (["(A) x", "(B)y"], ("x", "y")),
        (["[A] x", "[B] y"], ("x", "y")),
        (["A: x", "B: y"], ("x", "y")),
        (["A - one", "B – two"], ("one", "two")),
        (["1. x", "2. y"], ("x", "y")),
        (["0) x", "1) y"], ("x", "y")),
        (["A. A. x", "B. B. y"], ("A. x", "B. y")),
        (["A. x", "y"], ("A. x", "y")),
        (["A force", "B field"], ("A force", "B field")),
        (["1.5", "2.5"], ("1.5", "2.5")),
        (["2. x", "3. y"], ("2. x", "3. y")),
        (["A. ", "B. "], ("A. ", "B. ")),
    ],
)
def test_letters_before_all_options_are_taken_off_once(
    options: list[str], texts: tuple[str, ...]
) -> None:
    assert split_labels(options).texts == texts


def test_letters_in_another_order_are_refused() -> None:
    with pytest.raises(UnreadableRowError, match="in another order"):
        split_labels(["B. x", "A. y"])


# -- keys -----------------------------------------------------------------------------------------


def key_rows(keys: list[Any], options: tuple[str, ...] = ("p", "q", "r", "s")) -> str:
    return "".join(
        json.dumps({"question": f"Q{n}?", "choices": options, "answer": key}) + "\n"
        for n, key in enumerate(keys)
    )


@pytest.mark.parametrize(
    ("keys", "answers", "note"),
    [
        (["b)", "(C)", "D.", " a ", "Option B", "**A**", ["C"]], [1, 2, 3, 0, 1, 0, 2], "a letter"),
        ([0, 1, 2], [0, 1, 2], "a place from 0"),
        ([1, 4, 2], [0, 3, 1], "a place from 1"),
        (["1.0", "4.0"], [0, 3], "a place from 1"),
        ([0.0, 2.0], [0, 2], "a place from 0"),
        (["R", "q"], [2, 1], "the text of an option"),
    ],
)
def test_keys_by_one_convention(
    tmp_path: Path, keys: list[Any], answers: list[int], note: str
) -> None:
    quizzes, _, notes = read_quiz(tmp_path, "r.jsonl", key_rows(keys))
    assert [answer for *_, answer in quizzes] == answers
    assert notes == f"the keys of source 'r' are read: {len(keys)} as {note}"


def test_a_key_may_repeat_the_option_with_its_letter(tmp_path: Path) -> None:
    options = ("A) red", "B) blue")
    quizzes, _, note = read_quiz(tmp_path, "r.jsonl", key_rows(["B) blue", "red"], options))
    assert [(texts, answer) for _, texts, answer in quizzes] == [
        (("red", "blue"), 1),
        (("red", "blue"), 0),
    ]
    assert note.endswith("; 2 questions had a letter or number before each option")


def test_numbers_that_options_carry_say_which_is_meant(tmp_path: Path) -> None:
    options = ("1) red", "2) blue", "3) green")
    quizzes, *_ = read_quiz(tmp_path, "r.jsonl", key_rows([2, "1", "2)"], options))
    assert [answer for *_, answer in quizzes] == [1, 0, 1]


def test_the_name_of_a_column_is_a_key(tmp_path: Path) -> None:
    text = "question,option1,option2,correct\nWhy?,p,q,option2\nHow?,p,q,Option1\n"
    assert [answer for *_, answer in read_quiz(tmp_path, "r.csv", text)[0]] == [1, 0]


def test_texts_that_are_numbers_win_where_no_place_fits_all(tmp_path: Path) -> None:
    rows = key_rows(["3", "12"], ("2", "3", "12", "20"))
    quizzes, _, note = read_quiz(tmp_path, "r.jsonl", rows)
    assert [answer for *_, answer in quizzes] == [1, 2]
    assert "2 as the text of an option" in note


def test_several_conventions_in_one_file(tmp_path: Path) -> None:
    """Letters are most; a text and a place that fits once only are read, another place is not."""
    rows = key_rows(["B", "C", "A", "D", "q", "0", "2"])
    quizzes, stats, note = read_quiz(tmp_path, "r.jsonl", rows)
    assert [answer for *_, answer in quizzes] == [1, 2, 0, 3, 1, 0, 2]
    assert note == (
        "the keys of source 'r' are read: 4 as a letter, 2 as a place from 0, 1 as the text of an "
        "option"
    )
    quizzes, stats, _ = read_quiz(tmp_path, "r.jsonl", key_rows(["B", "C", "q", "2"]))
    assert [answer for *_, answer in quizzes] == [1, 2, 1]
    assert stats.unreadable_reasons == {"the answer can be read as two of the options": 1}


@pytest.mark.parametrize(
    ("keys", "options", "found"),
    [
        (
            [1, 3, 2],
            ("p", "q", "r", "s"),
            "'Q0?' has the key 1: as a place from 0 it is B, 'q'; as a place from 1 it is A, 'p'",
        ),
        (
            ["0", "4"],
            ("p", "q", "r", "s"),
            (
                "'Q0?' has the key '0': as a place from 0 it is A, 'p'; "
                "'Q1?' has the key '4': as a place from 1 it is D, 's'"
            ),
        ),
        (
            ["2", "3"],
            ("3", "2", "5", "4"),
            (
                "'Q0?' has the key '2': as a place from 0 it is C, '5'; "
                "as a place from 1 it is B, '2'; "
                "as the text of an option it is B, '2'"
            ),
        ),
        (
            ["A", "B"],
            ("B", "A"),
            (
                "'Q0?' has the key 'A': as a letter it is A, 'B'; "
                "as the text of an option it is B, 'A'"
            ),
        ),
    ],
)
def test_keys_of_two_meanings_are_refused_and_both_are_shown(
    tmp_path: Path, keys: list[Any], options: tuple[str, ...], found: str
) -> None:
    with pytest.raises(ZephyrError) as caught:
        open_text(tmp_path, "r.jsonl", key_rows(keys, options))
    lines = str(caught.value).splitlines()
    assert lines[0] == "the keys of source 'r' can be read in more than one way"
    assert lines[1] == f"  where:   quiz, {tmp_path}/r.jsonl:1"
    assert lines[2].startswith(f"  found:   {found}")
    assert lines[3] == "  allowed: letter, 0-based, 1-based, text"
    assert lines[4].startswith("  to do:   say which it is beside the `path` of this source: ")


def test_one_wrong_place_does_not_change_how_places_are_counted(tmp_path: Path) -> None:
    quizzes, stats, _ = read_quiz(tmp_path, "r.jsonl", key_rows([0, 1, 0, 3, 4, 0]))
    assert [answer for *_, answer in quizzes] == [0, 1, 0, 3, 0]
    assert stats.unreadable_reasons == {"the answer is none of the options": 1}


@pytest.mark.parametrize(
    ("answer_key", "answers"),
    [("0-based", [1, 3, 2]), ("1-based", [0, 2, 1]), ("text", []), ("letter", [])],
)
def test_a_setting_says_how_keys_are_read(
    tmp_path: Path, answer_key: str, answers: list[int]
) -> None:
    rows = key_rows([1, 3, 2])
    quizzes, stats, _ = read_quiz(tmp_path, "r.jsonl", rows, answer_key=answer_key)
    assert [answer for *_, answer in quizzes] == answers
    assert sum(stats.unreadable_reasons.values()) == 3 - len(answers)


def test_the_setting_is_refused_where_there_are_no_such_keys(tmp_path: Path) -> None:
    row = {"question": "Q?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    with pytest.raises(ZephyrError, match="has no keys that `answer_key` could say"):
        open_text(tmp_path, "r.jsonl", json.dumps(row) + "\n", answer_key="text")


def test_a_registered_source_is_read_as_it_is_known(tmp_path: Path) -> None:
    """MMLU counts from 0, and its options keep their letters and blanks."""
    row = {"question": "Q?", "choices": ["A. x", "B. y ", "C. z"], "answer": 1, "subject": ""}
    (tmp_path / "mmlu.jsonl").write_text(json.dumps(row) + "\n")
    records, _ = read_source(SourceSpec(name="mmlu", path="mmlu.jsonl"), "choice", tmp_path)
    assert records == [Choice("mmlu", "Q?", ("A. x", "B. y ", "C. z"), 1)]


@pytest.mark.parametrize("key", ["A,C", "A;C", "A and C", "AC", "A C", "(A), (C)", ["A", "C"]])
def test_two_right_answers_are_said(tmp_path: Path, key: Any) -> None:
    quizzes, stats, _ = read_quiz(tmp_path, "r.jsonl", key_rows(["B", key]))
    assert len(quizzes) == 1
    assert stats.unreadable_reasons == {"the answer names more than one option": 1}


CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(10**400)
    | st.text(max_size=4)
    | st.sampled_from(["A", "b)", "2", "0", "A,B", "['a' 'b']", '["a", "b"]', "a|b", "A) a\nB) b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner),
    max_leaves=4,
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"choices": CELLS, "answer": CELLS}), max_size=4),
    st.sampled_from([None, "letter", "0-based", "1-based", "text"]),
)
def test_any_cells_give_a_question_or_a_reason(rows: list[dict[str, Any]], answer_key: Any) -> None:
    """Never another exception, and the same key for every row that is read."""
    source_rows = [
        SourceRow(f"r:{n}", {"question": "Q?", **row}) for n, row in enumerate(rows, start=1)
    ]
    try:
        reader = read_choices.resolve(source_rows, answer_key, "r", "here")
    except ZephyrError:
        assert answer_key is None
        return
    for row in source_rows:
        assert row.value is not None
        try:
            [record] = reader(row.value, "r")
        except UnreadableRowError:
            continue
        assert isinstance(record, Choice)
        assert 0 <= record.answer < len(record.choices)
