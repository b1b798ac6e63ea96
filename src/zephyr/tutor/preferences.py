"""Exports the votes of a class as preference pairs (DPO), in the format of reader `epfl`.

One row is one question with all votes on it. A conversation of several turns, or one with a system
message of the student, is written as a transcript:

    Student: What is work?

    Tutor: Force times distance.

    Student: And power?

The course's own system message is not part of the prompt: it is prepended to every conversation
when the model is served.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.records import content_hash
from zephyr.runs.store import explain_disk_errors, write_atomically
from zephyr.tutor.events import Event

CRITERIA = ("correctness", "relevance", "clarity", "completeness", "other")
"""The criteria of a vote, beside which answer is better overall."""

_SPEAKERS = {"user": "Student", "assistant": "Tutor", "system": "Instructions"}


class Vote(NamedTuple):
    """A vote: the prompt, both answers, their models, the better side, and the criteria."""

    question: str
    answers: dict[str, str]
    models: dict[str, str]
    overall: str
    criteria: dict[str, str]


def question_text(messages: Sequence[Sequence[str]]) -> str:
    """The prompt of a comparison: a single message's text, else a transcript of all."""
    if len(messages) == 1:
        return messages[0][1]
    return "\n\n".join(f"{_SPEAKERS[role]}: {content}" for role, content in messages)


def are_identical(answers: Mapping[str, str]) -> bool:
    """Whether both answers of a comparison are the same text, so that no vote can tell them."""
    return answers["A"].strip() == answers["B"].strip()


def list_votes(events: Iterable[Event]) -> Iterator[Vote]:
    """Joins votes with their comparisons, in the order of the votes.

    Votes on identical answers, which earlier versions took, are left out.
    """
    events = list(events)
    comparisons = {event.key: event.body for event in events if event.kind == "comparison"}
    for event in events:
        if event.kind == "vote" and event.key in comparisons:
            body = comparisons[event.key]
            if are_identical(body["answers"]):
                continue
            yield Vote(
                question_text(body["messages"]),
                body["answers"],
                body["models"],
                event.body["overall"],
                event.body["criteria"],
            )


def to_raw_rows(events: Iterable[Event], course: str) -> list[dict[str, Any]]:
    """Groups votes by question into rows of the raw format, in the order of first votes.

    Criteria without a vote are null. The course id is a hash of its name.
    """
    rows: dict[str, dict[str, Any]] = {}
    for vote in list_votes(events):
        row = rows.setdefault(
            vote.question,
            {
                "question_id": _stable_id(vote.question),
                "question_complete": vote.question,
                "course_id": _stable_id(course),
                "preference": [],
            },
        )
        criteria = {name: vote.criteria.get(name) for name in CRITERIA}
        row["preference"].append(
            {
                "A": vote.answers["A"],
                "B": vote.answers["B"],
                "overall": vote.overall,
                "criteria": {"overall": vote.overall, **criteria},
            }
        )
    return list(rows.values())


def _stable_id(text: str) -> int:
    """A stable integer id below 2^48, from the hash of a text."""
    return int(content_hash(text)[:12], 16)


def write_preferences(
    events: Iterable[Event], course: str, path: Path, *, force: bool
) -> tuple[int, int]:
    """Writes the preference data as JSON; returns the numbers of questions and of votes.

    Raises:
        ZephyrError: there are no votes, or the file exists already.
    """
    rows = to_raw_rows(events, course)
    if not rows:
        raise ZephyrError(
            "there are no votes to export yet",
            todo="let students compare answers (zephyr serve), and vote",
        )
    if path.exists() and not (force and path.is_file()):
        todo = "give --force to write over it" if path.is_file() else "give the name of a file"
        raise ZephyrError("this is there already", where=str(path), todo=todo)
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return len(rows), sum(len(row["preference"]) for row in rows)
