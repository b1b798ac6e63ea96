"""What a teacher sees of a class: figures, and the questions on which votes are most even.

Shares have 95 % intervals by Wilson's score (`statistics.wilson`). A tie is half a win of each
side; since half wins spread less than whole ones, the interval runs from that of the wins rounded
down to that of the wins rounded up, and is rather too wide than too narrow. Votes are taken to be
independent, which those of one student are not.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr.stats.intervals import Estimate, estimate, wilson
from zephyr.tutor.events import Event
from zephyr.tutor.preferences import Vote, votes

CLOSEST = 20
"""Questions that are shown as the most even."""


@dataclass
class _Score:
    """How two models fared against each other; the names are in order."""

    a_wins: int = 0
    b_wins: int = 0
    ties: int = 0

    @property
    def n(self) -> int:
        return self.a_wins + self.b_wins + self.ties

    def count(self, winner: str | None, a: str) -> None:
        """Counts the vote for a model, or for none."""
        if winner is None:
            self.ties += 1
        elif winner == a:
            self.a_wins += 1
        else:
            self.b_wins += 1

    @property
    def unevenness(self) -> float:
        """How far from one half a model's share of wins may lie, by its interval."""
        share = win_rate(self.a_wins, self.ties, self.n)
        return max(0.5 - share.low, share.high - 0.5)


def win_rate(wins: int, ties: int, n: int) -> Estimate:
    """The share (wins + ties / 2) / n of `n` votes."""
    won = wins + ties / 2
    low, high = wilson(math.floor(won), n)[0], wilson(math.ceil(won), n)[1]
    return Estimate(won / n, low, high, n)


def summary(events: Iterable[Event], course: str) -> dict[str, Any]:
    """The figures of a class, as JSON-ready values; no session stands among them."""
    events = list(events)
    of_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        of_kind[event.kind].append(event)
    given = list(votes(events))
    return {
        "course": course,
        "since": events[0].time if events else None,
        "questions": _questions(events),
        "sessions": len(of_kind["session"]),
        "votes": len(given),
        "ratings": _ratings(of_kind["rating"]),
        "quiz": _quiz(of_kind["quiz"]),
        "wins": _wins(given),
        "pairs": _pairs(given),
        "closest": _closest(given),
    }


def _questions(events: Sequence[Event]) -> dict[str, int]:
    """How many answers each model was asked for, comparisons and steps of ladders with them."""
    asked: Counter[str] = Counter()
    for event in events:
        if event.kind in ("question", "ladder") and event.model is not None:
            asked[event.model] += 1
        elif event.kind == "comparison":
            asked.update(event.body["models"].values())
    return dict(sorted(asked.items()))


def _ratings(ratings: Sequence[Event]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for event in ratings:
        row = found.setdefault(str(event.model), {"up": 0, "down": 0})
        row[event.body["rating"]] += 1
    return dict(sorted(found.items()))


def _quiz(answers: Sequence[Event]) -> dict[str, Any]:
    """How students and models fared, and how often a student chose what the model did."""
    bodies = [event.body for event in answers]
    same = [float(body["chosen"] == body["model_chosen"]) for body in bodies]
    return {
        "answered": len(bodies),
        "right": sum(body["chosen"] == body["answer"] for body in bodies),
        "model_right": sum(body["model_chosen"] == body["answer"] for body in bodies),
        "agreement": estimate(same, kind="proportion")._asdict() if same else None,
    }


def _wins(given: Sequence[Vote]) -> dict[str, Any]:
    scores: dict[str, Counter[str]] = defaultdict(Counter)
    for vote in given:
        for side, model in vote.models.items():
            outcome = "tie" if vote.overall == "AB" else "win" if vote.overall == side else "loss"
            scores[model][outcome] += 1
    return {
        model: win_rate(score["win"], score["tie"], score.total())._asdict()
        for model, score in sorted(scores.items())
    }


def _winner(vote: Vote) -> str | None:
    return None if vote.overall == "AB" else vote.models[vote.overall]


def _pairs(given: Sequence[Vote]) -> list[dict[str, Any]]:
    scores: dict[tuple[str, ...], _Score] = defaultdict(_Score)
    for vote in given:
        pair = tuple(sorted(vote.models.values()))
        scores[pair].count(_winner(vote), pair[0])
    return [
        {"a": a, "b": b, "a_wins": score.a_wins, "b_wins": score.b_wins, "ties": score.ties}
        for (a, b), score in sorted(scores.items())
    ]


def _closest(given: Sequence[Vote]) -> list[dict[str, Any]]:
    """Questions of which two models answer about equally well, as far as their votes can tell.

    Ordered by how far from one half the share of wins may still lie: an even split of many votes
    comes before one of few, and a single vote comes late.
    """
    scores: dict[tuple[str, str, str], _Score] = defaultdict(_Score)
    for vote in given:
        a, b = sorted(vote.models.values())
        scores[vote.question, a, b].count(_winner(vote), a)
    ordered = sorted(scores.items(), key=lambda item: (item[1].unevenness, -item[1].n, item[0]))
    return [
        {
            "question": question,
            "a": a,
            "b": b,
            "votes": {a: score.a_wins, b: score.b_wins},
            "ties": score.ties,
            "n": score.n,
        }
        for (question, a, b), score in ordered[:CLOSEST]
    ]
