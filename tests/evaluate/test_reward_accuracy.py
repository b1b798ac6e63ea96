from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from tests.evaluate.conftest import Letters
from zephyr.errors import ZephyrError
from zephyr.evaluate.reward_accuracy import NO_REFERENCE, REWARD_METRICS
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.model.example import Example
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Message, Pair

USER = (Message("user", "Q"),)
PAIRS = [
    Pair("one", USER, "aaaa", "bb", aspect="truth"),
    Pair("one", USER, "cc", "dddd", aspect="manner"),
    Pair("two", USER, "ee", "ff", aspect="truth"),
]


def ask(model: Any, pairs: list[Pair] = PAIRS, reference: EvalResult | None = None) -> EvalResult:
    items = None if reference is None else reference.items
    settings = TaskSpec(name="preferences")
    return run_task(settings, pairs, model, split_label="test", reference_items=items, seed=0)


def values(result: EvalResult) -> dict[str, float]:
    return {m["name"]: m["value"] for m in result.scores["metrics"]}


def test_rewards_by_hand(fake: Any) -> None:
    """The reference gives -1 a token (sums -5 and -3; -3, -5; -3, -3), the model -1 to what holds
    an a, -2 to b, c and d, and -3 to e and f (-5, -6; -6, -10; -9, -9).

    Margins: (-5 + 5) - (-6 + 3) = 3; (-6 + 3) - (-10 + 5) = 2; (-9 + 3) - (-9 + 3) = 0. By the
    token: rewards 0 and -1; -1 and -1; -2 and -2; the model alone -1 and -2; -2 and -2; -3 and -3.
    """

    def likes(prompt: str, answer: str) -> float:
        return {"a": -1, "b": -2, "c": -2, "d": -2}.get(answer[0], -3)

    reference = ask(fake(lambda prompt, answer: -1))
    got = ask(fake(likes), reference=reference)
    assert [i["scores"]["reward_margin"] for i in got.items] == [3, 2, 0]
    assert [i["detail"]["logprobs"] for i in got.items] == [[-5, -6], [-6, -10], [-9, -9]]
    assert [i["detail"]["reference_logprobs"] for i in got.items] == [[-5, -3], [-3, -5], [-3, -3]]
    assert [i["detail"]["tokens"] for i in got.items] == [[5, 3], [3, 5], [3, 3]]
    assert values(got) == pytest.approx(
        {
            "reward_accuracy": 2.5 / 3,
            "reward_accuracy_strict": 2 / 3,
            "reward_accuracy_per_token": 2 / 3,
            "reward_margin": 5 / 3,
            "policy_accuracy": 2.5 / 3,
            "policy_accuracy_per_token": 2 / 3,
            "longer_accuracy": 1.5 / 3,
        }
    )
    groups = got.scores["groups"]
    assert list(groups) == ["manner", "truth", "source: one", "source: two"]
    assert groups["truth"]["reward_accuracy"]["value"] == 0.75
    assert groups["source: two"]["reward_accuracy"]["value"] == 0.5


def test_a_model_against_itself_is_a_tie(fake: Any) -> None:
    model = fake(lambda prompt, answer: -0.1 * len(answer))
    got = values(ask(model, reference=ask(model)))
    assert (got["reward_accuracy"], got["reward_accuracy_strict"], got["reward_margin"]) == (
        0.5,
        0,
        0,
    )


def test_answers_of_the_same_tokens_are_a_tie(fake: Any) -> None:
    """A template that knows neither sign, and a model whose every answer is off by a rounding."""

    class Unknowing(Letters):
        def make_pair_example(self, pair: Pair) -> Example:
            return super().make_pair_example(replace(pair, chosen="?", rejected="?"))

    rounding = count()
    model = fake(lambda prompt, answer: -1 - 1e-6 * next(rounding))
    model.template = Unknowing()
    pairs = [Pair("one", USER, "→", "∧")]
    got = ask(model, pairs, ask(model, pairs))
    assert got.scores["counts"] == {"both answers of the same tokens": 1}
    assert got.items[0]["scores"] == {
        "reward_accuracy": 0.5,
        "reward_accuracy_strict": 0,
        "reward_accuracy_per_token": 0.5,
        "reward_margin": 0,
        "policy_accuracy": 0.5,
        "policy_accuracy_per_token": 0.5,
        "longer_accuracy": 0.5,
    }


def test_length_can_decide_by_sums_and_not_by_the_token(fake: Any) -> None:
    """The model gives -1.5 a token where the reference gave -1: the longer answer loses more."""
    reference = ask(fake(lambda prompt, answer: -1))
    got = ask(fake(lambda prompt, answer: -1.5), reference=reference)
    for item in got.items:
        scores, (chosen, rejected) = item["scores"], item["detail"]["tokens"]
        assert scores["reward_margin"] == -0.5 * (chosen - rejected)
        assert scores["reward_accuracy_per_token"] == scores["policy_accuracy_per_token"] == 0.5
    assert [i["scores"]["reward_accuracy"] for i in got.items] == [0, 1, 0.5]


def test_a_base_model_has_no_reference_and_says_so(fake: Any) -> None:
    scores = ask(fake()).scores
    rows = {m["name"]: m for m in scores["metrics"]}
    for name in REWARD_METRICS:
        assert rows[name]["empty"] == NO_REFERENCE
        assert (rows[name]["value"], rows[name]["n"]) == (None, 0)
    assert rows["longer_accuracy"]["value"] == 0.5
    assert rows["policy_accuracy"]["empty"] is None
    assert scores["empty"] == NO_REFERENCE
    assert scores["groups"]["truth"]["reward_accuracy"]["value"] is None


def test_pairs_of_one_prompt_keep_references_of_their_own(fake: Any) -> None:
    """A reference kept by prompt would give all pairs the log-probabilities of the last."""
    reference = ask(fake(lambda prompt, answer: -float(ord(answer[0]))))
    got = ask(fake(), reference=reference)
    for item, before in zip(got.items, reference.items, strict=True):
        assert item["detail"]["reference_logprobs"] == before["detail"]["logprobs"]
    assert len({tuple(i["detail"]["reference_logprobs"]) for i in got.items}) == 3


def test_what_does_not_fit_is_left_out_and_counted(fake: Any) -> None:
    """The prompt is "user: Q" and a new line: 8 tokens; 4 + 1 tokens of answer, the last unread."""
    got = ask(fake(context_length=11))
    assert [i["source"] for i in got.items] == ["two"]
    assert got.scores["counts"] == {"longer than the context": 2}
    assert len(ask(fake(context_length=12)).items) == 3
    with pytest.raises(ZephyrError, match="nothing left to ask"):
        ask(fake(context_length=9))


def test_the_end_token_counts(fake: Any) -> None:
    model = fake()
    ask(model)
    assert all(c.ids[-1] == 0 for fork in model.asked for c in fork.completions)
