"""A prefix that prompts share is computed once, and changes nothing."""

from dataclasses import replace

import numpy as np
import pytest

from tests import tiny
from zephyr.model import prefix_cache
from zephyr.model.example import Example, make_example
from zephyr.model.prefix_cache import group_by_prefix

RNG = np.random.default_rng(3)


def random_tokens(n: int) -> np.ndarray:
    return RNG.integers(1, tiny.VOCAB_SIZE, n)


def examples_with_shared_prefix(shared: int, questions: int) -> list[Example]:
    """Questions after the same tokens, some of which are the beginnings of others."""
    first, longest = random_tokens(shared), random_tokens(20)
    examples = []
    for n in range(questions):
        question = longest[: 1 + n % 7] if n % 2 else random_tokens(3 + n)
        examples.append(
            make_example(
                np.concatenate([first, question]),
                random_tokens(1),
                random_tokens(2 + n % 3),
                random_tokens(4),
            )
        )
    return examples


def test_groups_share_what_all_of_them_begin_with() -> None:
    one, two, lone = (
        examples_with_shared_prefix(70, 9),
        examples_with_shared_prefix(90, 5),
        [
            make_example(random_tokens(5), random_tokens(2)),
            make_example(random_tokens(80), random_tokens(2)),
        ],
    )
    groups, ungrouped = group_by_prefix([*one[:4], *lone, *two, *one[4:]], min_prefix_tokens=40)
    assert sorted(len(group.indices) for group in groups) == [5, 9]
    assert ungrouped == [4, 5]
    by_size = {len(group.indices): group for group in groups}
    assert by_size[5].prefix.tolist() == two[0].prompt[:90].tolist()
    assert sorted(by_size[9].indices) == [0, 1, 2, 3, 11, 12, 13, 14, 15]
    assert by_size[9].prefix.tolist() == one[0].prompt[:70].tolist()


def test_a_prefix_leaves_every_prompt_a_token() -> None:
    prompt = random_tokens(50)
    examples = [
        make_example(prompt, random_tokens(2)),
        make_example(prompt, random_tokens(3)),
        make_example(prompt[:45], random_tokens(1)),
    ]
    ((group,), ungrouped) = group_by_prefix(examples, min_prefix_tokens=10)
    assert (len(group.prefix), ungrouped) == (44, [])


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("max_row_tokens", [30, 512])
def test_a_shared_prefix_changes_no_log_probability(
    family: str, max_row_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "MAX_ROW_TOKENS", max_row_tokens)
    model = tiny.make_model(family)
    assert (model.layout, model.shares_prefixes) == ("tree", True)
    examples = [
        *examples_with_shared_prefix(66, 11),
        make_example(random_tokens(7), random_tokens(3)),
        *examples_with_shared_prefix(80, 3),
    ]
    assert [len(f.indices) for f in group_by_prefix(examples)[0]] in ([11, 3], [3, 11])
    unshared_logprobs = replace(model, shares_prefixes=False).logprobs(examples)
    done_indices: set[int] = set()
    shared_logprobs = model.logprobs(examples, on_done=lambda at, values: done_indices.add(at))
    assert done_indices == set(range(len(examples)))
    for mine, theirs in zip(shared_logprobs, unshared_logprobs, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_networks_without_such_masks_share_nothing() -> None:
    model = tiny.make_model("bloom")
    assert (model.layout, model.shares_prefixes) == ("rows", False)
