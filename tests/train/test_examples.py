"""What of a mixture a model is shown: whole answers, prompts cut from the left, all counted."""

from typing import Any

import pytest

from tests import tiny
from zephyr.data.mixture import RecordSplit
from zephyr.errors import ZephyrError
from zephyr.model.example import make_example, truncate_prompt
from zephyr.model.load import build_model
from zephyr.model.model import Model
from zephyr.recipe.training import Align, Tune
from zephyr.records import Chat, Message, Pair, Record
from zephyr.train.examples import build_examples

LONG = "word " * 60


@pytest.fixture(scope="module")
def model() -> Model:
    return build_model(tiny.qwen2(), tiny.tokenizer(), token_budget=1024)


def chat(source: str, question: str, answer: str = "So.") -> Record:
    return Chat(source, (Message("user", question), Message("assistant", answer)))


RECORDS = RecordSplit(
    [chat("a", "Why?"), chat("a", LONG), chat("b", "Who?"), chat("b", "Who?", LONG * 9)],
    [chat("a", LONG)],
)


def tune(**settings: Any) -> Tune:
    return Tune.model_validate({"data": "sft", "max_length": 40, **settings})


def test_what_is_too_long_is_left_out_and_counted(model: Model) -> None:
    train, holdout, account, numbers = build_examples(
        model.template, RECORDS, tune(), model.context_length
    )
    lengths = [f.tree_length for f in train]
    assert (len(train), len(holdout)) == (2, 0)
    assert numbers == [0, 2]
    assert account == {
        "max_length": 40,
        "train": 2,
        "train_overlong": 2,
        "holdout": 0,
        "holdout_overlong": 1,
        "supervised_tokens": sum(f.num_loss_tokens for f in train),
        "sources": {
            "a": {
                "examples": 1,
                "overlong": 2,
                "cut": 0,
                "tokens": lengths[0],
                "supervised_tokens": train[0].num_loss_tokens,
            },
            "b": {
                "examples": 1,
                "overlong": 1,
                "cut": 0,
                "tokens": lengths[1],
                "supervised_tokens": train[1].num_loss_tokens,
            },
        },
    }


def test_a_prompt_is_cut_from_the_left_and_an_answer_never(model: Model) -> None:
    """What has no room even without its prompt is left out still."""
    train, holdout, account, numbers = build_examples(
        model.template, RECORDS, tune(overlong="cut"), model.context_length
    )
    whole = model.template.make_examples(RECORDS.train)
    assert numbers == [0, 1, 2]
    assert [f.max_sequence_length for f in (train[1], holdout[0])] == [40, 40]
    assert train[1].completions[0].ids.tolist() == whole[1].completions[0].ids.tolist()
    assert train[1].prompt.tolist() == whole[1].prompt[-len(train[1].prompt) :].tolist()
    assert (account["train"], account["train_overlong"], account["holdout"]) == (3, 1, 1)
    assert [account["sources"][s]["cut"] for s in "ab"] == [2, 0]


def test_a_pair_is_as_long_as_its_longer_answer(model: Model) -> None:
    pair = Pair("p", (Message("user", LONG),), "So.", "Because it is so, and so, and so.")
    spec = Align.model_validate({"data": "pairs", "max_length": 40, "overlong": "cut"})
    [cut], _, account, _ = build_examples(
        model.template, RecordSplit([pair], []), spec, model.context_length
    )
    assert cut.max_sequence_length == 40
    assert account["sources"]["p"]["cut"] == 1
    assert [c.ids.tolist() for c in cut.completions] == [
        c.ids.tolist() for c in model.template.make_pair_example(pair).completions
    ]


def test_no_room_at_all_is_refused(model: Model) -> None:
    with pytest.raises(ZephyrError) as caught:
        build_examples(
            model.template, RecordSplit([chat("a", LONG)], []), tune(), model.context_length
        )
    assert str(caught.value).splitlines() == [
        "no example fits the model",
        "  found:   1 examples, each longer than 40 tokens",
        "  to do:   raise `max_length`, take shorter examples, or set `overlong: cut`",
    ]


def test_cutting_by_hand() -> None:
    """The last token of an answer never enters a network; a start token stays in front."""
    whole = make_example([7, 1, 2, 3, 4], [5, 6], [8])
    for longest, start, expected in (
        (5, None, [1, 2, 3, 4]),
        (5, 7, [7, 2, 3, 4]),
        (3, 7, [7, 4]),
        (2, 7, [4]),
        (2, None, [4]),
    ):
        cut = truncate_prompt(whole, longest, start)
        assert cut is not None
        assert cut.prompt.tolist() == expected
        assert cut.max_sequence_length == longest
        assert cut.completions == whole.completions
    assert truncate_prompt(whole, 1, None) is None
