"""What happened in class: an SQLite log whose events, once acknowledged, survive a power cut.

One row is one event. Sessions are random ids that are made here and say nothing of a person. `key`
is what an event is about: a comparison and the vote on it have the comparison's id, an answer in a
quiz has the question's, a step of a ladder the ladder's.
"""

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from zephyr.errors import ZephyrError
from zephyr.runs.store import full_disk_explained, sync

Kind = Literal["session", "question", "comparison", "vote", "quiz", "rating", "ladder"]

SCHEMA = 1
APPLICATION = int.from_bytes(b"Zeph")
WAIT_SECONDS = 5.0
"""How long another process may write before this one gives up."""

_CREATE = f"""
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    session TEXT,
    kind TEXT NOT NULL CHECK (kind IN ({", ".join(f"'{kind}'" for kind in get_args(Kind))})),
    model TEXT,
    key TEXT,
    body TEXT NOT NULL
);
CREATE INDEX by_session ON events (session, kind);
CREATE INDEX by_time ON events (time);
CREATE INDEX by_key ON events (key);
CREATE UNIQUE INDEX one_session ON events (session) WHERE kind = 'session';
CREATE UNIQUE INDEX one_of_each ON events (kind, key) WHERE kind IN ('comparison', 'vote');
CREATE UNIQUE INDEX one_answer ON events (session, key) WHERE kind = 'quiz';
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
"""
_SESSION = "kind = 'session' AND session = ?"
_COLUMNS = "id, time, session, kind, model, key, body"


class AlreadyThere(Exception):
    """There may be one such event, and there is one: a vote, an answer in a quiz."""


class UnknownSession(Exception):
    """The session was not made here, or has been removed."""


@dataclass(frozen=True)
class Event:
    """One row of the log."""

    id: int
    time: str
    session: str | None
    kind: Kind
    model: str | None
    key: str | None
    body: dict[str, Any]


def _now() -> datetime:
    return datetime.now(UTC)


def _body(text: str) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(error) from error
    return body


class Events:
    """The log of one class, written and read by any number of threads."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = _now) -> None:
        """Opens the log, or begins one that only its owner can read.

        Raises:
            ZephyrError: the file is damaged, something else, of a newer Zephyr, or can't be
                written to.
        """
        self.path = path
        self._now = now
        self._lock = Lock()
        with self._explained():
            self._create_file()
            self._connection = sqlite3.connect(
                path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _create_file(self) -> None:
        with full_disk_explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                sync(self.path.parent)

    def _prepare(self) -> None:
        """Looks at what the file is before anything in it is changed."""
        version = self._number("user_version")
        empty = self._number("schema_version") == 0
        if not empty and self._number("application_id") != APPLICATION:
            raise ZephyrError(
                "this file is no log of a tutor",
                where=str(self.path),
                todo="give another file as `database`",
            )
        if version > SCHEMA:
            raise ZephyrError(
                "this log was written by a newer Zephyr",
                where=str(self.path),
                found=f"version {version}",
                allowed=f"version {SCHEMA}",
                todo="use that Zephyr, or another file as `database`",
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        with self._writing() as connection:  # fails at once where nothing can be written
            if empty and self._number("schema_version") == 0:
                for statement in filter(str.strip, _CREATE.split(";")):
                    connection.execute(statement)
        if (found := self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)

    def _number(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    # -- writing ------------------------------------------------------------------------------

    def new_session(self) -> str:
        """The id of a new session: 32 hex digits."""
        session = secrets.token_hex(16)
        self.add("session", {}, session=session)
        return session

    def add(
        self,
        kind: Kind,
        body: Mapping[str, Any],
        *,
        session: str | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> int:
        """Writes an event and gives its id, once it would survive a power cut.

        Raises:
            AlreadyThere: there may be one such event, and there is one.
            UnknownSession: the session is not there, or no more.
            ZephyrError: it can't be written.
        """
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        row = (self._time(), session, kind, model, key, text)
        with self._explained(), self._lock, self._writing() as connection:
            if kind != "session" and session is not None:
                there = connection.execute(f"SELECT 1 FROM events WHERE {_SESSION}", (session,))  # noqa: S608  # our own words
                if there.fetchone() is None:
                    raise UnknownSession
            try:
                made = connection.execute(
                    "INSERT INTO events (time, session, kind, model, key, body)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
            except sqlite3.IntegrityError as error:
                raise AlreadyThere from error
        assert made.lastrowid is not None
        return made.lastrowid

    def delete(self, session: str) -> int:
        """Removes all events of a session for good; gives their number."""
        return self._delete("session = ?", (session,))

    def forget(self, keep_days: int) -> int:
        """Removes events that are older than so many days; gives their number.

        A comparison stays as long as the vote on it, and a session as long as any of its events.
        """
        cut = self._time(timedelta(days=keep_days))
        there = "SELECT 1 FROM events AS other WHERE other.time >= ?"
        return self._delete(
            "time < ?"
            f" AND NOT (kind = 'comparison' AND EXISTS ({there}"
            " AND other.kind = 'vote' AND other.key = events.key))"
            f" AND NOT (kind = 'session' AND EXISTS ({there}"
            " AND other.session = events.session))",
            (cut, cut, cut),
        )

    def _delete(self, which: str, values: tuple[str, ...]) -> int:
        with self._explained(), self._lock:
            with self._writing() as connection:
                count = connection.execute(f"DELETE FROM events WHERE {which}", values).rowcount  # noqa: S608  # our own words
            if count:  # the journal still holds what was removed
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def _time(self, ago: timedelta = timedelta()) -> str:
        return (self._now().astimezone(UTC) - ago).isoformat(timespec="milliseconds")

    # -- reading ------------------------------------------------------------------------------

    def knows(self, session: str) -> bool:
        """Whether a session was made here, and has not been removed."""
        return bool(self._rows(_SESSION, (session,)))

    def comparison(self, key: str) -> Event | None:
        """The comparison with this id."""
        return next(iter(self._rows("kind = 'comparison' AND key = ?", (key,))), None)

    def answered(self, session: str) -> dict[str, Event]:
        """What a session has answered in the quiz, by the id of the question."""
        rows = self._rows("kind = 'quiz' AND session = ?", (session,))
        return {event.key: event for event in rows if event.key is not None}

    def all(self, *kinds: Kind) -> list[Event]:
        """All events of some kinds, or of every kind, in the order in which they came."""
        wanted = kinds or get_args(Kind)
        return self._rows(f"kind IN ({', '.join('?' * len(wanted))})", wanted)

    def _rows(self, which: str, values: tuple[str, ...]) -> list[Event]:
        query = f"SELECT {_COLUMNS} FROM events WHERE {which} ORDER BY id"  # noqa: S608  # our own words
        with self._explained(), self._lock:
            rows = self._connection.execute(query, values).fetchall()
        with self._explained():
            return [Event(*(*row, _body(text))) for *row, text in rows]

    def close(self) -> None:
        """Ends the log's connection; what was written stays."""
        with self._lock:
            self._connection.close()

    # -- what may go wrong --------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when it ends, or leaves nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite says into a `ZephyrError`."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            problem, todo = _PROBLEMS.get(code, _DAMAGED)
            raise ZephyrError(problem, where=str(self.path), found=error, todo=todo) from error


_DAMAGED = ("this log is damaged", "put a copy back, or move it away: a new one is begun")
_NOT_WRITABLE = ("this log can't be written to", "give a file that can be as `database`")
_PROBLEMS = {
    sqlite3.SQLITE_NOTADB: ("this file is no log of a tutor", "give another file as `database`"),
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space: nothing has been lost so far"),
    sqlite3.SQLITE_BUSY: (
        "another program is writing to this log",
        "wait until it ends, or stop it",
    ),
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
}
