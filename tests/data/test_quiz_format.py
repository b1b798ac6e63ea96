"""The course's quiz text: exactly this form, and read back as it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr.data import quiz_format
from zephyr.data.readers import chat
from zephyr.data.readers.answer_key import LETTERS
from zephyr.data.readers.parsing import UnreadableRowError
from zephyr.errors import ZephyrError
from zephyr.records import Chat, Choice, Message

FORCE_QUIZ = Choice("s", "What is a newton?\nChoose.", ("Energy", "Force\n(a push)"), 1, "physics")
FORCE_TEXT = (
    "Question: What is a newton?\nChoose.\n\nOptions:\nA. Energy\nB. Force\n(a push)\n\nAnswer:"
)


def test_a_quiz_is_written_with_letters_and_answered_with_one() -> None:
    assert quiz_format.format_quiz(FORCE_QUIZ) == FORCE_TEXT
    assert quiz_format.quiz_to_row(FORCE_QUIZ) == {
        "subject": "physics",
        "question": FORCE_TEXT,
        "answer": "B",
    }
    assert quiz_format.quiz_to_chat(FORCE_QUIZ) == Chat(
        "s", (Message("user", FORCE_TEXT), Message("assistant", "B"))
    )


def test_lines_are_read_as_choices_or_as_conversations() -> None:
    assert list(quiz_format.read_quiz_row(quiz_format.quiz_to_row(FORCE_QUIZ), "s")) == [FORCE_QUIZ]
    [record] = chat.question_answer_reader("question", "answer")(
        quiz_format.quiz_to_row(FORCE_QUIZ), "s"
    )
    assert record == quiz_format.quiz_to_chat(FORCE_QUIZ)


def test_blanks_around_a_quiz_and_its_letter_change_nothing() -> None:
    row = {"subject": None, "question": f"\n{FORCE_TEXT}  \n", "answer": " B\n"}
    assert list(quiz_format.read_quiz_row(row, "s")) == [
        Choice("s", FORCE_QUIZ.text, FORCE_QUIZ.choices, 1)
    ]


WRONG_FORM = "the question does not go 'Question: …', 'Options:', 'Answer:'"


@pytest.mark.parametrize(
    ("quiz", "expected"),
    [
        ("What is a newton?", WRONG_FORM),
        ("Question: Why?\n\nAnswer:", WRONG_FORM),
        (FORCE_TEXT.removesuffix("Answer:"), WRONG_FORM),
        (FORCE_TEXT.removeprefix("Question: "), WRONG_FORM),
        (FORCE_TEXT.replace("A. ", "A) "), WRONG_FORM),
        ("Question: Why?\n\nOptions:\nA. So\n\nAnswer:", "there are fewer than two options"),
        ("Question: Why?\n\nOptions:\nA. \nB. So\n\nAnswer:", "an option is not text, or empty"),
        ("Question:  \n\nOptions:\nA. a\nB. b\n\nAnswer:", "column 'question' is empty"),
    ],
)
def test_what_is_no_quiz_of_this_form(quiz: str, expected: str) -> None:
    with pytest.raises(UnreadableRowError) as caught:
        quiz_format.parse_quiz(quiz)
    assert str(caught.value) == expected


@pytest.mark.parametrize("key", ["b", "b)", "(B)", " B.", "Option B", 1])
def test_the_key_of_a_row_may_be_written_as_people_do(key: str | int) -> None:
    row = quiz_format.quiz_to_row(FORCE_QUIZ) | {"answer": key}
    assert list(quiz_format.read_quiz_row(row, "s")) == [FORCE_QUIZ]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("C", "the answer is none of the options"),
        ("2", "the answer is none of the options"),
        ("AB", "the answer names more than one option"),
        ("", "the answer is empty"),
        (None, "the answer is neither a letter nor a number"),
    ],
)
def test_a_key_that_names_no_option_or_several(key: str | None, reason: str) -> None:
    row = {**quiz_format.quiz_to_row(FORCE_QUIZ), "answer": key}
    with pytest.raises(UnreadableRowError, match=reason):
        list(quiz_format.read_quiz_row(row, "s"))


def test_all_letters_are_used_up() -> None:
    whole = Choice("s", "Which?", tuple(f"number {i}" for i in range(26)), 25)
    assert quiz_format.quiz_to_row(whole)["answer"] == "Z"
    assert list(quiz_format.read_quiz_row(quiz_format.quiz_to_row(whole), "s")) == [whole]
    assert "\nZ. number 25\n\nAnswer:" in quiz_format.format_quiz(whole)


MARKERS = [
    "\n",
    "A. ",
    "B. ",
    "C. ",
    "\n\n",
    "Options:",
    "Answer:",
    "Question: ",
    "x",
    " ",
    "\u2028",
]
TEXTS = st.one_of(
    st.text(min_size=1), st.lists(st.sampled_from(MARKERS), min_size=1, max_size=6).map("".join)
).filter(str.strip)


@st.composite
def quizzes(draw: st.DrawFn) -> Choice:
    options = draw(st.lists(TEXTS, min_size=2, max_size=5))
    answer = draw(st.integers(0, len(options) - 1))
    return Choice("s", draw(TEXTS), tuple(options), answer, draw(st.sampled_from(["", "law"])))


def looks_like_options(option: str) -> bool:
    """Whether a line in an option looks like the start of an option, or of all of them."""
    lines = option.split("\n")[1:]
    return any(line.startswith(f"{letter}. ") for line in lines for letter in LETTERS)


@given(quizzes())
def test_what_is_written_is_read_back_as_it_was(choice: Choice) -> None:
    """Whatever stands in the question, and in options all but lines that look like one of them."""
    try:
        row = quiz_format.quiz_to_row(choice)
    except ZephyrError:
        assert any(map(looks_like_options, choice.choices))
    else:
        assert list(quiz_format.read_quiz_row(row, "s")) == [choice]


@pytest.mark.parametrize(
    "options", [("a\nB. b", "c"), ("a", "b\nC. c"), ("a", "b\n\nOptions:\nA. c")]
)
def test_a_quiz_that_would_be_read_as_another_is_asked_and_not_written(
    options: tuple[str, str],
) -> None:
    twisted = Choice("exams", "Why?", options, 0)
    assert quiz_format.quiz_to_chat(twisted).messages[1] == Message("assistant", "A")
    with pytest.raises(ZephyrError) as caught:
        quiz_format.quiz_to_row(twisted)
    first, where, *_ = str(caught.value).splitlines()
    assert first == "a quiz can't be written in the course's form: it would be read as another one"
    assert where == "  where:   source exams"
