"""The course's quiz text: a question, its options under letters, and the place of the answer.

    Question: What is a joule?

    Options:
    A. A unit of energy
    B. A unit of force

    Answer:

Multiple choice enters fine-tuning in this form alone, whatever letters or numbers a source uses,
and is answered with a letter. What is written is read back as it was, unless an option holds a line
that looks like the start of the next: such a quiz can be learned from, but `line` refuses it.
"""

from collections.abc import Iterator

from zephyr.data.readers.choice import LETTERS, options
from zephyr.data.readers.values import Columns, Unreadable, text
from zephyr.errors import ZephyrError
from zephyr.records import Chat, Choice, Message, Record

_QUESTION, _OPTIONS, _ANSWER = "Question: ", "\n\nOptions:\n", "\n\nAnswer:"


def quiz_text(choice: Choice) -> str:
    """What is asked: all but the letter of the answer."""
    assert len(choice.choices) <= len(LETTERS), "readers refuse what has more"
    lettered = zip(LETTERS, choice.choices, strict=False)
    listed = "\n".join(f"{letter}. {option}" for letter, option in lettered)
    return f"{_QUESTION}{choice.text}{_OPTIONS}{listed}{_ANSWER}"


def as_chat(choice: Choice) -> Chat:
    """A conversation of one turn each: the quiz, and the letter of the answer alone."""
    turns = (Message("user", quiz_text(choice)), Message("assistant", LETTERS[choice.answer]))
    return Chat(choice.source, turns)


def parse_quiz(quiz: str, letter: str) -> tuple[str, tuple[str, ...], int]:
    """The question, the options, and the 0-based place of the answer.

    Raises:
        Unreadable: the text is not of this form, or the letter is none of its options'.
    """
    body = quiz.strip()
    question, marker, listed = body.removesuffix(_ANSWER).rpartition(f"{_OPTIONS}A. ")
    if not (body.startswith(_QUESTION) and body.endswith(_ANSWER) and marker):
        raise Unreadable("the question does not go 'Question: …', 'Options:', 'Answer:'")
    given = []
    for following in LETTERS[1:]:
        option, marker, rest = listed.partition(f"\n{following}. ")
        if not marker:
            break
        given.append(option)
        listed = rest
    found = options([*given, listed])
    if letter.strip() not in LETTERS[: len(found)]:
        raise Unreadable("the answer is none of the options")
    asked = text({"question": question.removeprefix(_QUESTION)}, "question")
    return asked, found, LETTERS.index(letter.strip())


def read(row: Columns, source: str) -> Iterator[Record]:
    """The course's lines: `question` holds the whole quiz, `answer` a letter."""
    asked, given, answer = parse_quiz(text(row, "question"), text(row, "answer"))
    yield Choice(source, asked, given, answer, text(row, "subject", empty=True))


def line(choice: Choice) -> dict[str, str]:
    """The columns that `read` reads.

    Raises:
        ZephyrError: it would be read back as another quiz.
    """
    quiz, letter = quiz_text(choice), LETTERS[choice.answer]
    try:
        same = parse_quiz(quiz, letter) == (choice.text, choice.choices, choice.answer)
    except Unreadable:
        same = False
    if not same:
        raise ZephyrError(
            "a quiz can't be written in the course's form: it would be read as another one",
            where=f"source {choice.source}",
            found=quiz,
            todo="leave it out, or write another form: no option may hold a line like 'B. …'",
        )
    return {"subject": choice.subject, "question": quiz, "answer": letter}
