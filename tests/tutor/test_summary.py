"""The teacher's figures, computed by hand."""

import sqlite3
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from zephyr.stats.proportions import clopper_pearson_interval
from zephyr.tutor.events import EventLog
from zephyr.tutor.preferences import list_votes
from zephyr.tutor.summary import summarize, win_rate
from zephyr.tutor.teacher_routes import csv_pages


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path / "tutor.sqlite")
    yield log
    log.close()


def add_comparison(events: EventLog, session: str, question: str, key: str) -> None:
    body = {"messages": [["user", question]], "models": {"A": "M1", "B": "M2"}}
    events.add("comparison", body, session=session, key=key)
    events.add("vote", {"overall": "A", "criteria": {}}, session=session, key=key)


def add_vote(
    events: EventLog,
    question: str,
    left: str,
    right: str,
    overall: str,
    answers: Sequence[str] = "ab",
) -> None:
    key = str(len(events.list_events()))
    body = {
        "messages": [["user", question]],
        "answers": dict(zip("AB", answers, strict=True)),
        "models": {"A": left, "B": right},
    }
    session = events.new_session()
    events.add("comparison", body, session=session, key=key)
    events.add("vote", {"overall": overall, "criteria": {}}, session=session, key=key)


def test_nothing_yet(events: EventLog) -> None:
    assert summarize(events, "Mechanics") == {
        "course": "Mechanics",
        "since": None,
        "questions": {},
        "sessions": 0,
        "votes": 0,
        "ratings": {},
        "quiz": {"answered": 0, "right": 0, "model_right": 0, "agreement": None},
        "wins": {},
        "pairs": [],
        "closest": [],
    }


def test_wins_do_not_depend_on_sides(events: EventLog) -> None:
    for left, right, overall in (
        ("M1", "M2", "B"),
        ("M2", "M1", "A"),
        ("M2", "M1", "A"),
        ("M1", "M2", "A"),
        ("M1", "M2", "AB"),
        ("M3", "M1", "AB"),
    ):
        add_vote(events, "What is heat?", left, right, overall)
    found = summarize(events, "Mechanics")
    assert found["votes"] == 6
    assert found["sessions"] == 6
    assert found["since"] == events.list_events()[0].time
    assert found["questions"] == {"M1": 6, "M2": 5, "M3": 1}
    assert found["pairs"] == [
        {"a": "M1", "b": "M2", "a_wins": 1, "b_wins": 3, "ties": 1},
        {"a": "M1", "b": "M3", "a_wins": 0, "b_wins": 0, "ties": 1},
    ]
    assert {model: (row["value"], row["n"]) for model, row in found["wins"].items()} == {
        "M1": ((1 + 2 / 2) / 6, 6),
        "M2": ((3 + 1 / 2) / 5, 5),
        "M3": (1 / 2, 1),
    }
    assert sum(row["value"] * row["n"] for row in found["wins"].values()) == pytest.approx(6)


def test_intervals_of_wins() -> None:
    plain = win_rate(7, 0, 10)
    assert plain == (0.7, *clopper_pearson_interval(7, 10), 10)
    assert plain[1:3] == pytest.approx((0.3475, 0.9333), abs=5e-5)  # as tables have it
    even = win_rate(3, 4, 10)
    assert even == (0.5, *clopper_pearson_interval(5, 10), 10)
    odd = win_rate(3, 3, 10)
    assert odd == (0.45, clopper_pearson_interval(4, 10)[0], clopper_pearson_interval(5, 10)[1], 10)
    single = win_rate(0, 1, 1)  # one tie tells nothing
    assert (single.value, single.low, single.high) == (0.5, 0.0, 1.0)


def test_comparisons_without_a_vote_count_as_questions_alone(events: EventLog) -> None:
    body = {"messages": [["user", "?"]], "answers": {}, "models": {"A": "M1", "B": "M2"}}
    events.add("comparison", body, session=events.new_session(), key="1")
    events.add("question", {}, model="M1")
    events.add("ladder", {}, model="M2")
    found = summarize(events, "Mechanics")
    assert found["questions"] == {"M1": 2, "M2": 2}
    assert (found["votes"], found["wins"], found["closest"]) == (0, {}, [])


def test_ratings_and_the_quiz(events: EventLog) -> None:
    for rating in ("up", "up", "down"):
        events.add("rating", {"rating": rating}, model="M1")
    session = events.new_session()
    for number, (chosen, model) in enumerate([(0, 0), (0, 1), (1, 1), (2, 2), (0, 0)]):
        body = {"chosen": chosen, "model_chosen": model, "answer": 0}
        events.add("quiz", body, session=session, model="M1", key=str(number))
    found = summarize(events, "Mechanics")
    assert found["ratings"] == {"M1": {"up": 2, "down": 1}}
    low, high = clopper_pearson_interval(4, 5)
    assert found["quiz"] == {
        "answered": 5,
        "right": 3,
        "model_right": 2,
        "agreement": {"value": 0.8, "low": low, "high": high, "n": 5},
    }


def test_the_last_rating_of_an_answer_counts(events: EventLog) -> None:
    one, two = events.new_session(), events.new_session()
    ratings = [
        ("a1", "up"),
        ("a1", "up"),
        ("a1", "down"),
        ("a2", "up"),
        ("a1", "up"),
        ("a1", "down"),
    ]
    for key, rating in ratings:
        events.add_rating({"rating": rating}, session=one, model="M1", key=key)
    events.add_rating({"rating": "up"}, session=two, model="M1", key="a1")
    events.add_rating({"rating": "up"}, session=two, model="M2", key="a1")
    found = summarize(events, "Mechanics")["ratings"]
    assert found == {"M1": {"up": 2, "down": 1}, "M2": {"up": 1, "down": 0}}
    stored = [(event.key, event.body["rating"]) for event in events.list_events("rating")]
    assert stored[:5] == [*ratings[1:5], ratings[5]]  # what changes nothing is not stored again
    assert len(stored) == 7


def test_the_memory_of_a_summary_does_not_grow_with_the_log(events: EventLog) -> None:
    text = "a question " * 3_000
    session = events.new_session()
    for number in range(600):
        events.add("question", {"messages": [["user", text]]}, session=session, model="M1")
        if number % 4 == 0:
            add_comparison(events, session, f"{number} {text}", str(number))
    tracemalloc.start()
    summarize(events, "Mechanics")
    for _ in csv_pages(events):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 14 << 20  # the log has 24 MB


def test_votes_are_stored_while_the_figures_are_read(events: EventLog) -> None:
    with events.open_reader() as log:
        rows = log.execute("SELECT * FROM events")
        add_vote(events, "What is heat?", "M1", "M2", "A")
        assert rows.fetchall() is not None
        with pytest.raises(sqlite3.OperationalError):
            log.execute("DELETE FROM events")
    assert summarize(events, "Mechanics")["votes"] == 1


def test_the_closest_questions_are_those_of_which_most_is_known(events: EventLog) -> None:
    def add_votes(question: str, m1: int, m2: int, ties: int) -> None:
        for overall, count in (("A", m1), ("B", m2), ("AB", ties)):
            for _ in range(count):
                add_vote(events, question, "M1", "M2", overall)

    add_votes("three votes", 1, 1, 1)
    add_votes("even, few", 2, 2, 0)
    add_votes("even, many", 4, 4, 2)
    add_votes("nearly even, many", 6, 5, 0)
    add_votes("clear", 8, 0, 0)
    closest = summarize(events, "Mechanics")["closest"]
    assert [row["question"] for row in closest] == [
        "even, many",
        "nearly even, many",
        "even, few",
        "clear",
    ]
    assert closest[0] == {
        "question": "even, many",
        "a": "M1",
        "b": "M2",
        "votes": {"M1": 4, "M2": 4},
        "ties": 2,
        "n": 10,
    }


def test_votes_on_identical_answers_count_in_no_win_rate(events: EventLog) -> None:
    """Earlier versions took them."""
    add_vote(events, "same", "M1", "M2", "A", answers=["one ", "one\n"])
    add_vote(events, "other", "M1", "M2", "B")
    found = summarize(events, "Mechanics")
    assert found["votes"] == 1
    assert found["wins"]["M2"]["value"] == 1
    assert [vote.question for vote in list_votes(events.list_events())] == ["other"]


def test_no_session_is_in_the_summary(events: EventLog) -> None:
    add_vote(events, "What is heat?", "M1", "M2", "A")
    text = str(summarize(events, "Mechanics"))
    assert all(e.session not in text for e in events.list_events() if e.session)
