from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Chat, Message


def chat(question: str, answer: str) -> Chat:
    return Chat("source", (Message("user", question), Message("assistant", answer)))


def ask(
    model: Any, *records: Chat, most: int | None = None, seed: int = 0, **more: float
) -> EvalResult:
    settings = TaskSpec.model_validate({"name": "gsm8k", "max_new_tokens": most, **more})
    return run_task(settings, records, model, split_label="test", seed=seed)


def scores(result: EvalResult) -> list[dict[str, float]]:
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
        "e": "#### 1,204.",
    }
    got = scores(
        ask(
            fake(writes=lambda prompt: answers[prompt[6]]),
            *(chat(name, "Long sum.\n#### 1204") for name in answers),
        )
    )
    assert [s["exact_match"] for s in got] == [0, 0, 1, 0, 1]
    assert [s["exact_match_flexible"] for s in got] == [0, 1, 0, 0, 1]
    assert [s["number_match"] for s in got] == [1, 1, 1, 0, 1]


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
    model = fake(writes=lambda prompt: "#### 1", context_length=11)
    got = ask(model, chat("abc", "#### 1"), chat("abcd", "#### 1"))
    assert [s["exact_match"] for s in scores(got)] == [1, 0]
    assert got.items[1]["detail"]["ended"] == "no room"
    assert got.scores["counts"] == {"no room for an answer": 1}


def test_empty_answers_are_counted(fake: Any) -> None:
    answers = {"a": "", "b": " \n", "c": "7"}
    got = ask(fake(writes=lambda p: answers[p[6]]), *(chat(n, "#### 1") for n in answers))
    assert got.scores["counts"] == {"empty answer": 2}


def test_greedy_answers_draw_nothing(fake: Any) -> None:
    model = fake(writes=str)
    ask(model, chat("a", "#### 1"))
    [given] = model.given
    assert given["sampling"].temperature == 0


def test_each_drawn_answer_has_a_seed_of_its_own(fake: Any) -> None:
    """The seed and the content decide it, and neither the order nor what else is asked."""
    a, b, c = (chat(name, "#### 1") for name in "abc")

    def seeds(*records: Chat, seed: int = 0) -> dict[str, int]:
        model = fake(writes=str)
        got = ask(model, *records, temperature=0.95, top_p=0.7, seed=seed)
        [given] = model.given
        assert given["sampling"] == (0.95, 0.7)
        said = "temperature 0.95, top-p 0.7, at most 256 tokens"
        assert said in got.scores["metrics"][0]["protocol"]
        return {item["id"]: s for item, s in zip(got.items, given["seeds"], strict=True)}

    alone, mixed, other = seeds(a), seeds(c, b, a), seeds(a, seed=1)
    assert mixed[a.id] == alone[a.id] != other[a.id]
    assert len(set(mixed.values())) == 3
    assert all(0 <= seed < 2**63 for seed in mixed.values())


def test_a_reference_without_a_number_has_no_match(fake: Any) -> None:
    """Without a mark, the last number is what is looked for."""
    model = fake(writes=lambda prompt: "#### 5")
    got = ask(model, chat("a", "No number."), chat("b", "It is 5."), chat("c", "None."))
    rows = {m["name"]: m for m in got.scores["metrics"]}
    for name in ("exact_match", "exact_match_flexible", "number_match"):
        assert (rows[name]["n"], rows[name]["value"]) == (1, 1)
    assert rows["bleu4"]["n"] == 3
    assert got.scores["counts"] == {"reference without a number": 2}
    got = ask(model, chat("a", "No number."))
    rows = {m["name"]: m for m in got.scores["metrics"]}
    assert rows["exact_match"]["empty"] == "no reference answer holds a number"
    assert rows["exact_match"]["value"] is None


def test_a_conversation_must_end_with_question_and_answer(fake: Any) -> None:
    with pytest.raises(ZephyrError, match="ends with a question and its answer"):
        ask(fake(), Chat("source", (Message("assistant", "Hello."),)))
