"""Class statistics for the teacher: counts, win rates with intervals, closest questions.

Proportions have exact 95 % intervals (`stats.proportions.clopper_pearson_interval`). A tie is half
a win of each side; the interval goes from the lower bound for the wins rounded down to the upper
bound for the wins rounded up, which is conservative. Votes are assumed to be independent, which
those of one student are not. SQLite counts, so that memory does not grow with the log.
"""

import heapq
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from zephyr.stats.intervals import Estimate
from zephyr.stats.proportions import clopper_pearson_interval
from zephyr.tutor.events import EventLog
from zephyr.tutor.preferences import question_text

MAX_CLOSEST = 20
"""How many of the most evenly split questions are shown."""
MIN_CLOSEST_VOTES = 4
"""The votes from which on a question may be called evenly split."""


_COUNTS = {
    "since": "SELECT time FROM events ORDER BY id LIMIT 1",
    "sessions": "SELECT COUNT(*) FROM events WHERE kind = 'session'",
    "questions": """
        SELECT model, COUNT(*) FROM events
        WHERE kind IN ('question', 'ladder') AND model IS NOT NULL GROUP BY model""",
    "comparisons": """
        SELECT json_extract(body, '$.models.A'), json_extract(body, '$.models.B'), COUNT(*)
        FROM events WHERE kind = 'comparison' GROUP BY 1, 2""",
    "ratings": """
        SELECT model, SUM(rating = 'up'), SUM(rating = 'down') FROM (
            SELECT model, json_extract(body, '$.rating') AS rating, MAX(id) FROM events
            WHERE kind = 'rating' GROUP BY session, model, COALESCE(key, id)
        ) GROUP BY model ORDER BY model""",
    "quiz": """
        SELECT COUNT(*), TOTAL(chosen = answer), TOTAL(model_chosen = answer),
            TOTAL(chosen = model_chosen) FROM (
            SELECT json_extract(body, '$.chosen') AS chosen,
                json_extract(body, '$.model_chosen') AS model_chosen,
                json_extract(body, '$.answer') AS answer FROM events WHERE kind = 'quiz'
        )""",
    "pairs": """
        SELECT messages, a, b, SUM(winner IS a), SUM(winner IS b), SUM(winner IS NULL) FROM (
            SELECT messages, MIN(left, right) AS a, MAX(left, right) AS b,
                CASE overall WHEN 'A' THEN left WHEN 'B' THEN right END AS winner FROM (
                SELECT json_extract(comparison.body, '$.messages') AS messages,
                    json_extract(comparison.body, '$.models.A') AS left,
                    json_extract(comparison.body, '$.models.B') AS right,
                    json_extract(vote.body, '$.overall') AS overall
                FROM events AS vote JOIN events AS comparison
                ON comparison.key = vote.key AND comparison.kind = 'comparison'
                WHERE vote.kind = 'vote'
                AND trim(json_extract(comparison.body, '$.answers.A'), char(9, 10, 13, 32)) IS NOT
                    trim(json_extract(comparison.body, '$.answers.B'), char(9, 10, 13, 32))
            )
        ) GROUP BY messages, a, b""",
}
"""The queries. Of the ratings of one answer by one session (in SQLite, the columns beside MAX are
those of its row) the last counts; those without a key are older, and count each."""


class _PairScore(NamedTuple):
    """Pairwise results of two models (names in order) on a question: wins of each, and ties."""

    messages: str
    a: str
    b: str
    a_wins: int
    b_wins: int
    ties: int

    @property
    def n(self) -> int:
        return self.a_wins + self.b_wins + self.ties

    @property
    def question(self) -> str:
        return question_text(json.loads(self.messages))

    @property
    def uncertainty(self) -> tuple[float, int]:
        """Sorts the most evenly split first, and of these the one with most votes."""
        return _max_deviation(self.a_wins, self.ties, self.n), -self.n


@lru_cache(maxsize=1 << 14)
def _max_deviation(wins: int, ties: int, n: int) -> float:
    """How far from one half the win rate may lie, by its confidence interval."""
    rate = win_rate(wins, ties, n)
    return max(0.5 - rate.low, rate.high - 0.5)


def win_rate(wins: int, ties: int, n: int) -> Estimate:
    """Win rate (wins + ties / 2) / n over `n` votes, with a 95 % confidence interval."""
    points = wins + ties / 2
    low, _ = clopper_pearson_interval(math.floor(points), n)
    _, high = clopper_pearson_interval(math.ceil(points), n)
    return Estimate(points / n, low, high, n)


def summarize(events: EventLog, course: str) -> dict[str, Any]:
    """The statistics of a class, as JSON-ready values, without session ids."""
    with events.open_reader() as log:

        def rows(name: str) -> sqlite3.Cursor:
            return log.execute(_COUNTS[name])

        first = rows("since").fetchone()
        pair_scores: Counter[tuple[str, str, str]] = Counter()

        def count(score: _PairScore) -> _PairScore:
            for outcome in ("a_wins", "b_wins", "ties"):
                pair_scores[score.a, score.b, outcome] += getattr(score, outcome)
            return score

        scores = (count(_PairScore(*row)) for row in rows("pairs"))
        closest = heapq.nsmallest(
            MAX_CLOSEST,
            (score for score in scores if score.n >= MIN_CLOSEST_VOTES),
            key=lambda score: (*score.uncertainty, score.question),
        )
        pairs = [
            {"a": a, "b": b}
            | {outcome: pair_scores[a, b, outcome] for outcome in ("a_wins", "b_wins", "ties")}
            for a, b in sorted({(a, b) for a, b, _ in pair_scores})
        ]
        return {
            "course": course,
            "since": first[0] if first else None,
            "questions": _questions(rows("questions").fetchall(), rows("comparisons").fetchall()),
            "sessions": rows("sessions").fetchone()[0],
            "votes": pair_scores.total(),
            "ratings": {
                str(model): {"up": up, "down": down} for model, up, down in rows("ratings")
            },
            "quiz": _quiz(*map(int, rows("quiz").fetchone())),
            "wins": _wins(pairs),
            "pairs": pairs,
            "closest": [_closest_row(score) for score in closest],
        }


def _questions(
    asked: Sequence[tuple[str, int]], compared: Sequence[tuple[str, str, int]]
) -> dict[str, int]:
    """Number of answers requested of each model, comparisons and ladder steps included."""
    counts: Counter[str] = Counter(dict(asked))
    for *models, n in compared:
        counts.update(dict.fromkeys(models, n))
    return dict(sorted(counts.items()))


def _quiz(answered: int, right: int, model_right: int, agreed: int) -> dict[str, Any]:
    """Quiz accuracy of students and models, and how often a student chose what the model did."""
    agreement = None
    if answered:
        agreement = Estimate(
            agreed / answered, *clopper_pearson_interval(agreed, answered), answered
        )
    return {
        "answered": answered,
        "right": right,
        "model_right": model_right,
        "agreement": agreement._asdict() if agreement else None,
    }


def _wins(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Win rate of each model over all its votes."""
    wins: Counter[str] = Counter()
    ties: Counter[str] = Counter()
    votes: Counter[str] = Counter()
    for pair in pairs:
        for side in "ab":
            model = pair[side]
            wins[model] += pair[f"{side}_wins"]
            ties[model] += pair["ties"]
            votes[model] += pair["a_wins"] + pair["b_wins"] + pair["ties"]
    return {
        model: win_rate(wins[model], ties[model], votes[model])._asdict() for model in sorted(votes)
    }


def _closest_row(score: _PairScore) -> dict[str, Any]:
    """A question on which two models are evenly matched, as far as votes show."""
    return {
        "question": score.question,
        "a": score.a,
        "b": score.b,
        "votes": {score.a: score.a_wins, score.b: score.b_wins},
        "ties": score.ties,
        "n": score.n,
    }
