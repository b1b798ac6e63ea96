"""Examples of a mixture: complete answers, prompts cut within their markers, all of it counted."""

import copy
from typing import Any

import pytest

from tests import tiny
from zephyr.data.mixture import RecordSplit
from zephyr.errors import ZephyrError
from zephyr.model.load import build_model
from zephyr.model.model import Model
from zephyr.model.template import ChatTemplate
from zephyr.recipe.training import Align, Tune
from zephyr.records import Chat, Message, Pair, Record
from zephyr.train.examples import build_examples
from zephyr.train.labels import check_labels

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
                "cut_messages": 0,
                "cut_tokens": 0,
                "tokens": lengths[0],
                "supervised_tokens": train[0].num_loss_tokens,
            },
            "b": {
                "examples": 1,
                "overlong": 1,
                "cut": 0,
                "cut_messages": 0,
                "cut_tokens": 0,
                "tokens": lengths[1],
                "supervised_tokens": train[1].num_loss_tokens,
            },
        },
    }


def test_a_question_loses_its_beginning_and_an_answer_nothing(model: Model) -> None:
    """What has no room even without its prompt is left out still."""
    train, holdout, summary, record_indices = build_examples(
        model.template, RECORDS, tune_spec(overlong="cut"), model.context_length
    )
    examples = model.template.make_examples(RECORDS.train)
    assert record_indices == [0, 1, 2]
    assert [f.max_sequence_length for f in (train[1], holdout[0])] == [40, 40]
    assert train[1].completions[0].ids.tolist() == examples[1].completions[0].ids.tolist()
    text = model.tokenizer.decode(train[1].prompt)
    assert text.startswith("Human:")
    assert text.endswith("word \nAssistant:")
    assert (summary["train"], summary["train_overlong"], summary["holdout"]) == (3, 1, 1)
    assert [summary["sources"][s]["cut"] for s in "ab"] == [2, 0]
    lost_tokens = len(examples[1].prompt) - len(train[1].prompt)
    assert summary["sources"]["a"]["cut_tokens"] == 2 * lost_tokens > 0
    assert summary["sources"]["a"]["cut_messages"] == 0


def test_a_cut_keeps_the_system_message_and_every_marker(model: Model) -> None:
    """Earlier turns of a pair go first, the oldest before the others, and are counted."""
    system, last = Message("system", "Never tell."), Message("user", "Why is the sky blue?")
    history = [
        turn
        for n in range(3)
        for turn in (Message("user", f"{n} " + "so " * 6), Message("assistant", "No."))
    ]
    decode = model.tokenizer.decode
    pair = Pair("p", (system, *history, last), "A.", "B.")
    lengths = [
        len(model.template.encode_prompt([system, *history[start:], last]))
        for start in (0, 2, 4, 6)
    ]
    for max_tokens, start in (
        (lengths[0], 0),
        (lengths[0] - 1, 2),
        (lengths[2], 4),
        (lengths[3], 6),
    ):
        cut = model.template.cut_prompt(pair.prompt, max_tokens)
        assert cut is not None
        kept = [system, *history[start:], last]
        assert cut.ids.tolist() == model.template.encode_prompt(kept).tolist()
        assert (cut.lost_messages, cut.lost_tokens) == (start, lengths[0] - len(cut.ids))
    cut = model.template.cut_prompt(pair.prompt, lengths[3] - 3)
    assert cut is not None
    assert len(cut.ids) == lengths[3] - 3
    assert decode(cut.ids).startswith("Never tell.\nHuman:")
    assert decode(cut.ids).endswith("blue?\nAssistant:")
    assert (cut.lost_messages, cut.lost_tokens) == (6, lengths[0] - len(cut.ids))
    empty = len(model.template.encode_prompt([system, Message("user", "")]))
    assert model.template.cut_prompt(pair.prompt, empty - 1) is None


def test_a_template_that_thinks_gives_an_example_for_each_answer() -> None:
    """Each is counted by itself, and belongs to its conversation's record."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<A>' }}"
        "{% if loop.last %}{{ '<think></think>' }}{% endif %}{{ m.content + eos_token }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<A>' + ('' if enable_thinking | default(true) else '<think></think>') }}{% endif %}"
    )
    template = ChatTemplate(tokenizer)
    turns = [(Message("user", f"Q{n}?"), Message("assistant", f"A{n}.")) for n in range(3)]
    chat = Chat("a", tuple(m for turn in turns for m in turn))
    records = RecordSplit([make_chat("b", "Why?"), chat], [])
    examples = build_examples(template, records, tune_spec(max_length=128), 128)
    assert examples.record_indices == [0, 1, 1, 1]
    learned = [tokenizer.decode(e.completions[0].ids) for e in examples.train]
    assert learned == [f"{text}<|endoftext|>" for text in ("So.", "A0.", "A1.", "A2.")]
    assert tokenizer.decode(examples.train[3].prompt).endswith("Q2?<A><think></think>")
    assert examples.summary["train"] == 4
    check_labels(examples.train, template, lambda n: records.train[examples.record_indices[n]])
    short = len(examples.train[2].prompt)
    cut = build_examples(template, records, tune_spec(max_length=short), 128)
    assert (cut.summary["train"], cut.summary["train_overlong"]) == (2, 2)
    assert cut.record_indices == [0, 1]


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
