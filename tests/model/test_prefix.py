"""A prefix that prompts share is computed once, and changes nothing."""

from dataclasses import replace

import numpy as np
import pytest

from tests import tiny
from zephyr.model import prefix
from zephyr.model.fork import Fork, fork
from zephyr.model.prefix import families

RANDOM = np.random.default_rng(3)


def ids(n: int) -> np.ndarray:
    return RANDOM.integers(1, tiny.VOCABULARY, n)


def subject(shared: int, questions: int) -> list[Fork]:
    """Questions after the same tokens, some of which are the beginnings of others."""
    first, longest = ids(shared), ids(20)
    made = []
    for n in range(questions):
        own = longest[: 1 + n % 7] if n % 2 else ids(3 + n)
        made.append(fork(np.concatenate([first, own]), ids(1), ids(2 + n % 3), ids(4)))
    return made


def test_families_share_what_all_of_them_begin_with() -> None:
    one, two, lone = subject(70, 9), subject(90, 5), [fork(ids(5), ids(2)), fork(ids(80), ids(2))]
    found, alone = families([*one[:4], *lone, *two, *one[4:]], worth=40)
    assert sorted(len(family.members) for family in found) == [5, 9]
    assert alone == [4, 5]
    by_size = {len(family.members): family for family in found}
    assert by_size[5].prefix.tolist() == two[0].prompt[:90].tolist()
    assert sorted(by_size[9].members) == [0, 1, 2, 3, 11, 12, 13, 14, 15]
    assert by_size[9].prefix.tolist() == one[0].prompt[:70].tolist()


def test_a_prefix_leaves_every_prompt_a_token() -> None:
    whole = ids(50)
    same = [fork(whole, ids(2)), fork(whole, ids(3)), fork(whole[:45], ids(1))]
    ((found,), alone) = families(same, worth=10)
    assert (len(found.prefix), alone) == (44, [])


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("row", [30, 512])
def test_a_shared_prefix_changes_no_log_probability(
    family: str, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "ROW", row)
    model = tiny.model(family)
    assert (model.layout, model.shares) == ("tree", True)
    asked = [*subject(66, 11), fork(ids(7), ids(3)), *subject(80, 3)]
    assert [len(f.members) for f in families(asked)[0]] in ([11, 3], [3, 11])
    apart = replace(model, shares=False).logprobs(asked)
    told: set[int] = set()
    together = model.logprobs(asked, done=lambda at, values: told.add(at))
    assert told == set(range(len(asked)))
    for mine, theirs in zip(together, apart, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_networks_without_such_masks_share_nothing() -> None:
    model = tiny.model("bloom")
    assert (model.layout, model.shares) == ("rows", False)
