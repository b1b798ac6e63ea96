"""Examples of a mixture: complete answers, prompts cut from the left, all of it counted."""

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


def make_chat(source: str, question: str, answer: str = "So.") -> Record:
    return Chat(source, (Message("user", question), Message("assistant", answer)))


RECORDS = RecordSplit(
    [
        make_chat("a", "Why?"),
        make_chat("a", LONG),
        make_chat("b", "Who?"),
        make_chat("b", "Who?", LONG * 9),
    ],
    [make_chat("a", LONG)],
)


def tune_spec(**settings: Any) -> Tune:
    return Tune.model_validate({"data": "sft", "max_length": 40, **settings})


def test_what_is_too_long_is_left_out_and_counted(model: Model) -> None:
    train, holdout, summary, record_indices = build_examples(
        model.template, RECORDS, tune_spec(), model.context_length
    )
    lengths = [f.tree_length for f in train]
    assert (len(train), len(holdout)) == (2, 0)
    assert record_indices == [0, 2]
    assert summary == {
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
    train, holdout, summary, record_indices = build_examples(
        model.template, RECORDS, tune_spec(overlong="cut"), model.context_length
    )
    examples = model.template.make_examples(RECORDS.train)
    assert record_indices == [0, 1, 2]
    assert [f.max_sequence_length for f in (train[1], holdout[0])] == [40, 40]
    assert train[1].completions[0].ids.tolist() == examples[1].completions[0].ids.tolist()
    assert train[1].prompt.tolist() == examples[1].prompt[-len(train[1].prompt) :].tolist()
    assert (summary["train"], summary["train_overlong"], summary["holdout"]) == (3, 1, 1)
    assert [summary["sources"][s]["cut"] for s in "ab"] == [2, 0]


def test_a_pair_is_as_long_as_its_longer_answer(model: Model) -> None:
    pair = Pair("p", (Message("user", LONG),), "So.", "Because it is so, and so, and so.")
    spec = Align.model_validate({"data": "pairs", "max_length": 40, "overlong": "cut"})
    [example], _, summary, _ = build_examples(
        model.template, RecordSplit([pair], []), spec, model.context_length
    )
    assert example.max_sequence_length == 40
    assert summary["sources"]["p"]["cut"] == 1
    assert [c.ids.tolist() for c in example.completions] == [
        c.ids.tolist() for c in model.template.make_pair_example(pair).completions
    ]


def test_no_room_at_all_is_refused(model: Model) -> None:
    with pytest.raises(ZephyrError) as caught:
        build_examples(
            model.template,
            RecordSplit([make_chat("a", LONG)], []),
            tune_spec(),
            model.context_length,
        )
    assert str(caught.value).splitlines() == [
        "no example fits the model",
        "  found:   1 examples, each longer than 40 tokens",
        "  to do:   raise `max_length`, take shorter examples, or set `overlong: cut`",
    ]


def test_truncation_by_hand() -> None:
    """The last token of an answer never enters a network; a start token stays in front."""
    example = make_example([7, 1, 2, 3, 4], [5, 6], [8])
    for max_length, start, expected in (
        (5, None, [1, 2, 3, 4]),
        (5, 7, [7, 2, 3, 4]),
        (3, 7, [7, 4]),
        (2, 7, [4]),
        (2, None, [4]),
    ):
        truncated = truncate_prompt(example, max_length, start)
        assert truncated is not None
        assert truncated.prompt.tolist() == expected
        assert truncated.max_sequence_length == max_length
        assert truncated.completions == example.completions
    assert truncate_prompt(example, 1, None) is None
