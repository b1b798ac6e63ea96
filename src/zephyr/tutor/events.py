"""Event log of a class (SQLite, WAL): sessions, questions, votes, quiz answers; durable.

One row is one event. Sessions are random, anonymous ids. The `key` of a comparison and of the vote
on it is the comparison's id, that of a quiz answer the question's, that of a hint the ladder's,
that of a rating a hash of what was rated. A committed event survives a power cut.
"""

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from zephyr.errors import ZephyrError
from zephyr.runs.store import explain_disk_errors, fsync_path

EventKind = Literal["session", "question", "comparison", "vote", "quiz", "rating", "ladder"]

SCHEMA_VERSION = 1
APPLICATION_ID = int.from_bytes(b"Zeph")
BUSY_TIMEOUT_SECONDS = 5.0
"""SQLite's busy timeout: how long to wait for another process's lock."""

_CREATE = f"""
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    session TEXT,
    kind TEXT NOT NULL CHECK (kind IN ({", ".join(f"'{kind}'" for kind in get_args(EventKind))})),
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
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_INDEX_BY_KIND = "CREATE INDEX IF NOT EXISTS by_kind ON events (kind, model)"
"""Added to the logs of earlier versions, which read it as any other."""

_IS_SESSION = "kind = 'session' AND session = ?"
_COLUMNS = "id, time, session, kind, model, key, body"


class DuplicateEventError(Exception):
    """A unique event (a vote, a quiz answer) is stored already."""


class UnknownSessionError(Exception):
    """The session was never created, or has been deleted."""


@dataclass(frozen=True)
class Event:
    """One row of the event log."""

    id: int
    time: str
    session: str | None
    kind: EventKind
    model: str | None
    key: str | None
    body: dict[str, Any]


def _now() -> datetime:
    return datetime.now(UTC)


def _parse_body(text: str) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(error) from error
    return body


class EventLog:
    """The SQLite event log of one class; thread-safe for reading and writing."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = _now) -> None:
        """Opens the database, or creates one that only its owner can read.

        Raises:
            ZephyrError: the file is damaged, something else, of a newer Zephyr, or can't be
                written to.
        """
        self.path = path
        self._now = now
        self._lock = Lock()
        with self._translate_errors():
            self._create_file()
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _create_file(self) -> None:
        with explain_disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                fsync_path(self.path.parent)

    def _prepare(self) -> None:
        """Checks application id and schema version first, then creates the tables."""
        version = self._read_pragma("user_version")
        is_empty = self._read_pragma("schema_version") == 0
        if not is_empty and self._read_pragma("application_id") != APPLICATION_ID:
            raise ZephyrError(
                "this file is no log of a tutor",
                where=str(self.path),
                todo="give another file as `database`",
            )
        if version > SCHEMA_VERSION:
            raise ZephyrError(
                "this log was written by a newer Zephyr",
                where=str(self.path),
                found=f"version {version}",
                allowed=f"version {SCHEMA_VERSION}",
                todo="use that Zephyr, or another file as `database`",
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        with self._transaction() as connection:  # fails at once if the file is read-only
            if is_empty and self._read_pragma("schema_version") == 0:
                for statement in filter(str.strip, _CREATE.split(";")):
                    connection.execute(statement)
            connection.execute(_INDEX_BY_KIND)
        if (found := self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)

    def _read_pragma(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    # -- writing ------------------------------------------------------------------------------

    def new_session(self) -> str:
        """Creates a session; returns its id (32 hex digits)."""
        session = secrets.token_hex(16)
        self.add("session", {}, session=session)
        return session

    def add_rating(self, body: Mapping[str, Any], *, session: str, model: str, key: str) -> None:
        """Inserts a rating unless it is the one that this session gave last to this answer.

        Raises:
            UnknownSessionError: the session was never created, or has been deleted.
            ZephyrError: it can't be written.
        """
        condition = "kind = 'rating' AND session = ? AND model = ? AND key = ?"
        previous = self._select(condition, (session, model, key))
        if not previous or previous[-1].body["rating"] != body["rating"]:
            self.add("rating", body, session=session, model=model, key=key)

    def add(
        self,
        kind: EventKind,
        body: Mapping[str, Any],
        *,
        session: str | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> int:
        """Inserts an event and returns its id, once it is committed to disk.

        Raises:
            DuplicateEventError: the event must be unique, and is stored already.
            UnknownSessionError: the session was never created, or has been deleted.
            ZephyrError: it can't be written.
        """
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        row = (self._timestamp(), session, kind, model, key, text)
        with self._translate_errors(), self._lock, self._transaction() as connection:
            if kind != "session" and session is not None:
                query = f"SELECT 1 FROM events WHERE {_IS_SESSION}"  # noqa: S608  # our own words
                session_row = connection.execute(query, (session,))
                if session_row.fetchone() is None:
                    raise UnknownSessionError
            try:
                cursor = connection.execute(
                    "INSERT INTO events (time, session, kind, model, key, body)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
            except sqlite3.IntegrityError as error:
                raise DuplicateEventError from error
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def delete(self, session: str) -> int:
        """Deletes all events of a session permanently; returns their number."""
        return self._delete("session = ?", (session,))

    def delete_older_than(self, keep_days: int) -> int:
        """Deletes events older than `keep_days` days (retention); returns their number.

        A comparison is kept as long as its vote, and a session as long as any of its events.
        """
        cutoff = self._timestamp(timedelta(days=keep_days))
        newer_event = "SELECT 1 FROM events AS other WHERE other.time >= ?"
        return self._delete(
            "time < ?"
            f" AND NOT (kind = 'comparison' AND EXISTS ({newer_event}"
            " AND other.kind = 'vote' AND other.key = events.key))"
            f" AND NOT (kind = 'session' AND EXISTS ({newer_event}"
            " AND other.session = events.session))",
            (cutoff, cutoff, cutoff),
        )

    def _delete(self, condition: str, values: tuple[str, ...]) -> int:
        with self._translate_errors(), self._lock:
            with self._transaction() as connection:
                count = connection.execute(f"DELETE FROM events WHERE {condition}", values).rowcount  # noqa: S608  # our own words
            if count:  # the WAL still has the deleted rows
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def _timestamp(self, ago: timedelta = timedelta()) -> str:
        return (self._now().astimezone(UTC) - ago).isoformat(timespec="milliseconds")

    # -- reading ------------------------------------------------------------------------------

    def has_session(self, session: str) -> bool:
        """Whether a session was made here, and has not been deleted."""
        return bool(self._select(_IS_SESSION, (session,)))

    def find_comparison(self, key: str) -> Event | None:
        """The comparison with this id."""
        return next(iter(self._select("kind = 'comparison' AND key = ?", (key,))), None)

    def compared_models(self) -> list[tuple[str, str]]:
        """The models of each comparison, sides A and B."""
        query = (
            "SELECT json_extract(body, '$.models.A'), json_extract(body, '$.models.B')"
            " FROM events WHERE kind = 'comparison'"
        )
        with self.open_reader() as connection:
            return connection.execute(query).fetchall()

    def quiz_answers(self, session: str) -> dict[str, Event]:
        """The quiz answers of a session, by the id of the question."""
        rows = self._select("kind = 'quiz' AND session = ?", (session,))
        return {event.key: event for event in rows if event.key is not None}

    def list_events(self, *kinds: EventKind) -> list[Event]:
        """All events of some kinds, or of every kind, in the order of their ids."""
        event_kinds = kinds or get_args(EventKind)
        return self._select(f"kind IN ({', '.join('?' * len(event_kinds))})", event_kinds)

    def read_after(self, last_id: int, limit: int) -> list[tuple[Any, ...]]:
        """The next rows after an id, at most `limit`, each with its body as text (JSON)."""
        query = f"SELECT {_COLUMNS} FROM events WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608  # our own words
        with self._translate_errors(), self._lock:
            return self._connection.execute(query, (last_id, limit)).fetchall()

    @contextmanager
    def open_reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for long queries, beside which events are written.

        Raises:
            ZephyrError: the log can't be read.
        """
        with (
            self._translate_errors(),
            closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_SECONDS)) as connection,
        ):
            connection.execute("PRAGMA query_only = ON")
            yield connection

    def _select(self, condition: str, values: tuple[str, ...]) -> list[Event]:
        query = f"SELECT {_COLUMNS} FROM events WHERE {condition} ORDER BY id"  # noqa: S608  # our own words
        with self._translate_errors(), self._lock:
            rows = self._connection.execute(query, values).fetchall()
        with self._translate_errors():
            return [Event(*(*row, _parse_body(text))) for *row, text in rows]

    def close(self) -> None:
        """Closes the connection; what was committed stays."""
        with self._lock:
            self._connection.close()

    # -- transactions and errors --------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: commits when the block ends, rolls back on an exception."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translates SQLite errors to `ZephyrError`."""
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
