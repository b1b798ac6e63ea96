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
    return RNG.integers(1, tiny.VOCABULARY, n)


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


def test_families_share_what_all_of_them_begin_with() -> None:
    one, two, lone = (
        examples_with_shared_prefix(70, 9),
        examples_with_shared_prefix(90, 5),
        [
            make_example(random_tokens(5), random_tokens(2)),
            make_example(random_tokens(80), random_tokens(2)),
        ],
    )
    found, alone = group_by_prefix([*one[:4], *lone, *two, *one[4:]], min_prefix_tokens=40)
    assert sorted(len(family.indices) for family in found) == [5, 9]
    assert alone == [4, 5]
    by_size = {len(family.indices): family for family in found}
    assert by_size[5].prefix.tolist() == two[0].prompt[:90].tolist()
    assert sorted(by_size[9].indices) == [0, 1, 2, 3, 11, 12, 13, 14, 15]
    assert by_size[9].prefix.tolist() == one[0].prompt[:70].tolist()


def test_a_prefix_leaves_every_prompt_a_token() -> None:
    whole = random_tokens(50)
    same = [
        make_example(whole, random_tokens(2)),
        make_example(whole, random_tokens(3)),
        make_example(whole[:45], random_tokens(1)),
    ]
    ((found,), alone) = group_by_prefix(same, min_prefix_tokens=10)
    assert (len(found.prefix), alone) == (44, [])


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("row", [30, 512])
def test_a_shared_prefix_changes_no_log_probability(
    family: str, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "MAX_ROW_TOKENS", row)
    model = tiny.make_model(family)
    assert (model.layout, model.shares_prefixes) == ("tree", True)
    asked = [
        *examples_with_shared_prefix(66, 11),
        make_example(random_tokens(7), random_tokens(3)),
        *examples_with_shared_prefix(80, 3),
    ]
    assert [len(f.indices) for f in group_by_prefix(asked)[0]] in ([11, 3], [3, 11])
    apart = replace(model, shares_prefixes=False).logprobs(asked)
    told: set[int] = set()
    together = model.logprobs(asked, on_done=lambda at, values: told.add(at))
    assert told == set(range(len(asked)))
    for mine, theirs in zip(together, apart, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_networks_without_such_masks_share_nothing() -> None:
    model = tiny.make_model("bloom")
    assert (model.layout, model.shares_prefixes) == ("rows", False)
