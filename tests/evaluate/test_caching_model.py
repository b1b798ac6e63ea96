"""The caching model: what is cached is not computed again, and stays as it was."""

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


class CountingModel:
    """A model that counts the examples and prompts that it gets."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tokenizer, self.template, self.context_length = (
            model.tokenizer,
            model.template,
            model.context_length,
        )
        self.num_examples = self.num_prompts = 0

    def logprobs(self, examples, **kwargs):  # type: ignore[no-untyped-def]
        self.num_examples += len(examples)
        return self.model.logprobs(examples, **kwargs)

    def generate(self, prompts, **kwargs):  # type: ignore[no-untyped-def]
        self.num_prompts += len(prompts)
        return self.model.generate(prompts, **kwargs)


def prompts_of(examples: list[Example]) -> list[TokenIds]:
    return [example.prompt for example in examples]


def stop_after(count: int):  # type: ignore[no-untyped-def]
    def progress(ready: int, total: int) -> None:
        if ready == count:
            raise RunInterrupted

    return progress


def test_log_probabilities_go_on_where_they_stopped(tmp_path: Path) -> None:
    model = CountingModel(tiny.make_model("qwen2"))
    model.model.token_budget = 60
    examples = tiny.random_examples(count=20)
    expected = model.model.logprobs(examples)
    with (
        pytest.raises(RunInterrupted),
        CachingModel(model, tmp_path / "a", stop_after(7)) as caching_model,
    ):
        caching_model.logprobs(examples)
    progress_calls = []
    with CachingModel(
        model, tmp_path / "a", lambda ready, total: progress_calls.append((ready, total))
    ) as resumed:
        found = resumed.logprobs(examples)
    assert model.num_examples == 20 + 13
    assert progress_calls == [(n, 20) for n in range(8, 21)]
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
    with CachingModel(model, tmp_path / "a") as cached:
        same = cached.logprobs(examples)
    assert model.num_examples == 33
    assert all(
        np.array_equal(a, b)
        for x, y in zip(found, same, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_answers_go_on_where_they_stopped(tmp_path: Path) -> None:
    model = CountingModel(tiny.make_model("qwen2"))
    all_prompts = prompts_of(tiny.random_examples(count=12))
    options = {"max_new_tokens": 9, "sampling": FREE, "seeds": list(range(12))}
    expected = model.model.generate(all_prompts, **options)
    with (
        pytest.raises(RunInterrupted),
        CachingModel(model, tmp_path / "a", stop_after(5)) as caching_model,
    ):
        caching_model.generate(all_prompts, **options)
    with CachingModel(model, tmp_path / "a") as resumed:
        found = resumed.generate(all_prompts, **options)
    assert model.num_prompts == 12 + 7
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.ids.tolist(), mine.text, mine.finish_reason) == (
            theirs.ids.tolist(),
            theirs.text,
            theirs.finish_reason,
        )


def test_another_question_is_another_answer(tmp_path: Path) -> None:
    model = CountingModel(tiny.make_model("qwen2"))
    (prompt,) = prompts_of(tiny.random_examples(count=1))
    with CachingModel(model, tmp_path / "a") as caching_model:
        for options in (
            {"max_new_tokens": 5, "sampling": GREEDY},
            {"max_new_tokens": 6, "sampling": GREEDY},
            {"max_new_tokens": 5, "sampling": FREE, "seeds": [1]},
            {"max_new_tokens": 5, "sampling": FREE, "seeds": [2]},
            {"max_new_tokens": 5, "sampling": GREEDY},
        ):
            caching_model.generate([prompt], **options)
    assert model.num_prompts == 4


def test_the_same_is_asked_once(tmp_path: Path) -> None:
    model = CountingModel(tiny.make_model("qwen2"))
    examples = tiny.random_examples(count=3)
    with CachingModel(model, tmp_path / "a") as caching_model:
        found = caching_model.logprobs([*examples, *examples])
    assert model.num_examples == 3
    assert all(np.array_equal(found[i][0], found[i + 3][0]) for i in range(3))


def test_a_line_that_was_cut_short_is_asked_again(tmp_path: Path) -> None:
    model = CountingModel(tiny.make_model("qwen2"))
    examples = tiny.random_examples(count=4)
    path = tmp_path / "a"
    with CachingModel(model, path) as caching_model:
        caching_model.logprobs(examples)
    path.write_bytes(path.read_bytes()[:-5])
    with CachingModel(model, path) as resumed:
        resumed.logprobs(examples)
    assert model.num_examples == 5
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4
