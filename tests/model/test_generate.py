"""Decoding: as the library's greedy search, whatever else is in the batch."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model.decoding import (
    GREEDY,
    DecodeBatch,
    DecodeRow,
    Prefill,
    SamplingParams,
    _sample_token,
)
from zephyr.model.example import TokenIds, make_example, to_token_ids
from zephyr.model.generate import Generation
from zephyr.model.model import Model

LENGTHS = (9, 3, 17, 1, 30, 12, 2, 5)
TOP_P_SAMPLING = SamplingParams(temperature=1.0, top_p=0.9)


def make_prompts() -> list[TokenIds]:
    rng = np.random.default_rng(0)
    return [to_token_ids(rng.integers(1, tiny.VOCAB_SIZE, n)) for n in LENGTHS]


def model_without_stop_tokens(family: str) -> Model:
    """A model without stop tokens: its answers never end by themselves."""
    model = tiny.make_model(family)
    model.template.stop_token_ids = frozenset({-1})
    return model


def generate_with_transformers(model: Model, prompt: TokenIds, max_new_tokens: int) -> list[int]:
    input_ids = torch.from_numpy(prompt.astype(np.int64))[None]
    output_ids = model.causal.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
    )
    return output_ids[0, len(prompt) :].tolist()


def answer_ids(answers: Sequence[Generation]) -> list[list[int]]:
    return [answer.ids.tolist() for answer in answers]


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("budget", [10, 60, 4096])
def test_equals_the_librarys_greedy_search(family: str, budget: int) -> None:
    """Alone, with prompts that join as others finish, and all at once."""
    model = model_without_stop_tokens(family)
    model.token_budget = budget
    max_new_tokens = [12, 3, 20, 7, 1, 15, 9, 30]
    answers = model.generate(make_prompts(), max_new_tokens=max_new_tokens)
    expected = [
        generate_with_transformers(model, p, n)
        for p, n in zip(make_prompts(), max_new_tokens, strict=True)
    ]
    assert answer_ids(answers) == expected
    assert {answer.finish_reason for answer in answers} == {"length"}


@pytest.mark.parametrize("family", ["qwen2", "bloom"])
def test_a_longer_prompt_may_join_a_running_batch(family: str) -> None:
    model = model_without_stop_tokens(family)
    rows = [DecodeRow(prompt) for prompt in make_prompts()]
    decode_batch = DecodeBatch(model.causal)
    decode_batch.add(rows[:2])
    for _ in range(3):
        decode_batch.step()
    decode_batch.remove(rows[0])
    decode_batch.add(rows[2:5])
    decode_batch.step()
    decode_batch.add([rows[5]])
    for row in rows[1:6]:
        assert row.output_ids == generate_with_transformers(model, row.prompt, len(row.output_ids))
    assert [len(row.output_ids) for row in rows[:6]] == [4, 5, 2, 2, 2, 1]


def test_the_kv_cache_is_reallocated_as_it_fills() -> None:
    """Two hundred tokens in storage of 64 more columns than there are."""
    model = model_without_stop_tokens("llama")
    model.context_length = 400
    generations = model.generate(make_prompts()[:2], max_new_tokens=[110, 30])
    assert answer_ids(generations)[0] == generate_with_transformers(model, make_prompts()[0], 110)


@pytest.mark.parametrize("family", ["qwen2", "bloom"])
def test_a_row_ends_at_an_end_token_and_the_others_go_on(family: str) -> None:
    model = model_without_stop_tokens(family)
    free = model.generate(make_prompts(), max_new_tokens=12)
    stop = int(free[2].ids[4])
    model.template.stop_token_ids = frozenset({stop})
    for before, after in zip(free, model.generate(make_prompts(), max_new_tokens=12), strict=True):
        token_ids = before.ids.tolist()
        end = token_ids.index(stop) if stop in token_ids else 12
        assert after.ids.tolist() == token_ids[:end]
        assert after.finish_reason == ("end token" if stop in token_ids else "length")
        assert after.is_complete == (stop in token_ids)


@pytest.mark.parametrize("sampling", [GREEDY, TOP_P_SAMPLING])
def test_order_and_batch_change_no_answer(sampling: SamplingParams) -> None:
    model = model_without_stop_tokens("qwen2")
    seeds = list(range(len(LENGTHS)))

    def generate_in_order(order: Sequence[int], budget: int) -> list[list[int]]:
        model.token_budget = budget
        answers = model.generate(
            [make_prompts()[i] for i in order],
            max_new_tokens=[8 + i for i in order],
            sampling=sampling,
            seeds=[seeds[i] for i in order],
        )
        return [answer_ids(answers)[order.index(i)] for i in sorted(order)]

    order = list(range(len(LENGTHS)))
    assert (
        generate_in_order(order, 4096)
        == generate_in_order(order[::-1], 30)
        == generate_in_order(order, 1)
    )


@pytest.mark.parametrize("family", ["qwen2", "bloom"])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 7])
def test_prompts_may_be_prefilled_in_chunks_while_others_go_on(
    family: str, chunk_tokens: int
) -> None:
    model = model_without_stop_tokens(family)
    first, *others = (DecodeRow(prompt) for prompt in make_prompts())
    decode_batch = DecodeBatch(model.causal)
    decode_batch.add([first])
    prefill = Prefill(others)
    chunks = 1
    while not decode_batch.prefill_chunk(prefill, chunk_tokens):
        decode_batch.step()
        chunks += 1
    decode_batch.step()
    assert chunks == -(-max(LENGTHS[1:]) // chunk_tokens)
    assert len(first.output_ids) == chunks + 1
    for row in (first, *others):
        assert row.output_ids == generate_with_transformers(model, row.prompt, len(row.output_ids))


def test_tokens_are_recorded_with_their_log_probabilities() -> None:
    model = model_without_stop_tokens("qwen2")
    row = DecodeRow(make_prompts()[0], SamplingParams(temperature=1.3), top_logprobs=3)
    decode_batch = DecodeBatch(model.causal)
    decode_batch.add([row])
    for _ in range(5):
        decode_batch.step()
    (expected,) = model.logprobs([make_example(row.prompt, row.output_ids)])
    np.testing.assert_allclose(
        [token.logprob for token in row.output_logprobs], expected[0], atol=1e-4
    )
    for token in row.output_logprobs:
        values = [value for _, value in token.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert token.logprob <= values[0]


def test_samples_follow_the_distribution() -> None:
    """Shares of 20,000 samples, within four standard errors; `top_p` keeps two of four tokens."""
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])
    for top_p, kept in ((1.0, 4), (0.9, 2)):
        probs = (logits / 0.8).softmax(dim=0)
        likely = probs * (probs >= probs.sort(descending=True).values[kept - 1])
        likely /= likely.sum()
        row = DecodeRow(to_token_ids([1]), SamplingParams(0.8, top_p), seed=3)
        sampled_tokens = torch.tensor([_sample_token(logits, row) for _ in range(20_000)])
        shares = torch.bincount(sampled_tokens, minlength=4) / len(sampled_tokens)
        errors = (likely * (1 - likely) / len(sampled_tokens)).sqrt()
        assert bool(((shares - likely).abs() <= 4 * errors).all())


def test_a_temperature_of_almost_nothing_is_greedy() -> None:
    model = model_without_stop_tokens("qwen2")
    cold = SamplingParams(temperature=1e-300)
    greedy, nearly = (
        model.generate(make_prompts(), max_new_tokens=6, sampling=s) for s in (GREEDY, cold)
    )
    assert answer_ids(nearly) == answer_ids(greedy)


def test_a_seed_decides_what_is_sampled() -> None:
    model = model_without_stop_tokens("qwen2")
    one, same, other = (
        model.generate(make_prompts()[:1], max_new_tokens=8, sampling=TOP_P_SAMPLING, seeds=[seed])
        for seed in (5, 5, 6)
    )
    assert answer_ids(one) == answer_ids(same) != answer_ids(other)


def test_top_p_keeps_the_likeliest() -> None:
    model = model_without_stop_tokens("qwen2")
    narrow = SamplingParams(temperature=1.0, top_p=1e-6)
    greedy, nearly = (
        model.generate(make_prompts(), max_new_tokens=6, sampling=s) for s in (GREEDY, narrow)
    )
    assert answer_ids(nearly) == answer_ids(greedy)


def test_a_text_ends_before_the_first_stop_string() -> None:
    model = model_without_stop_tokens("qwen2")
    (free,) = model.generate(make_prompts()[:1], max_new_tokens=40)
    for start in range(0, len(free.text) - 4, 3):
        stop = free.text[start : start + 4]
        if "\ufffd" in stop:
            continue
        (generation,) = model.generate(
            make_prompts()[:1], max_new_tokens=40, stop=["no such text", stop]
        )
        assert generation.text == free.text[: free.text.index(stop)]
        assert generation.finish_reason == "stop string"
        assert stop in model.template.decode(generation.ids)
        assert stop not in model.template.decode(generation.ids[:-1])


def test_each_answer_is_reported_as_it_is_finished() -> None:
    model = model_without_stop_tokens("qwen2")
    lengths: list[int] = []
    max_new_tokens = [5, 1, 9, 2, 3, 4, 7, 6]
    answers = model.generate(
        make_prompts(),
        max_new_tokens=max_new_tokens,
        on_done=lambda i, answer: lengths.append(len(answer.ids)),
    )
    assert lengths == sorted(max_new_tokens)
    assert [len(answer.ids) for answer in answers] == max_new_tokens


@pytest.mark.parametrize("stop", [(), ("ab", "e"), ("\n",)])
def test_a_stream_writes_the_whole_answer_in_whole_characters(stop: tuple[str, ...]) -> None:
    model = tiny.make_model("qwen2")
    for seed in range(5):
        chunks: list[str] = []
        options = {"sampling": SamplingParams(temperature=1.5), "max_new_tokens": 40, "stop": stop}
        answer = model.stream(make_prompts()[0], on_text=chunks.append, seed=seed, **options)
        assert "".join(chunks) == answer.text  # half a character would have been another
        (generation,) = model.generate(make_prompts()[:1], seeds=[seed], **options)
        assert (generation.text, generation.ids.tolist()) == (answer.text, answer.ids.tolist())


def test_an_answer_ends_at_the_context() -> None:
    model = tiny.make_model("qwen2")
    long = to_token_ids(np.ones(tiny.CONTEXT_LENGTH - 3))
    (answer,) = model.generate([long], max_new_tokens=50)
    assert len(answer.ids) <= 3
    with pytest.raises(ZephyrError, match="longer than the context"):
        model.generate([to_token_ids(np.ones(tiny.CONTEXT_LENGTH))], max_new_tokens=1)


def test_no_prompts_give_no_answers() -> None:
    assert tiny.make_model("qwen2").generate([], max_new_tokens=3) == []
