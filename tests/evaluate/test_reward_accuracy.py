from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from tests.evaluate.conftest import CharTokenizer
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


def evaluate(
    model: Any, pairs: list[Pair] = PAIRS, reference: EvalResult | None = None
) -> EvalResult:
    items = None if reference is None else reference.items
    settings = TaskSpec(name="preferences")
    return run_task(settings, pairs, model, split_label="test", reference_items=items, seed=0)


def metric_values(result: EvalResult) -> dict[str, float]:
    return {m["name"]: m["value"] for m in result.scores["metrics"]}


def test_rewards_by_hand(fake_model: Any) -> None:
    """The reference gives -1 a token (sums -5 and -3; -3, -5; -3, -3), the model -1 to what holds
    an a, -2 to b, c and d, and -3 to e and f (-5, -6; -6, -10; -9, -9).

    Margins: (-5 + 5) - (-6 + 3) = 3; (-6 + 3) - (-10 + 5) = 2; (-9 + 3) - (-9 + 3) = 0. By the
    token: rewards 0 and -1; -1 and -1; -2 and -2; the model alone -1 and -2; -2 and -2; -3 and -3.
    """

    def logprob_fn(prompt: str, answer: str) -> float:
        return {"a": -1, "b": -2, "c": -2, "d": -2}.get(answer[0], -3)

    reference = evaluate(fake_model(lambda prompt, answer: -1))
    result = evaluate(fake_model(logprob_fn), reference=reference)
    assert [i["scores"]["reward_margin"] for i in result.items] == [3, 2, 0]
    assert [i["detail"]["logprobs"] for i in result.items] == [[-5, -6], [-6, -10], [-9, -9]]
    assert [i["detail"]["reference_logprobs"] for i in result.items] == [
        [-5, -3],
        [-3, -5],
        [-3, -3],
    ]
    assert [i["detail"]["tokens"] for i in result.items] == [[5, 3], [3, 5], [3, 3]]
    assert metric_values(result) == pytest.approx(
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
    groups = result.scores["groups"]
    assert list(groups) == ["manner", "truth", "source: one", "source: two"]
    assert groups["truth"]["reward_accuracy"]["value"] == 0.75
    assert groups["source: two"]["reward_accuracy"]["value"] == 0.5


def test_a_model_against_itself_is_a_tie(fake_model: Any) -> None:
    model = fake_model(lambda prompt, answer: -0.1 * len(answer))
    result = metric_values(evaluate(model, reference=evaluate(model)))
    assert (
        result["reward_accuracy"],
        result["reward_accuracy_strict"],
        result["reward_margin"],
    ) == (
        0.5,
        0,
        0,
    )


def test_answers_of_the_same_tokens_are_a_tie(fake_model: Any) -> None:
    """A template that knows neither sign, and a model whose every answer is off by a rounding."""

    class ConstantAnswerTemplate(CharTokenizer):
        def make_pair_example(self, pair: Pair) -> Example:
            return super().make_pair_example(replace(pair, chosen="?", rejected="?"))

    rounding = count()
    model = fake_model(lambda prompt, answer: -1 - 1e-6 * next(rounding))
    model.template = ConstantAnswerTemplate()
    pairs = [Pair("one", USER, "→", "∧")]
    result = evaluate(model, pairs, evaluate(model, pairs))
    assert result.scores["counts"] == {"both answers of the same tokens": 1}
    assert result.items[0]["scores"] == {
        "reward_accuracy": 0.5,
        "reward_accuracy_strict": 0,
        "reward_accuracy_per_token": 0.5,
        "reward_margin": 0,
        "policy_accuracy": 0.5,
        "policy_accuracy_per_token": 0.5,
        "longer_accuracy": 0.5,
    }


def test_length_can_decide_by_sums_and_not_by_the_token(fake_model: Any) -> None:
    """The model gives -1.5 a token where the reference gave -1: the longer answer loses more."""
    reference = evaluate(fake_model(lambda prompt, answer: -1))
    result = evaluate(fake_model(lambda prompt, answer: -1.5), reference=reference)
    for item in result.items:
        scores, (chosen, rejected) = item["scores"], item["detail"]["tokens"]
        assert scores["reward_margin"] == -0.5 * (chosen - rejected)
        assert scores["reward_accuracy_per_token"] == scores["policy_accuracy_per_token"] == 0.5
    assert [i["scores"]["reward_accuracy"] for i in result.items] == [0, 1, 0.5]


def test_a_base_model_has_no_reference_and_says_so(fake_model: Any) -> None:
    scores = evaluate(fake_model()).scores
    rows = {m["name"]: m for m in scores["metrics"]}
    for name in REWARD_METRICS:
        assert rows[name]["empty"] == NO_REFERENCE
        assert (rows[name]["value"], rows[name]["n"]) == (None, 0)
    assert rows["longer_accuracy"]["value"] == 0.5
    assert rows["policy_accuracy"]["empty"] is None
    assert scores["empty"] == NO_REFERENCE
    assert scores["groups"]["truth"]["reward_accuracy"]["value"] is None


def test_pairs_of_one_prompt_keep_references_of_their_own(fake_model: Any) -> None:
    """A reference kept by prompt would give all pairs the log-probabilities of the last."""
    reference = evaluate(fake_model(lambda prompt, answer: -float(ord(answer[0]))))
    result = evaluate(fake_model(), reference=reference)
    for item, before in zip(result.items, reference.items, strict=True):
        assert item["detail"]["reference_logprobs"] == before["detail"]["logprobs"]
    assert len({tuple(i["detail"]["reference_logprobs"]) for i in result.items}) == 3


def test_what_does_not_fit_is_left_out_and_counted(fake_model: Any) -> None:
    """The prompt is "user: Q" and a new line: 8 tokens; 4 + 1 tokens of answer, the last unread."""
    result = evaluate(fake_model(context_length=11))
    assert [i["source"] for i in result.items] == ["two"]
    assert result.scores["counts"] == {"longer than the context": 2}
    assert len(evaluate(fake_model(context_length=12)).items) == 3
    with pytest.raises(ZephyrError, match="nothing left to ask"):
        evaluate(fake_model(context_length=9))


def test_the_end_token_counts(fake_model: Any) -> None:
    model = fake_model()
    evaluate(model)
    assert all(c.ids[-1] == 0 for example in model.scored_examples for c in example.completions)
