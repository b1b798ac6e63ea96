"""Where the questions of a quiz come from, and in which order a session is asked them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.workspace import tiny_recipe, write_files
from zephyr.data.quiz_format import quiz_to_row
from zephyr.errors import ZephyrError
from zephyr.recipe.load import read_recipe
from zephyr.recipe.schema import Recipe
from zephyr.records import Choice
from zephyr.tutor.quizzes import Quizzes, open_quizzes
from zephyr.tutor.settings import TutorSettings

RECORDS = [Choice("s", f"Question {n}?", ("a", "b"), n % 2) for n in range(20)]


def make_recipe(**more: Any) -> Recipe:
    return Recipe.model_validate(tiny_recipe() | more)


def open_tutor_quizzes(folder: Path, quiz: dict[str, Any], recipe: Recipe | None = None) -> Quizzes:
    tutor = TutorSettings.model_validate({"quiz": quiz})
    return open_quizzes(tutor, folder, recipe or make_recipe(), folder)


def question_order(quizzes: Quizzes, session: str) -> list[str]:
    """The questions in the order in which a session is asked them."""
    found: list[str] = []
    answered: set[str] = set()
    while (quiz := quizzes.next(session, answered)) is not None:
        assert quizzes.next_number(answered) == len(found) + 1
        found.append(quiz.text)
        answered.add(quiz.id)
    return found


def test_each_session_has_an_order_of_its_own() -> None:
    quizzes = Quizzes(RECORDS, seed=1)
    one, two = question_order(quizzes, "a"), question_order(quizzes, "b")
    assert sorted(one) == sorted(two) == sorted(r.text for r in RECORDS)
    assert one != two
    assert one == question_order(Quizzes(RECORDS[::-1], seed=1), "a")
    assert one != question_order(Quizzes(RECORDS, seed=2), "a")


def test_a_question_stands_once_and_one_that_is_asked_no_more_does_not_count() -> None:
    quizzes = Quizzes([*RECORDS, *RECORDS], seed=1)
    assert len(quizzes) == 20
    assert quizzes.next_number({"gone": 1, RECORDS[0].id: 2}) == 2
    assert quizzes.find("gone") is None
    assert quizzes.find(RECORDS[3].id) == RECORDS[3]


def test_by_default_it_asks_what_the_recipes_task_does(tmp_path: Path) -> None:
    write_files(tmp_path)
    quizzes = open_tutor_quizzes(tmp_path, {})
    assert len(quizzes) == 8
    assert set(question_order(quizzes, "a")) == {
        json.loads(row)["question"] for row in (tmp_path / "quiz.jsonl").read_text().splitlines()
    }


def test_the_embedded_recipe_has_a_quiz_without_any_file(tmp_path: Path) -> None:
    recipe = read_recipe(ROOT / "recipes" / "embedded.yaml")
    quizzes = open_tutor_quizzes(tmp_path, {"cap": 50}, recipe)
    texts = question_order(quizzes, "a")
    assert len(texts) == len(quizzes) > 100  # three sources, of which two have as many


def test_where_no_quiz_is_offered_nothing_is_opened(tmp_path: Path) -> None:
    source = {"path": "none.jsonl"}
    tutor = TutorSettings.model_validate({"ways": ["ask"], "quiz": {"sources": [source]}})
    assert len(open_quizzes(tutor, tmp_path, make_recipe(), tmp_path)) == 0


def test_of_many_questions_the_next_is_soon_found() -> None:
    many = [Choice("s", f"Question {n}?", ("a", "b"), 0) for n in range(17_000)]
    quizzes = Quizzes(many, seed=1)
    start = time.process_time()
    for n in range(20):
        assert quizzes.next(f"session {n}", ()) is not None
    assert (time.process_time() - start) / 20 < 0.02


def test_a_recipe_without_such_a_task_has_no_quiz(tmp_path: Path) -> None:
    assert len(open_tutor_quizzes(tmp_path, {}, make_recipe(evaluate={"tasks": []}))) == 0


@pytest.mark.parametrize("form", ["course", "jsonl", "csv"])
def test_a_teachers_file_is_asked(tmp_path: Path, form: str) -> None:
    mine = [Choice("mine", f"What is {n}?", ("one", "two", "three"), n % 3, "n") for n in range(9)]
    if form == "course":
        rows = [json.dumps(quiz_to_row(choice)) for choice in mine]
        name = "mine.jsonl"
    elif form == "jsonl":
        rows = [
            json.dumps({"question": c.text, "choices": c.choices, "answer": c.answer}) for c in mine
        ]
        name = "mine.jsonl"
    else:
        quoted = [quiz_to_row(choice) for choice in mine]
        rows = ["subject,question,answer"]
        rows += [f'{r["subject"]},"{r["question"]}",{r["answer"]}' for r in quoted]
        name = "mine.csv"
    (tmp_path / name).write_text("\n".join(rows) + "\n")
    quizzes = open_tutor_quizzes(tmp_path, {"sources": [{"path": name}]})
    found = {quizzes.next("a", ())} | {c for c in map(quizzes.find, [m.id for m in mine]) if c}
    assert {(c.text, c.choices, c.answer) for c in found if c} == {
        (c.text, c.choices, c.answer) for c in mine
    }
    assert len(open_tutor_quizzes(tmp_path, {"sources": [{"path": name}], "cap": 4})) == 4
    assert len(open_tutor_quizzes(tmp_path, {"sources": [{"path": name, "cap": 2}], "cap": 4})) == 2


def test_a_larger_cap_takes_all_that_a_smaller_one_does(tmp_path: Path) -> None:
    write_files(tmp_path)
    few, more = (
        set(question_order(open_tutor_quizzes(tmp_path, {"cap": cap}), "a")) for cap in (3, 6)
    )
    assert (len(few), len(more)) == (3, 6)
    assert few < more


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "none.jsonl"}, "a file is not there"),
        ({"path": "chat.jsonl"}, "no form that is known for kind 'choice'"),
        ({"name": "arc_esy"}, "arc_easy"),
        ({"name": "lima"}, "another kind"),
        ({"path": "bad.jsonl"}, "can't be read"),
    ],
)
def test_a_source_that_is_no_quiz_is_said(
    tmp_path: Path, source: dict[str, Any], message: str
) -> None:
    write_files(tmp_path)
    row = {"question": "Which?", "choices": ["a"], "answer": 0}
    (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ZephyrError, match=message) as caught:
        open_tutor_quizzes(tmp_path, {"sources": [source]})
    assert "quiz.sources" in str(caught.value) or "bad.jsonl" in str(caught.value)


SEVERAL = "the answer names more than one option"


def quiz_rows(keys: list[str]) -> str:
    """A quiz in CSV as Excel writes it, a question for each key."""
    rows = [f"Which is number {n}?;one;two;three;{key};" for n, key in enumerate(keys)]
    return "\ufeff" + "\r\n".join(["question;A;B;C;answer;", *rows, ";;;;;", ""])


def test_one_bad_question_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "week.csv").write_text(quiz_rows(["A", "B", "A,C", "C", "B", "A"]))
    quizzes = open_tutor_quizzes(tmp_path, {"sources": [{"path": "week.csv"}]})
    assert len(quizzes) == 5
    assert quizzes.notes == [
        "the keys of source 'week' are read: 5 as a letter",
        f"1 of 6 rows of source 'week' left out: {SEVERAL} (at {tmp_path}/week.csv:4)",
    ]


@pytest.mark.parametrize(
    ("unreadable", "taken"), [(None, False), (0.0, False), (0.4, True), (0.3, False)]
)
def test_the_setting_says_how_many_may_be_left_out(
    tmp_path: Path, unreadable: float | None, taken: bool
) -> None:
    (tmp_path / "week.csv").write_text(quiz_rows(["A", "B", "A,C", "C", ""]))
    quiz: dict[str, Any] = {"sources": [{"path": "week.csv"}]}
    quiz |= {} if unreadable is None else {"unreadable": unreadable}
    if taken:
        assert len(open_tutor_quizzes(tmp_path, quiz)) == 3
        return
    with pytest.raises(ZephyrError) as caught:
        open_tutor_quizzes(tmp_path, quiz)
    assert "2 of 5 rows" in str(caught.value)
    assert "raise `unreadable`" in str(caught.value)


def test_at_0_not_one_question_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "week.csv").write_text(quiz_rows(["A", "B", "A,C", "C"]))
    with pytest.raises(ZephyrError, match="1 of 4 rows"):
        open_tutor_quizzes(tmp_path, {"sources": [{"path": "week.csv"}], "unreadable": 0})


def test_a_key_of_two_meanings_is_settled_by_the_setting(tmp_path: Path) -> None:
    (tmp_path / "week.csv").write_text(quiz_rows(["1", "2", "2"]))
    with pytest.raises(ZephyrError, match="`answer_key: 0-based` or `answer_key: 1-based`"):
        open_tutor_quizzes(tmp_path, {"sources": [{"path": "week.csv"}]})
    source = {"path": "week.csv", "answer_key": "1-based"}
    quizzes = open_tutor_quizzes(tmp_path, {"sources": [source]})
    quiz = quizzes.next("a", ())
    assert quiz is not None
    assert quiz.answer == (0 if quiz.text == "Which is number 0?" else 1)
