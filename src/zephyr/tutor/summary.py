"""Class statistics for the teacher: counts, win rates with intervals, closest questions.

Proportions have exact 95 % intervals (`stats.proportions.clopper_pearson_interval`). A tie is half
a win of each side; the interval goes from the lower bound for the wins rounded down to the upper
bound for the wins rounded up, which is conservative. Votes are assumed to be independent, which
those of one student are not.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr.stats.intervals import Estimate, estimate
from zephyr.stats.proportions import clopper_pearson_interval
from zephyr.tutor.events import Event
from zephyr.tutor.preferences import Vote, list_votes

MAX_CLOSEST = 20
"""How many of the most evenly split questions are shown."""


@dataclass
class _PairScore:
    """Pairwise results of two models (names in order): wins of each, and ties."""

    a_wins: int = 0
    b_wins: int = 0
    ties: int = 0

    @property
    def n(self) -> int:
        return self.a_wins + self.b_wins + self.ties

    def count(self, winner: str | None, a: str) -> None:
        """Counts a vote for a model, or a tie."""
        if winner is None:
            self.ties += 1
        elif winner == a:
            self.a_wins += 1
        else:
            self.b_wins += 1

    @property
    def max_deviation(self) -> float:
        """How far from one half the win rate may lie, by its confidence interval."""
        rate = win_rate(self.a_wins, self.ties, self.n)
        return max(0.5 - rate.low, rate.high - 0.5)


def win_rate(wins: int, ties: int, n: int) -> Estimate:
    """Win rate (wins + ties / 2) / n over `n` votes, with a 95 % confidence interval."""
    points = wins + ties / 2
    low, _ = clopper_pearson_interval(math.floor(points), n)
    _, high = clopper_pearson_interval(math.ceil(points), n)
    return Estimate(points / n, low, high, n)


def summarize(events: Iterable[Event], course: str) -> dict[str, Any]:
    """The statistics of a class, as JSON-ready values, without session ids."""
    events = list(events)
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.kind].append(event)
    all_votes = list(list_votes(events))
    return {
        "course": course,
        "since": events[0].time if events else None,
        "questions": _questions(events),
        "sessions": len(by_kind["session"]),
        "votes": len(all_votes),
        "ratings": _ratings(by_kind["rating"]),
        "quiz": _quiz(by_kind["quiz"]),
        "wins": _wins(all_votes),
        "pairs": _pairs(all_votes),
        "closest": _closest(all_votes),
    }


def _questions(events: Sequence[Event]) -> dict[str, int]:
    """Number of answers requested of each model, comparisons and ladder steps included."""
    counts: Counter[str] = Counter()
    for event in events:
        if event.kind in ("question", "ladder") and event.model is not None:
            counts[event.model] += 1
        elif event.kind == "comparison":
            counts.update(event.body["models"].values())
    return dict(sorted(counts.items()))


def _ratings(ratings: Sequence[Event]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for event in ratings:
        row = counts.setdefault(str(event.model), {"up": 0, "down": 0})
        row[event.body["rating"]] += 1
    return dict(sorted(counts.items()))


def _quiz(answers: Sequence[Event]) -> dict[str, Any]:
    """Quiz accuracy of students and models, and how often a student chose what the model did."""
    bodies = [event.body for event in answers]
    agreements = [float(body["chosen"] == body["model_chosen"]) for body in bodies]
    return {
        "answered": len(bodies),
        "right": sum(body["chosen"] == body["answer"] for body in bodies),
        "model_right": sum(body["model_chosen"] == body["answer"] for body in bodies),
        "agreement": estimate(agreements, kind="proportion")._asdict() if agreements else None,
    }


def _wins(all_votes: Sequence[Vote]) -> dict[str, Any]:
    """Win rate of each model over all its votes."""
    scores: dict[str, Counter[str]] = defaultdict(Counter)
    for vote in all_votes:
        for side, model in vote.models.items():
            outcome = "tie" if vote.overall == "AB" else "win" if vote.overall == side else "loss"
            scores[model][outcome] += 1
    return {
        model: win_rate(score["win"], score["tie"], score.total())._asdict()
        for model, score in sorted(scores.items())
    }


def _winner(vote: Vote) -> str | None:
    return None if vote.overall == "AB" else vote.models[vote.overall]


def _pairs(all_votes: Sequence[Vote]) -> list[dict[str, Any]]:
    scores: dict[tuple[str, ...], _PairScore] = defaultdict(_PairScore)
    for vote in all_votes:
        pair = tuple(sorted(vote.models.values()))
        scores[pair].count(_winner(vote), pair[0])
    return [
        {"a": a, "b": b, "a_wins": score.a_wins, "b_wins": score.b_wins, "ties": score.ties}
        for (a, b), score in sorted(scores.items())
    ]


def _closest(all_votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """The questions on which two models are most evenly matched, as far as votes show.

    Ordered by how far from one half the win rate may be, by its interval: an even split of many
    votes comes before one of few votes.
    """
    scores: dict[tuple[str, str, str], _PairScore] = defaultdict(_PairScore)
    for vote in all_votes:
        a, b = sorted(vote.models.values())
        scores[vote.question, a, b].count(_winner(vote), a)
    ordered = sorted(scores.items(), key=lambda item: (item[1].max_deviation, -item[1].n, item[0]))
    return [
        {
            "question": question,
            "a": a,
            "b": b,
            "votes": {a: score.a_wins, b: score.b_wins},
            "ties": score.ties,
            "n": score.n,
        }
        for (question, a, b), score in ordered[:MAX_CLOSEST]
    ]
