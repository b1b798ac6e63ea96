"""A journal of answers: what is known is not asked again, and is what was said."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from zephyr.evaluate.caching_model import CachingModel
from zephyr.model.decoding import GREEDY, SamplingParams
from zephyr.model.example import Example, TokenIds
from zephyr.model.model import Model
from zephyr.train.loop import RunInterrupted

FREE = SamplingParams(temperature=1.0)


class Counted:
    """A model that counts what it is asked."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tokenizer, self.template, self.context_length = (
            model.tokenizer,
            model.template,
            model.context_length,
        )
        self.forks = self.prompts = 0

    def logprobs(self, forks, **more):  # type: ignore[no-untyped-def]
        self.forks += len(forks)
        return self.model.logprobs(forks, **more)

    def generate(self, prompts, **more):  # type: ignore[no-untyped-def]
        self.prompts += len(prompts)
        return self.model.generate(prompts, **more)


def prompts(forks: list[Example]) -> list[TokenIds]:
    return [fork.prompt for fork in forks]


def stop_after(count: int):  # type: ignore[no-untyped-def]
    def progress(there: int, asked: int) -> None:
        if there == count:
            raise RunInterrupted

    return progress


def test_log_probabilities_go_on_where_they_stopped(tmp_path: Path) -> None:
    model = Counted(tiny.make_model("qwen2"))
    model.model.token_budget = 60
    forks = tiny.examples(count=20)
    whole = model.model.logprobs(forks)
    with (
        pytest.raises(RunInterrupted),
        CachingModel(model, tmp_path / "a", stop_after(7)) as journal,
    ):
        journal.logprobs(forks)
    heard = []
    with CachingModel(
        model, tmp_path / "a", lambda there, asked: heard.append((there, asked))
    ) as again:
        found = again.logprobs(forks)
    assert model.forks == 20 + 13
    assert heard == [(n, 20) for n in range(8, 21)]
    for mine, theirs in zip(found, whole, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
    with CachingModel(model, tmp_path / "a") as known:
        same = known.logprobs(forks)
    assert model.forks == 33
    assert all(
        np.array_equal(a, b)
        for x, y in zip(found, same, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_answers_go_on_where_they_stopped(tmp_path: Path) -> None:
    model = Counted(tiny.make_model("qwen2"))
    asked = prompts(tiny.examples(count=12))
    how = {"max_new_tokens": 9, "sampling": FREE, "seeds": list(range(12))}
    whole = model.model.generate(asked, **how)
    with (
        pytest.raises(RunInterrupted),
        CachingModel(model, tmp_path / "a", stop_after(5)) as journal,
    ):
        journal.generate(asked, **how)
    with CachingModel(model, tmp_path / "a") as again:
        found = again.generate(asked, **how)
    assert model.prompts == 12 + 7
    for mine, theirs in zip(found, whole, strict=True):
        assert (mine.ids.tolist(), mine.text, mine.finish_reason) == (
            theirs.ids.tolist(),
            theirs.text,
            theirs.finish_reason,
        )


def test_another_question_is_another_answer(tmp_path: Path) -> None:
    model = Counted(tiny.make_model("qwen2"))
    (prompt,) = prompts(tiny.examples(count=1))
    with CachingModel(model, tmp_path / "a") as journal:
        for how in (
            {"max_new_tokens": 5, "sampling": GREEDY},
            {"max_new_tokens": 6, "sampling": GREEDY},
            {"max_new_tokens": 5, "sampling": FREE, "seeds": [1]},
            {"max_new_tokens": 5, "sampling": FREE, "seeds": [2]},
            {"max_new_tokens": 5, "sampling": GREEDY},
        ):
            journal.generate([prompt], **how)
    assert model.prompts == 4


def test_the_same_is_asked_once(tmp_path: Path) -> None:
    model = Counted(tiny.make_model("qwen2"))
    forks = tiny.examples(count=3)
    with CachingModel(model, tmp_path / "a") as journal:
        found = journal.logprobs([*forks, *forks])
    assert model.forks == 3
    assert all(np.array_equal(found[i][0], found[i + 3][0]) for i in range(3))


def test_a_line_that_was_cut_short_is_asked_again(tmp_path: Path) -> None:
    model = Counted(tiny.make_model("qwen2"))
    forks = tiny.examples(count=4)
    path = tmp_path / "a"
    with CachingModel(model, path) as journal:
        journal.logprobs(forks)
    path.write_bytes(path.read_bytes()[:-5])
    with CachingModel(model, path) as again:
        again.logprobs(forks)
    assert model.forks == 5
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4
