import math
from typing import Any

import pytest
import torch

from tests import tiny
from zephyr.evaluate.metrics import rouge
from zephyr.evaluate.scoring import run_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Chat, Message


def make_chat(*texts: str) -> Chat:
    roles = ("user", "assistant") * len(texts)
    return Chat("course", tuple(Message(r, t) for r, t in zip(roles, texts, strict=False)))


LESSONS = [
    make_chat("What is force?", "Mass times acceleration."),
    make_chat("And work?", "Force times a path.", "And power?", "Work in a time."),
]


def test_perplexity_is_of_all_answers_and_their_ends() -> None:
    """Against the network's own loss, whose labels leave out what is no answer."""
    model = tiny.make_model("llama")
    found = run_task(
        TaskSpec(name="lessons", max_new_tokens=3), LESSONS, model, split_label="x", seed=0
    )
    losses, tokens = [], []
    for lesson in LESSONS:
        example = model.template.make_chat_example(lesson)
        [completion] = example.completions
        ids = torch.tensor([*example.prompt.tolist(), *completion.ids.tolist()])
        logits = model.causal(ids[None, :-1]).logits[0].double().log_softmax(-1)
        logprobs = logits.gather(1, ids[1:, None])[-len(completion.ids) :, 0]
        losses.append(-float(logprobs[torch.from_numpy(completion.loss_mask)].sum()))
        tokens.append(int(completion.loss_mask.sum()))
    assert [i["scores"]["answer_perplexity"] for i in found.items] == pytest.approx(losses, 1e-5)
    assert [i["weight"]["answer_perplexity"] for i in found.items] == tokens
    perplexity = math.exp(sum(losses) / sum(tokens))
    [metric] = [m for m in found.scores["metrics"] if m["primary"]]
    assert (metric["name"], metric["n"]) == ("answer_perplexity", 2)
    assert metric["value"] == pytest.approx(perplexity, rel=1e-6)


def test_the_last_answer_is_written_and_compared(fake_model: Any) -> None:
    model = fake_model(answer_fn=lambda prompt: "Work in a time.")
    found = run_task(TaskSpec(name="lessons"), LESSONS, model, split_label="x", seed=0)
    reference = [lesson.messages[-1].content for lesson in LESSONS]
    expected = [rouge(text, "Work in a time.").rougeL for text in reference]
    assert [i["scores"]["rougeL"] for i in found.items] == expected
    assert expected[1] == pytest.approx(1)
    assert expected[0] < 0.5
    assert found.items[1]["detail"]["request"].startswith("user: And work?\nassistant: Force")


def test_a_lesson_longer_than_the_context_is_left_out() -> None:
    model = tiny.make_model("llama")
    lessons = [LESSONS[0], make_chat("Why?", "so " * 4_000)]
    found = run_task(
        TaskSpec(name="lessons", max_new_tokens=2), lessons, model, split_label="x", seed=0
    )
    assert len(found.items) == 1
    assert found.scores["counts"] == {"longer than the context": 1}
