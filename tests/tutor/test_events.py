"""The log of a class: what is acknowledged is there, and what is removed is gone."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from zephyr.errors import ZephyrError
from zephyr.tutor.events import SCHEMA_VERSION, DuplicateEventError, EventLog, UnknownSessionError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "tutor.sqlite"


@pytest.fixture
def events(path: Path) -> Iterator[EventLog]:
    log = EventLog(path)
    yield log
    log.close()


def add_comparison(events: EventLog, session: str, key: str) -> None:
    body = {"messages": [["user", "What is energy?"]], "answers": {"A": "Work.", "B": "Heat."}}
    events.add("comparison", body, session=session, key=key)


def test_what_is_written_is_read_again(events: EventLog, path: Path) -> None:
    session = events.new_session()
    body = {"text": "naïve 🙂 \x00 \u2028", "n": 3}
    number = events.add("question", body, session=session, model="M1")
    events.close()
    again = EventLog(path)
    [found] = again.list_events("question")
    assert (found.id, found.session, found.model, found.body) == (number, session, "M1", body)
    assert datetime.fromisoformat(found.time).utcoffset() == timedelta(0)
    assert [event.kind for event in again.list_events()] == ["session", "question"]
    again.close()


def test_it_is_written_to_the_disk_at_each_event_and_read_by_its_owner_alone(
    events: EventLog, path: Path
) -> None:
    def pragma(name: str) -> object:
        return events._connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous"), pragma("secure_delete")) == ("wal", 2, 1)
    assert pragma("user_version") == SCHEMA_VERSION
    events.new_session()
    assert {p.stat().st_mode & 0o777 for p in path.parent.iterdir()} == {0o600}


def test_sessions_are_made_here(events: EventLog) -> None:
    one, two = events.new_session(), events.new_session()
    assert one != two
    assert len(one) == 32
    assert set(one) <= set("0123456789abcdef")
    assert events.has_session(one)
    assert not events.has_session("0" * 32)


def test_a_comparison_is_voted_on_once(events: EventLog) -> None:
    session = events.new_session()
    add_comparison(events, session, "c1")
    add_comparison(events, session, "c2")
    found = events.find_comparison("c1")
    assert found is not None
    assert found.session == session
    assert events.find_comparison("c3") is None
    events.add("vote", {"overall": "A"}, session=session, key="c1")
    with pytest.raises(DuplicateEventError):
        events.add("vote", {"overall": "B"}, session=session, key="c1")
    events.add("vote", {"overall": "B"}, session=session, key="c2")
    assert [vote.body["overall"] for vote in events.list_events("vote")] == ["A", "B"]


def test_a_quiz_is_answered_once_by_each_session(events: EventLog) -> None:
    one, two = events.new_session(), events.new_session()
    for session in (one, two):
        events.add("quiz", {"chosen": 1}, session=session, key="q1")
    with pytest.raises(DuplicateEventError):
        events.add("quiz", {"chosen": 0}, session=one, key="q1")
    assert set(events.quiz_answers(one)) == {"q1"}
    assert events.quiz_answers(one)["q1"].body == {"chosen": 1}


def test_one_of_many_votes_at_the_same_time_is_taken(events: EventLog) -> None:
    session = events.new_session()
    add_comparison(events, session, "c1")

    def vote(number: int) -> bool:
        try:
            events.add("vote", {"overall": "A", "number": number}, session=session, key="c1")
        except DuplicateEventError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        taken = list(threads.map(vote, range(64)))
    assert sum(taken) == 1
    assert events.list_events("vote")[0].body["number"] == taken.index(True)


def test_many_threads_and_two_processes_worth_of_connections_write(
    events: EventLog, path: Path
) -> None:
    other = EventLog(path)

    def write(number: int) -> int:
        log = (events, other)[number % 2]
        return log.add("question", {"number": number}, model="M1")

    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(write, range(200)))
    assert len(set(numbers)) == 200
    assert {event.body["number"] for event in other.list_events()} == set(range(200))
    other.close()


def test_a_deleted_session_leaves_nothing_in_any_file(events: EventLog, path: Path) -> None:
    kept, gone = events.new_session(), events.new_session()
    secret = "a most private question " * 40
    for session in (kept, gone):
        text = secret if session == gone else "public"
        key = session[:4]
        events.add("comparison", {"messages": [["user", text]]}, session=session, key=key)
        events.add("vote", {"other": text}, session=session, key=key)
    before = b"".join(p.read_bytes() for p in path.parent.iterdir())
    assert b"most private" in before
    assert events.delete(gone) == 3
    assert events.delete(gone) == 0
    after = b"".join(p.read_bytes() for p in path.parent.iterdir())
    assert b"most private" not in after
    assert gone.encode() not in after
    assert {event.session for event in events.list_events()} == {kept}
    assert not events.has_session(gone)
    with pytest.raises(UnknownSessionError):  # what was being answered comes too late
        events.add("vote", {}, session=gone, key="late")
    assert len(events.list_events()) == 3


def test_old_events_are_forgotten(path: Path) -> None:
    today = datetime(2026, 11, 26, 12, tzinfo=UTC)
    clock = [today - timedelta(days=100)]
    events = EventLog(path, now=lambda: clock[0])
    old, lasting = events.new_session(), events.new_session()
    events.add("question", {}, session=old, model="M1")
    for key in ("voted", "old"):
        add_comparison(events, lasting, key)
    clock[0] = today - timedelta(days=89)
    events.add("vote", {"overall": "A"}, session=lasting, key="voted")
    clock[0] = today
    assert events.delete_older_than(90) == 3
    assert [(e.kind, e.key) for e in events.list_events()] == [
        ("session", None),
        ("comparison", "voted"),
        ("vote", "voted"),
    ]
    assert events.delete_older_than(90) == 0
    events.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"{}", b"\x00" * 5000])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ZephyrError, match="no log of a tutor"):
        EventLog(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE events (id)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ZephyrError, match="no log of a tutor"):
        EventLog(path)
    assert path.read_bytes() == before


def test_a_newer_log_is_refused(path: Path) -> None:
    EventLog(path).close()
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    other.close()
    with pytest.raises(ZephyrError, match=f"newer Zephyr(?s:.*)version {SCHEMA_VERSION + 1}"):
        EventLog(path)


def test_a_damaged_log_is_refused(path: Path) -> None:
    events = EventLog(path)
    for number in range(300):
        events.add("question", {"text": "x" * 100, "number": number})
    events.close()
    raw = bytearray(path.read_bytes())
    raw[8192:40960] = os.urandom(40960 - 8192)
    path.write_bytes(raw)
    with pytest.raises(ZephyrError, match="damaged"):
        EventLog(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZephyrError, match="can't be written to"):
        EventLog(tmp_path)


READ_ONLY = """
import os, sys
from pathlib import Path
from zephyr.errors import ZephyrError
from zephyr.tutor.events import EventLog
if os.getuid() == 0:
    os.setuid(65534)
try:
    EventLog(Path(sys.argv[1]))
except ZephyrError as error:
    print(error.problem)
"""


def test_a_log_that_may_not_be_written_to_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tutor.sqlite"
        EventLog(path).close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", READ_ONLY, str(path)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        Path(folder).chmod(0o755)
    assert found.stdout == "this log can't be written to\n"


WRITER = """
import sys, threading
from pathlib import Path
from zephyr.tutor.events import EventLog
events = EventLog(Path(sys.argv[1]))
def write(thread):
    for number in range(10**6):
        made = events.add("question", {"thread": thread, "number": number, "text": "x" * 500})
        sys.stdout.write(f"{made} {thread} {number}\\n")
        sys.stdout.flush()
for thread in range(4):
    threading.Thread(target=write, args=(thread,)).start()
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 200])
def test_what_was_acknowledged_survives_a_kill_under_load(path: Path, acknowledged: int) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledged)]
        process.kill()
        lines += [line for line in process.stdout if line.endswith("\n")]
    assert len(lines) >= acknowledged
    events = EventLog(path)
    stored = {event.id: event.body for event in events.list_events()}
    for line in lines:
        number, *rest = map(int, line.split())
        assert [stored[number][key] for key in ("thread", "number")] == rest
    assert events._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    events.new_session()
    events.close()
