"""Results in plain words: verdicts as sentences, rewards explained, and models of one letter."""

import math
from collections.abc import Callable

import pytest

from tests.report.conftest import RecipeRuns, item_scores
from zephyr.report.plain_words import model_sentences, score_notes
from zephyr.report.results import read_results
from zephyr.stats.significance import PairedTestResult, binomial_tail, required_sample_size

MakeRuns = Callable[..., RecipeRuns]


def test_a_sentence_tells_where_a_model_is_better_worse_or_neither(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz", "essay", "text")
    for task, scores in {
        "quiz": {"M0": (0, 40), "M1": (40, 0), "M1-int8": (38, 2)},
        "essay": {"M0": (40, 0), "M1": (0, 40), "M1-int8": (0, 40)},
    }.items():
        for model, (right, wrong) in scores.items():
            runs.score(f"{model}/{task}", item_scores(right, wrong))
    runs.score("M0/text", {f"i{n}": float(n % 2 == 0) for n in range(40)})
    runs.score("M1/text", {f"i{n}": float(n % 2 == 0 or n < 8) for n in range(40)})
    # four of forty are won: (z(1 - 0.025 / 5) + z(0.8))^2 * 0.09 / 0.1^2 = 105, of five comparisons
    first, second = model_sentences(read_results(runs.store, "demo"))
    assert first == (
        "M1 against M0: better at quiz; worse at essay; cannot tell at text; about 110 items of "
        "text could."
    )
    assert second == (
        "M1-int8 against M1: cannot tell at quiz, essay; about 230 items of quiz could."
    )


def test_no_number_of_items_is_given_that_few_items_can_not_estimate() -> None:
    """Three of three won: the variance is none, and zero items could not tell."""
    assert required_sample_size(PairedTestResult(1.0, 1.0, 0.0)) is None


def test_rewards_with_several_references_are_explained(make_runs: MakeRuns) -> None:
    runs = make_runs({"name": "preferences", "data": "pairs"})
    for model, reference in (("M1", "M0"), ("M2", "M1"), ("M1-int8", "M0")):
        runs.score(
            f"{model}/preferences",
            item_scores(9, 1),
            metric="reward_accuracy",
            protocol=f"preferences@2 · compare · reward · against {reference} · n=10",
        )
    (note,) = score_notes(read_results(runs.store, "demo"))
    assert "(M0 for M1, M1-int8; M1 for M2)" in note


@pytest.mark.parametrize(
    ("picked", "right", "note"),
    [
        ([1] * 19 + [0], [0, 1, 2, 3] * 5, "M0 picks B in 19 of 20 questions"),
        ([1] * 19 + [0], [1] * 20, None),  # B is right
        ([0, 1, 2, 3] * 5, [1] * 20, None),
        ([1] * 3, [0, 2, 3], None),  # three questions say nothing
        ([None] * 5, [0] * 5, None),
    ],
)
def test_a_model_that_picks_one_letter_is_named(
    make_runs: MakeRuns, picked: list[int | None], right: list[int], note: str | None
) -> None:
    runs = make_runs({"name": "mcqa_letter", "label": "quiz"})
    items = [
        {
            "id": f"i{n}",
            "scores": {"acc": float(a == b)},
            "detail": {"chosen": a, "answer": b, "choices": ["w", "x", "y", "z"]},
        }
        for n, (a, b) in enumerate(zip(picked, right, strict=True))
    ]
    runs.finish("M0/quiz", scores={"metrics": [], "groups": {}, "counts": {}}, items=items)
    found = score_notes(read_results(runs.store, "demo"))
    assert [text.split(",")[0] for text in found] == ([f"quiz: {note}"] if note else [])


def test_the_binomial_tail_is_the_sum_of_its_probabilities() -> None:
    assert binomial_tail(9, 10, 0.5) == pytest.approx(11 / 1024)
    assert binomial_tail(0, 3, 0.2) == pytest.approx(1)
    assert binomial_tail(3, 3, 0.25) == pytest.approx(1 / 64)
    assert math.isclose(binomial_tail(1, 1, 0.0), 0.0)
