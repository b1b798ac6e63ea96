"""Few-shot examples, letters and chats: the exact text of a request."""

from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.evaluate.tasks import resolve_few_shot_sources, resolve_sources
from zephyr.model.example import to_token_ids
from zephyr.recipe.data import SourceSpec
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice


def make_choice(n: int, subject: str = "sums", source: str = "quiz") -> Choice:
    return Choice(source, f"What is {n} + 1? ", (str(n), str(n + 1), str(n + 2)), 1, subject)


def evaluate(
    model: Any,
    name: str,
    questions: list[Choice],
    few_shot_examples: list[Choice],
    **settings: Any,
) -> EvalResult:
    task = TaskSpec.model_validate({"name": name, **settings})
    return run_task(
        task, questions, model, split_label="test", few_shot_examples=few_shot_examples, seed=3
    )


def read_request(result: EvalResult) -> str:
    (item,) = result.items
    text: str = item["detail"]["request"]
    return text


def test_letters_are_asked_as_the_harness_asks_mmlu(fake_model: Any) -> None:
    model = fake_model(logprob_fn=lambda prompt, completion: 0 if completion == " B" else -1)
    result = evaluate(
        model, "mcqa_letter", [make_choice(5)], [make_choice(1), make_choice(2)], shots=2
    )
    assert read_request(result) == (
        "The following are multiple choice questions (with answers) about sums.\n\n"
        "What is 1 + 1?\nA. 1\nB. 2\nC. 3\nAnswer: B\n\n"
        "What is 2 + 1?\nA. 2\nB. 3\nC. 4\nAnswer: B\n\n"
        "What is 5 + 1?\nA. 5\nB. 6\nC. 7\nAnswer:"
    )
    assert result.items[0]["scores"] == {"acc": 1, "acc_norm": 1, "chance": 1 / 3}
    assert result.scores["metrics"][0]["protocol"] == (
        "mcqa_letter@1 · rank letters · acc · 2-shot · test · n=1"
    )


def test_full_options_follow_their_examples(fake_model: Any) -> None:
    result = evaluate(fake_model(), "mcqa", [make_choice(5)], [make_choice(1)], shots=1)
    assert read_request(result) == (
        "Question: What is 1 + 1? \nAnswer: 2\n\nQuestion: What is 5 + 1? \nAnswer:"
    )


def test_examples_are_of_the_subject_and_never_the_question(fake_model: Any) -> None:
    few_shot_examples = [
        make_choice(5),
        make_choice(1, "other"),
        make_choice(2),
        make_choice(3),
        make_choice(4),
    ]
    for shots in (1, 2, 3):
        text = read_request(
            evaluate(fake_model(), "mcqa_letter", [make_choice(5)], few_shot_examples, shots=shots)
        )
        assert text.count("What is") == shots + 1
        assert text.count("5 + 1") == 1
        assert "1 + 1" not in text
    all_three = read_request(
        evaluate(fake_model(), "mcqa_letter", [make_choice(5)], few_shot_examples, shots=3)
    )
    assert all_three.index("2 + 1") < all_three.index("3 + 1") < all_three.index("4 + 1")


def test_too_few_examples_are_refused(fake_model: Any) -> None:
    with pytest.raises(ZephyrError, match="too few worked examples for subject 'sums'") as error:
        evaluate(
            fake_model(),
            "mcqa_letter",
            [make_choice(5)],
            [make_choice(5), make_choice(1), make_choice(2, "other")],
            shots=2,
        )
    assert "found:   1 examples, shots: 2" in str(error.value)


def test_in_a_chat_the_text_is_the_users_and_the_option_the_models(fake_model: Any) -> None:
    model = fake_model()
    model.template.encode_answers = lambda texts: [
        to_token_ids([ord(c) for c in text]) for text in texts
    ]
    result = evaluate(model, "mcqa_letter", [make_choice(5)], [], chat=True)
    (example,) = model.scored_examples
    prompt = model.tokenizer.decode(example.prompt)
    assert prompt == f"user: {read_request(result)}\n"
    assert [model.tokenizer.decode(c.ids) for c in example.completions] == ["A", "B", "C"]
    assert " · 0-shot · chat · " in result.scores["metrics"][0]["protocol"]


def test_a_task_refuses_settings_that_it_does_not_use() -> None:
    with pytest.raises(ZephyrError, match="task 'gsm8k' has no `shots`") as error:
        resolve_sources(TaskSpec(name="gsm8k", shots=2))
    assert "hellaswag, mcqa, mcqa_letter, mcqa_written" in str(error.value)
    with pytest.raises(ZephyrError, match=r"has no `data`(.|\n)*belongs to preferences, lessons"):
        resolve_sources(TaskSpec.model_validate({"name": "gsm8k", "data": "sft"}))
    with pytest.raises(ZephyrError, match="task 'mcqa' has no `temperature`"):
        resolve_sources(TaskSpec(name="mcqa", temperature=1))


def test_examples_come_from_the_tasks_own_sources_or_the_recipes() -> None:
    own = resolve_few_shot_sources(TaskSpec(name="mcqa_letter", shots=5))
    assert [(s.name, s.split) for s in own][-1] == ("mmlu", "dev")
    assert resolve_few_shot_sources(TaskSpec(name="mcqa_letter")) == ()
    file = SourceSpec(path="quiz.csv")
    with pytest.raises(ZephyrError, match="does not know where its worked examples come from"):
        resolve_few_shot_sources(TaskSpec(name="mcqa_letter", shots=5, sources=(file,)))
    found = resolve_few_shot_sources(
        TaskSpec(name="mcqa_letter", shots=5, sources=(file,), examples=(file,))
    )
    assert found == (file,)
