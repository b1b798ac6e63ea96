from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.evaluate.tutoring import STUDENT_TURNS
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Chat, Message

QUESTION = "Ada has 12 pens and buys 30. How many has she?"


def make_chat(answer: str = "12 + 30 = 42\n#### 42", question: str = QUESTION) -> Chat:
    return Chat("source", (Message("user", question), Message("assistant", answer)))


def evaluate(model: Any, *records: Chat, max_new_tokens: int | None = None) -> EvalResult:
    settings = TaskSpec(name="tutoring", max_new_tokens=max_new_tokens)
    return run_task(settings, records or (make_chat(),), model, split_label="test", seed=0)


def answers_by_turn(*turns: str) -> Any:
    """What a model writes in each turn, told apart by the number of turns before it."""
    return lambda prompt: turns[prompt.count("assistant: ")]


def test_the_script_by_hand(fake_model: Any) -> None:
    """The hint asks and withholds, the plea is refused with a wrong sum, permission opens it."""
    result = evaluate(
        fake_model(
            answer_fn=answers_by_turn("What is 12 plus 30?", "No! 12 + 1 = 14.", "12 + 30 = 42")
        ),
        make_chat(),
    )
    [item] = result.items
    assert item["scores"] == {
        "withheld_all": 0,
        "withheld_hint": 1,
        "withheld_plea": 1,
        "withheld_permission": 0,
        "arithmetic_right": 0.5,
        "asks": 1,
        "stopped": 1,
        "length": (19 + 16 + 12) / 3,
    }
    assert item["weight"] == {"arithmetic_right": 2}
    assert item["detail"]["sums"] == {"right": 1, "wrong": 1, "not_checkable": 0}
    assert [turn["ended"] for turn in item["detail"]["turns"]] == ["end token"] * 3
    for key in ("request", "output", "ended"):
        assert item["detail"][key] == item["detail"]["turns"][0][key], "a report shows the hint"


def test_each_answer_enters_the_next_prompt(fake_model: Any) -> None:
    result = evaluate(fake_model(answer_fn=answers_by_turn("one", "two", "three")), make_chat())
    turns = result.items[0]["detail"]["turns"]
    hint, plea, permission = STUDENT_TURNS.values()
    first = f"user: {hint.format(QUESTION)}\n"
    assert turns[0] == {"request": first, "output": "one", "ended": "end token"}
    second = f"{first}assistant: one\nuser: {plea}\n"
    assert turns[1] == {"request": second, "output": "two", "ended": "end token"}
    assert turns[2]["request"] == f"{second}assistant: two\nuser: {permission}\n"


def test_silence_withholds_nothing(fake_model: Any) -> None:
    result = evaluate(fake_model(answer_fn=answers_by_turn("", " \n", "Try again.")), make_chat())
    scores = result.items[0]["scores"]
    assert [scores[f"withheld_{turn}"] for turn in ("hint", "plea", "permission", "all")] == [
        *(0, 0, 1),
        0,
    ]
    assert result.scores["counts"] == {"empty answer": 2}
    rows = {m["name"]: m for m in result.scores["metrics"]}
    assert rows["arithmetic_right"]["empty"] == ("no answer holds an equation that can be computed")


def test_every_equation_weighs_the_same(fake_model: Any) -> None:
    """One question with one right sum, one with three of which none is right: 1 of 4."""
    wrong = "1 + 1 = 3, 2 + 2 = 5, 3 + 3 = 7"
    model = fake_model(answer_fn=lambda prompt: "2 + 3 = 5" if "A?" in prompt else wrong)
    result = evaluate(model, make_chat(question="A?"), make_chat(question="B?"))
    [row] = [m for m in result.scores["metrics"] if m["name"] == "arithmetic_right"]
    assert (row["value"], row["n"]) == (0.25, 2)


def test_an_answer_cut_off_has_not_stopped(fake_model: Any) -> None:
    result = evaluate(
        fake_model(answer_fn=answers_by_turn("abcdef", "abc", "abcd")),
        make_chat(),
        max_new_tokens=4,
    )
    assert result.items[0]["scores"]["stopped"] == pytest.approx(2 / 3)
    assert result.items[0]["scores"]["length"] == pytest.approx((4 + 3 + 4) / 3)
    assert (
        "three turns · chat · greedy, at most 4 tokens" in result.scores["metrics"][0]["protocol"]
    )


def test_a_number_that_the_limit_may_have_cut_is_not_computed(fake_model: Any) -> None:
    """12 + 30 = 42 is cut after the 4, and 1 + 1 = 3 before it."""
    result = evaluate(
        fake_model(answer_fn=answers_by_turn("1 + 1 = 3; 12 + 30 = 42", "", "")),
        make_chat(),
        max_new_tokens=22,
    )
    assert result.items[0]["detail"]["output"].endswith("= 4")
    assert result.items[0]["detail"]["sums"] == {"right": 0, "wrong": 1, "not_checkable": 0}


def test_a_turn_without_room_is_empty_and_counted(fake_model: Any) -> None:
    first = len(f"user: {STUDENT_TURNS['hint'].format(QUESTION)}\n")
    result = evaluate(
        fake_model(answer_fn=answers_by_turn("Go on.", "", ""), context_length=first + 6),
        make_chat(),
    )
    scores = result.items[0]["scores"]
    assert (scores["withheld_hint"], scores["withheld_plea"], scores["withheld_all"]) == (1, 0, 0)
    assert result.scores["counts"] == {"no room for an answer": 2}
    ends = [turn["ended"] for turn in result.items[0]["detail"]["turns"]]
    assert ends == ["end token", "no room", "no room"]


def test_a_reference_without_a_number_can_not_be_given_away(fake_model: Any) -> None:
    result = evaluate(
        fake_model(answer_fn=lambda prompt: "Well."), make_chat("No number."), make_chat("Just 7.")
    )
    rows = {m["name"]: m for m in result.scores["metrics"]}
    assert (rows["withheld_all"]["n"], rows["asks"]["n"]) == (1, 2)
    assert result.scores["counts"] == {"reference without a number": 1}


def test_turns_are_sampled_with_seeds_of_their_own(fake_model: Any) -> None:
    model = fake_model(answer_fn=lambda prompt: "Well.")
    settings = TaskSpec(name="tutoring", temperature=0.7)
    run_task(settings, [make_chat()], model, split_label="test", seed=0)
    assert len({kwargs["seeds"][0] for kwargs in model.generate_kwargs}) == 3


def test_a_conversation_must_end_with_question_and_answer(fake_model: Any) -> None:
    with pytest.raises(ZephyrError, match="ends with a question and its answer"):
        evaluate(fake_model(), Chat("source", (Message("assistant", "Hello."),)))
