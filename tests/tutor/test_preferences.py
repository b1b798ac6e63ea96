"""Votes in the course's form: what is written is what a reader and a mixture read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.in_memory_sources import NO_EVAL_QUESTIONS
from tests.workspace import Command
from zephyr.data import mixture, sources
from zephyr.errors import ZephyrError
from zephyr.recipe.data import MixtureSpec
from zephyr.records import Message, Pair
from zephyr.tutor.events import EventLog
from zephyr.tutor.preferences import question_text, to_raw_rows, write_preferences


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path / "tutor.sqlite")
    yield log
    log.close()


def add_comparison(
    events: EventLog,
    key: str,
    question: str | list[list[str]],
    answers: tuple[str, str],
    overall: str | None,
    **criteria: str,
) -> None:
    """A comparison of M1 (left) and M2, and a vote on it where there is one."""
    session = events.new_session()
    messages = [["user", question]] if isinstance(question, str) else question
    body: dict[str, Any] = {"messages": messages, "answers": dict(zip("AB", answers, strict=True))}
    body["models"] = {"A": "M1", "B": "M2"}
    events.add("comparison", body, session=session, key=key)
    if overall is not None:
        vote = {"overall": overall, "criteria": criteria}
        events.add("vote", vote, session=session, key=key)


CONVERSATION = [
    ["system", "Be brief."],
    ["user", "What is work?"],
    ["assistant", "Force."],
    ["user", "?"],
]


@pytest.fixture
def voted_events(events: EventLog) -> EventLog:
    add_comparison(
        events, "1", "What is π?", ("3.14 🙂", "4"), "A", correctness="A", other="nice \u2028"
    )
    add_comparison(events, "2", "What is heat?", ("Energy.", "Rain."), None)
    add_comparison(events, "3", CONVERSATION, ("Yes.", "No."), "B")
    add_comparison(events, "4", "What is π?", ("3", "22/7"), "B", clarity="AB")
    add_comparison(events, "5", "What is π?", ("a", "b"), "AB")
    return events


def test_a_question_is_one_row_with_all_its_votes(voted_events: EventLog) -> None:
    first, second = to_raw_rows(voted_events.list_events(), "Mechanics")
    assert first["question_complete"] == "What is π?"
    assert [(p["A"], p["B"], p["overall"]) for p in first["preference"]] == [
        ("3.14 🙂", "4", "A"),
        ("3", "22/7", "B"),
        ("a", "b", "AB"),
    ]
    nothing = dict.fromkeys(("correctness", "relevance", "clarity", "completeness", "other"))
    assert [p["criteria"] for p in first["preference"]] == [
        {"overall": "A", **nothing, "correctness": "A", "other": "nice \u2028"},
        {"overall": "B", **nothing, "clarity": "AB"},
        {"overall": "AB", **nothing},
    ]
    assert first["course_id"] == second["course_id"]
    assert first["question_id"] != second["question_id"]


def test_numbers_are_those_of_the_text(voted_events: EventLog, tmp_path: Path) -> None:
    other = EventLog(tmp_path / "other.sqlite")
    add_comparison(other, "x", "What is π?", ("a", "b"), "A")
    [row] = to_raw_rows(other.list_events(), "Other course")
    again = to_raw_rows(voted_events.list_events(), "Mechanics")[0]
    assert row["question_id"] == again["question_id"] < 2**53
    assert row["course_id"] != again["course_id"]
    other.close()


def test_a_conversation_is_a_transcript() -> None:
    assert question_text([["user", "What is 1 + 1?\n\nThink."]]) == "What is 1 + 1?\n\nThink."
    assert question_text(CONVERSATION) == (
        "Instructions: Be brief.\n\nStudent: What is work?\n\nTutor: Force.\n\nStudent: ?"
    )


def test_the_file_is_a_source_of_pairs(voted_events: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "class.json"
    assert write_preferences(voted_events.list_events(), "Mechanics", path, force=False) == (2, 4)
    spec = MixtureSpec.model_validate(
        {"kind": "pair", "sources": [{"name": "votes", "path": "class.json"}]}
    )
    opened_source = sources.open_source(
        spec.sources[0], kind="pair", use="train", origin=None, base=tmp_path, where="data.pairs"
    )
    built = mixture.build_mixture(spec, [opened_source], seed=1, question_index=NO_EVAL_QUESTIONS)
    pairs = {(r.prompt, r.chosen, r.rejected) for r in built.split.train if isinstance(r, Pair)}
    pi = (Message("user", "What is π?"),)
    assert pairs == {
        (pi, "3.14 🙂", "4"),
        (pi, "22/7", "3"),
        ((Message("user", question_text(CONVERSATION)),), "No.", "Yes."),
    }
    account = built.manifest["sources"]["votes"]
    assert account["left_out"] == {"neither answer is preferred overall": 1}
    assert (account["unreadable"], account["kept"]) == ({}, 3)


def test_nothing_is_written_over_unless_forced(voted_events: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "new" / "class.json"
    write_preferences(voted_events.list_events(), "Mechanics", path, force=False)
    before = path.read_bytes()
    with pytest.raises(ZephyrError, match="--force"):
        write_preferences(voted_events.list_events(), "Other", path, force=False)
    assert path.read_bytes() == before
    write_preferences(voted_events.list_events(), "Other", path, force=True)
    assert path.read_bytes() != before
    with pytest.raises(ZephyrError, match="name of a file"):
        write_preferences(voted_events.list_events(), "Other", tmp_path, force=True)


def test_without_votes_there_is_nothing_to_export(events: EventLog, tmp_path: Path) -> None:
    add_comparison(events, "1", "What is heat?", ("Energy.", "Rain."), None)
    with pytest.raises(ZephyrError, match="no votes"):
        write_preferences(events.list_events(), "Mechanics", tmp_path / "class.json", force=False)
    assert not (tmp_path / "class.json").exists()


def test_the_command_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zephyr: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEPHYR_RUNS", str(tmp_path / "runs"))
    nothing = zephyr("preferences", "export", "--out", "class.json")
    assert (nothing.code, "no log of a class" in nothing.err) == (2, True)
    log = EventLog(tmp_path / "runs" / "tutor.sqlite")
    add_comparison(log, "1", "What is heat?", ("Energy.", "Rain."), "A")
    done = zephyr("preferences", "export", "--out", "class.json")  # while the log is in use
    assert (done.code, done.out) == (0, "class.json: questions 1, votes 1\n")
    assert json.loads((tmp_path / "class.json").read_text()) == to_raw_rows(
        log.list_events(), "Course"
    )
    (tmp_path / "tutor.yaml").write_text("course: Mechanics\ndatabase: runs/tutor.sqlite\n")
    arguments = ("preferences", "export", "--out", "class.json", "--tutor", "tutor.yaml")
    assert zephyr(*arguments).code == 2
    assert zephyr(*arguments, "--force").code == 0
    assert json.loads((tmp_path / "class.json").read_text()) == to_raw_rows(
        log.list_events(), "Mechanics"
    )
    log.close()
