"""Ladders of hints: what a model is asked at each step, and how many are kept."""

from collections.abc import Sequence

from zephyr.records import Message
from zephyr.tutor.hints import Ladder, LadderStore
from zephyr.tutor.settings import HintStep

STEPS = [HintStep(name=f"Step {n}", ask=f"Ask {n}.") for n in range(4)]


def always_fits(messages: Sequence[Message]) -> bool:
    return True


def message_texts(messages: Sequence[Message]) -> list[str]:
    assert [m.role for m in messages] == [
        ("user", "assistant")[n % 2] for n in range(len(messages))
    ]
    return [m.content for m in messages]


def test_each_step_knows_the_question_and_the_hints_before() -> None:
    ladder = Ladder("s", "M1", "What is 2 + 2?")
    assert message_texts(ladder.messages(STEPS, always_fits)) == ["What is 2 + 2?\n\nAsk 0."]
    ladder.hints += ["Count.", "Two fingers."]
    assert ladder.step == 2
    assert message_texts(ladder.messages(STEPS, always_fits)) == [
        "What is 2 + 2?\n\nAsk 0.",
        "Count.",
        "Ask 1.",
        "Two fingers.",
        "Ask 2.",
    ]


def test_the_oldest_hints_are_left_out_where_the_context_is_full() -> None:
    ladder = Ladder("s", "M1", "What?", hints=["H0", "H1", "H2"])
    texts = message_texts(ladder.messages(STEPS, lambda messages: len(messages) <= 5))
    assert texts == ["What?\n\nAsk 1.", "H1", "Ask 2.", "H2", "Ask 3."]
    texts = message_texts(ladder.messages(STEPS, lambda messages: len(messages) < 3))
    assert texts == ["What?\n\nAsk 3."]


def test_ladders_belong_to_sessions_and_the_least_used_is_forgotten() -> None:
    ladders = LadderStore(max_ladders=2)
    one, two, three = (Ladder(f"s{n}", "M1", "What?") for n in range(3))
    ladders.add(one)
    ladders.add(two)
    assert ladders.find(one.id, "s0") is one
    assert ladders.find(one.id, "s1") is None
    ladders.add(three)
    assert ladders.find(two.id, "s1") is None
    assert ladders.find(one.id, "s0") is one
    ladders.delete_session("s0")
    assert ladders.find(one.id, "s0") is None
    assert ladders.find(three.id, "s2") is three
