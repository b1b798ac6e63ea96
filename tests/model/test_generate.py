"""Decoding: as the library's greedy search, the same alone and in a batch, whole characters."""

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model.fork import Ids, ids
from zephyr.model.generate import Sampling, decode

NEVER = frozenset({-1})


def prompts() -> list[Ids]:
    rng = np.random.default_rng(0)
    return [ids(rng.integers(1, tiny.VOCABULARY, n)) for n in (9, 3, 17, 1)]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_the_librarys_greedy_search(family: str) -> None:
    causal = tiny.model(family).causal
    answers = decode(causal, prompts(), stops=NEVER, limits=[12] * 4)
    for prompt, answer in zip(prompts(), answers, strict=True):
        whole = torch.from_numpy(prompt.astype(np.int64))[None]
        expected = causal.generate(
            whole,
            attention_mask=torch.ones_like(whole),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=-1,
            pad_token_id=0,
        )
        assert answer.ids.tolist() == expected[0, len(prompt) :].tolist()
        assert not answer.stopped


@pytest.mark.parametrize("family", ["qwen2", "bloom"])
def test_a_finished_row_leaves_and_the_others_go_on(family: str) -> None:
    causal = tiny.model(family).causal
    free = decode(causal, prompts(), stops=NEVER, limits=[12] * 4)
    stop = int(free[2].ids[4])
    stopped = decode(causal, prompts(), stops=frozenset({stop}), limits=[12] * 4)
    for before, after in zip(free, stopped, strict=True):
        whole = before.ids.tolist()
        end = whole.index(stop) if stop in whole else 12
        assert after.ids.tolist() == whole[:end]
        assert after.stopped == (stop in whole)


def test_each_row_has_a_limit_of_its_own() -> None:
    causal = tiny.model("qwen2").causal
    whole = decode(causal, prompts(), stops=NEVER, limits=[9] * 4)
    some = decode(causal, prompts(), stops=NEVER, limits=[3, 9, 1, 5])
    for full, cut, limit in zip(whole, some, [3, 9, 1, 5], strict=True):
        assert cut.ids.tolist() == full.ids[:limit].tolist()


def test_sampling_does_not_depend_on_the_neighbours() -> None:
    model = tiny.model("qwen2")
    sampling = Sampling(temperature=1.0, top_p=0.9, seed=5)
    batch = decode(model.causal, prompts(), stops=NEVER, limits=[8] * 4, sampling=sampling)
    alone = decode(model.causal, prompts()[:1], stops=NEVER, limits=[8], sampling=sampling)
    assert batch[0].ids.tolist() == alone[0].ids.tolist()
    other = Sampling(temperature=1.0, top_p=0.9, seed=6)
    again = decode(model.causal, prompts()[:1], stops=NEVER, limits=[8], sampling=other)
    assert again[0].ids.tolist() != alone[0].ids.tolist()


def test_top_p_keeps_the_likeliest() -> None:
    causal = tiny.model("qwen2").causal
    greedy = decode(causal, prompts(), stops=NEVER, limits=[6] * 4)
    narrow = Sampling(temperature=1.0, top_p=1e-6)
    nearly = decode(causal, prompts(), stops=NEVER, limits=[6] * 4, sampling=narrow)
    assert [a.ids.tolist() for a in nearly] == [a.ids.tolist() for a in greedy]


def test_a_stream_writes_the_whole_answer_in_whole_characters() -> None:
    model = tiny.model("qwen2")
    pieces: list[str] = []
    sampling = Sampling(temperature=1.5, seed=1)
    answer = model.stream(prompts()[0], max_new_tokens=40, write=pieces.append, sampling=sampling)
    assert "".join(pieces) == answer.text
    assert not any(p.endswith("\ufffd") for p in pieces[:-1])


def test_an_answer_ends_at_the_context() -> None:
    model = tiny.model("qwen2")
    long = ids(np.ones(tiny.CONTEXT - 3))
    (answer,) = model.generate([long], max_new_tokens=50)
    assert len(answer.ids) <= 3
    with pytest.raises(ZephyrError, match="longer than the context"):
        model.generate([ids(np.ones(tiny.CONTEXT))], max_new_tokens=1)
