from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Chat, Message


def make_chat(question: str, answer: str) -> Chat:
    return Chat("source", (Message("user", question), Message("assistant", answer)))


def evaluate(
    model: Any, *records: Chat, max_new_tokens: int | None = None, seed: int = 0, **sampling: float
) -> EvalResult:
    settings = TaskSpec.model_validate(
        {"name": "gsm8k", "max_new_tokens": max_new_tokens, **sampling}
    )
    return run_task(settings, records, model, split_label="test", seed=seed)


def item_scores(result: EvalResult) -> list[dict[str, float]]:
    return [i["scores"] for i in result.items]


def test_the_prompt_is_all_but_the_last_answer(fake_model: Any) -> None:
    earlier = Message("user", "a"), Message("assistant", "b")
    record = Chat("source", (*earlier, *make_chat("c", "d\n#### 1").messages))
    result = evaluate(fake_model(answer_fn=lambda prompt: prompt), record)
    assert result.items[0]["detail"]["output"] == "user: a\nassistant: b\nuser: c\n"
    assert result.items[0]["detail"]["reference"] == "d\n#### 1"


def test_strict_wants_the_mark_and_flexible_any_number(fake_model: Any) -> None:
    answers = {
        "a": "It is 4.\n#### 1,204.00",
        "b": "It is $1204.",
        "c": "#### 1204, not 7",
        "d": "",
        "e": "#### 1,204.",
    }
    result = item_scores(
        evaluate(
            fake_model(answer_fn=lambda prompt: answers[prompt[6]]),
            *(make_chat(name, "Long sum.\n#### 1204") for name in answers),
        )
    )
    assert [s["exact_match"] for s in result] == [0, 0, 1, 0, 1]
    assert [s["exact_match_flexible"] for s in result] == [0, 1, 0, 0, 1]
    assert [s["number_match"] for s in result] == [1, 1, 1, 0, 1]


def test_an_answer_cut_off_has_not_stopped(fake_model: Any) -> None:
    result = evaluate(
        fake_model(answer_fn=lambda prompt: "abcdef"), make_chat("q", "#### 1"), max_new_tokens=4
    )
    [item] = result.items
    assert item["detail"]["output"] == "abcd"
    assert (item["scores"]["length"], item["scores"]["stopped"]) == (4, 0)
    assert item["detail"]["ended"] == "length"
    assert "greedy, at most 4 tokens" in result.scores["metrics"][0]["protocol"]
    [item] = evaluate(
        fake_model(answer_fn=lambda prompt: "abcd"), make_chat("q", "#### 1"), max_new_tokens=4
    ).items
    assert (item["scores"]["stopped"], item["detail"]["ended"]) == (1, "end token")


def test_at_most_256_tokens_unless_set(fake_model: Any) -> None:
    result = evaluate(fake_model(answer_fn=lambda prompt: "a" * 300), make_chat("q", "#### 1"))
    assert item_scores(result)[0]["length"] == 256


def test_a_prompt_without_room_is_an_empty_answer_and_counted(fake_model: Any) -> None:
    """ "user: " and a new line are 7 tokens: a question of 4 fills the context of 11."""
    model = fake_model(answer_fn=lambda prompt: "#### 1", context_length=11)
    result = evaluate(model, make_chat("abc", "#### 1"), make_chat("abcd", "#### 1"))
    assert [s["exact_match"] for s in item_scores(result)] == [1, 0]
    assert result.items[1]["detail"]["ended"] == "no room"
    assert result.scores["counts"] == {"no room for an answer": 1}


def test_empty_answers_are_counted(fake_model: Any) -> None:
    answers = {"a": "", "b": " \n", "c": "7"}
    result = evaluate(
        fake_model(answer_fn=lambda p: answers[p[6]]), *(make_chat(n, "#### 1") for n in answers)
    )
    assert result.scores["counts"] == {"empty answer": 2}


def test_greedy_answers_are_not_sampled(fake_model: Any) -> None:
    model = fake_model(answer_fn=str)
    evaluate(model, make_chat("a", "#### 1"))
    [kwargs] = model.generate_kwargs
    assert kwargs["sampling"].temperature == 0


def test_each_sampled_answer_has_a_seed_of_its_own(fake_model: Any) -> None:
    """The seed and the content decide it, and neither the order nor the other prompts."""
    a, b, c = (make_chat(name, "#### 1") for name in "abc")

    def seeds(*records: Chat, seed: int = 0) -> dict[str, int]:
        model = fake_model(answer_fn=str)
        result = evaluate(model, *records, temperature=0.95, top_p=0.7, seed=seed)
        [kwargs] = model.generate_kwargs
        assert kwargs["sampling"] == (0.95, 0.7)
        protocol = "temperature 0.95, top-p 0.7, at most 256 tokens"
        assert protocol in result.scores["metrics"][0]["protocol"]
        return {item["id"]: s for item, s in zip(result.items, kwargs["seeds"], strict=True)}

    alone, shuffled, other = seeds(a), seeds(c, b, a), seeds(a, seed=1)
    assert shuffled[a.id] == alone[a.id] != other[a.id]
    assert len(set(shuffled.values())) == 3
    assert all(0 <= seed < 2**63 for seed in shuffled.values())


def test_a_reference_without_a_number_has_no_match(fake_model: Any) -> None:
    """Without a mark, the last number is what is looked for."""
    model = fake_model(answer_fn=lambda prompt: "#### 5")
    result = evaluate(
        model, make_chat("a", "No number."), make_chat("b", "It is 5."), make_chat("c", "None.")
    )
    rows = {m["name"]: m for m in result.scores["metrics"]}
    for name in ("exact_match", "exact_match_flexible", "number_match"):
        assert (rows[name]["n"], rows[name]["value"]) == (1, 1)
    assert rows["bleu4"]["n"] == 3
    assert result.scores["counts"] == {"reference without a number": 2}
    result = evaluate(model, make_chat("a", "No number."))
    rows = {m["name"]: m for m in result.scores["metrics"]}
    assert rows["exact_match"]["empty"] == "no reference answer holds a number"
    assert rows["exact_match"]["value"] is None


def test_a_conversation_must_end_with_question_and_answer(fake_model: Any) -> None:
    with pytest.raises(ZephyrError, match="ends with a question and its answer"):
        evaluate(fake_model(), Chat("source", (Message("assistant", "Hello."),)))


def test_a_thought_is_not_scored(fake_model: Any) -> None:
    model = fake_model(answer_fn=lambda prompt: "<think>#### 7</think>#### 4")
    record = make_chat("What is 2 + 2?", "#### 4")
    assert "####" in evaluate(model, record).items[0]["detail"]["output"][:12]
    model.template.thinking = "on"
    model.template.decode_scored_answer = lambda ids: model.tokenizer.decode(ids)[-6:]
    [item] = evaluate(model, record).items
    assert item["detail"]["output"] == "#### 4"
    assert item["scores"]["exact_match"] == 1


def test_a_reference_in_another_script_has_no_rouge_instead_of_zero(fake_model: Any) -> None:
    records = make_chat("a", "Ответ: пять"), make_chat("b", "the answer is 5")
    model = fake_model(answer_fn=lambda prompt: "Ответ: пять" if prompt[6] == "a" else "answer 5")
    result = evaluate(model, *records)
    metrics = {metric["name"]: metric for metric in result.scores["metrics"]}
    assert metrics["google_rouge1"]["n"] == metrics["google_rougeL"]["n"] == 1
    assert metrics["sacrebleu"]["n"] == metrics["bleu4"]["n"] == 2
    assert result.scores["counts"]["reference that rouge-score can't read"] == 1
    alone = evaluate(model, records[0]).scores["metrics"]
    [rouge] = [metric for metric in alone if metric["name"] == "google_rouge1"]
    assert (rouge["value"], rouge["n"]) == (None, 0)
    assert rouge["empty"] == "rouge-score reads a to z and digits, and no other script"


def test_a_chinese_reference_has_no_sacrebleu_of_one_word(fake_model: Any) -> None:
    record = make_chat("a", "答案是五米")
    result = evaluate(fake_model(answer_fn=lambda prompt: "答案是六米"), record)
    [metric] = [m for m in result.scores["metrics"] if m["name"] == "sacrebleu"]
    assert metric["value"] is None
    assert "tokenizer 13a" in metric["empty"]


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("#### 1 234", "It is 1,234."),
        ("#### 1,234", r"It is $1{,}234$."),
        ("#### 3,5", "It is 3.5"),
        ("It is −7", "#### -7"),
        ("#### 1/2", "It is 0.5."),
    ],
)
def test_numbers_are_compared_by_value(fake_model: Any, reference: str, answer: str) -> None:
    result = evaluate(fake_model(answer_fn=lambda prompt: answer), make_chat("q", reference))
    assert item_scores(result)[0]["number_match"] == 1
