from typing import Any

import pytest

from zephyr import recipe
from zephyr.errors import ZephyrError
from zephyr.evaluate.scoring import Result, run_task
from zephyr.records import Chat, Message


def chat(question: str, answer: str) -> Chat:
    return Chat("source", (Message("user", question), Message("assistant", answer)))


def ask(model: Any, *records: Chat, most: int | None = None) -> Result:
    settings = recipe.Task(name="gsm8k", max_new_tokens=most)
    return run_task(settings, records, model, split_label="test", seed=0)


def scores(result: Result) -> list[dict[str, float]]:
    return [i["scores"] for i in result.items]


def test_the_prompt_is_all_but_the_last_answer(fake: Any) -> None:
    earlier = Message("user", "a"), Message("assistant", "b")
    record = Chat("source", (*earlier, *chat("c", "d\n#### 1").messages))
    got = ask(fake(writes=lambda prompt: prompt), record)
    assert got.items[0]["detail"]["output"] == "user: a\nassistant: b\nuser: c\n"
    assert got.items[0]["detail"]["reference"] == "d\n#### 1"


def test_strict_wants_the_mark_and_flexible_any_number(fake: Any) -> None:
    answers = {
        "a": "It is 4.\n#### 1,204.00",
        "b": "It is $1204.",
        "c": "#### 1204, not 7",
        "d": "",
    }
    got = scores(
        ask(
            fake(writes=lambda prompt: answers[prompt[6]]),
            *(chat(name, "Long sum.\n#### 1204") for name in answers),
        )
    )
    assert [s["exact_match"] for s in got] == [0, 0, 1, 0]
    assert [s["exact_match_flexible"] for s in got] == [0, 1, 0, 0]
    assert [s["number_match"] for s in got] == [1, 1, 1, 0]


def test_an_answer_cut_off_has_not_stopped(fake: Any) -> None:
    got = ask(fake(writes=lambda prompt: "abcdef"), chat("q", "#### 1"), most=4)
    [item] = got.items
    assert item["detail"]["output"] == "abcd"
    assert (item["scores"]["length"], item["scores"]["stopped"]) == (4, 0)
    assert item["detail"]["ended"] == "length"
    assert "greedy, at most 4 tokens" in got.scores["metrics"][0]["protocol"]
    [item] = ask(fake(writes=lambda prompt: "abcd"), chat("q", "#### 1"), most=4).items
    assert (item["scores"]["stopped"], item["detail"]["ended"]) == (1, "end token")


def test_at_most_256_tokens_unless_set(fake: Any) -> None:
    got = ask(fake(writes=lambda prompt: "a" * 300), chat("q", "#### 1"))
    assert scores(got)[0]["length"] == 256


def test_a_prompt_without_room_is_an_empty_answer_and_counted(fake: Any) -> None:
    """ "user: " and a new line are 7 tokens: a question of 4 fills the context of 11."""
    model = fake(writes=lambda prompt: "#### 1", context=11)
    got = ask(model, chat("abc", "#### 1"), chat("abcd", "#### 1"))
    assert [s["exact_match"] for s in scores(got)] == [1, 0]
    assert got.items[1]["detail"]["ended"] == "no room"
    assert got.scores["counts"] == {"no room for an answer": 1}


def test_a_reference_without_a_number_has_no_exact_match(fake: Any) -> None:
    got = ask(fake(), chat("a", "No number."), chat("b", "It is 5."), chat("c", "None."))
    rows = {m["name"]: m for m in got.scores["metrics"]}
    assert (rows["exact_match"]["n"], rows["bleu4"]["n"]) == (1, 3)
    assert got.scores["counts"] == {"reference without a number": 2}
    got = ask(fake(), chat("a", "No number."))
    rows = {m["name"]: m for m in got.scores["metrics"]}
    assert rows["exact_match"]["empty"] == "no reference answer holds a number"
    assert rows["exact_match"]["value"] is None


def test_a_conversation_must_end_with_question_and_answer(fake: Any) -> None:
    with pytest.raises(ZephyrError, match="ends with a question and its answer"):
        ask(fake(), Chat("source", (Message("assistant", "Hello."),)))
