"""Worked examples, letters and chats: the very text that is asked."""

from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.evaluate.tasks import resolve_few_shot_sources, resolve_sources
from zephyr.model.example import to_token_ids
from zephyr.recipe.data import SourceSpec
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice


def quiz(n: int, subject: str = "sums", source: str = "quiz") -> Choice:
    return Choice(source, f"What is {n} + 1? ", (str(n), str(n + 1), str(n + 2)), 1, subject)


def ask(
    fake: Any, name: str, asked: list[Choice], shown: list[Choice], **settings: Any
) -> EvalResult:
    task = TaskSpec.model_validate({"name": name, **settings})
    return run_task(task, asked, fake, split_label="test", few_shot_examples=shown, seed=3)


def request(result: EvalResult) -> str:
    (item,) = result.items
    text: str = item["detail"]["request"]
    return text


def test_letters_are_asked_as_the_harness_asks_mmlu(fake: Any) -> None:
    model = fake(likes=lambda prompt, completion: 0 if completion == " B" else -1)
    got = ask(model, "mcqa_letter", [quiz(5)], [quiz(1), quiz(2)], shots=2)
    assert request(got) == (
        "The following are multiple choice questions (with answers) about sums.\n\n"
        "What is 1 + 1?\nA. 1\nB. 2\nC. 3\nAnswer: B\n\n"
        "What is 2 + 1?\nA. 2\nB. 3\nC. 4\nAnswer: B\n\n"
        "What is 5 + 1?\nA. 5\nB. 6\nC. 7\nAnswer:"
    )
    assert got.items[0]["scores"] == {"acc": 1, "acc_norm": 1, "chance": 1 / 3}
    assert got.scores["metrics"][0]["protocol"] == (
        "mcqa_letter@1 · rank letters · acc · 2-shot · test · n=1"
    )


def test_full_options_follow_their_examples(fake: Any) -> None:
    got = ask(fake(), "mcqa", [quiz(5)], [quiz(1)], shots=1)
    assert request(got) == (
        "Question: What is 1 + 1? \nAnswer: 2\n\nQuestion: What is 5 + 1? \nAnswer:"
    )


def test_examples_are_of_the_subject_and_never_the_question(fake: Any) -> None:
    shown = [quiz(5), quiz(1, "other"), quiz(2), quiz(3), quiz(4)]
    for shots in (1, 2, 3):
        text = request(ask(fake(), "mcqa_letter", [quiz(5)], shown, shots=shots))
        assert text.count("What is") == shots + 1
        assert text.count("5 + 1") == 1
        assert "1 + 1" not in text
    all_three = request(ask(fake(), "mcqa_letter", [quiz(5)], shown, shots=3))
    assert all_three.index("2 + 1") < all_three.index("3 + 1") < all_three.index("4 + 1")


def test_too_few_examples_are_refused(fake: Any) -> None:
    with pytest.raises(ZephyrError, match="too few worked examples for subject 'sums'") as told:
        ask(fake(), "mcqa_letter", [quiz(5)], [quiz(5), quiz(1), quiz(2, "other")], shots=2)
    assert "found:   1 examples, shots: 2" in str(told.value)


def test_in_a_chat_the_text_is_the_users_and_the_option_the_models(fake: Any) -> None:
    model = fake()
    model.template.encode_answers = lambda texts: [
        to_token_ids([ord(c) for c in text]) for text in texts
    ]
    got = ask(model, "mcqa_letter", [quiz(5)], [], chat=True)
    (fork,) = model.asked
    prompt = model.tokenizer.decode(fork.prompt)
    assert prompt == f"user: {request(got)}\n"
    assert [model.tokenizer.decode(c.ids) for c in fork.completions] == ["A", "B", "C"]
    assert " · 0-shot · chat · " in got.scores["metrics"][0]["protocol"]


def test_a_task_refuses_what_it_does_not_heed() -> None:
    with pytest.raises(ZephyrError, match="task 'gsm8k' has no `shots`") as told:
        resolve_sources(TaskSpec(name="gsm8k", shots=2))
    assert "hellaswag, mcqa, mcqa_letter, mcqa_written" in str(told.value)
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
