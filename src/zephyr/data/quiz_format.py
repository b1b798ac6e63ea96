"""Multiple-choice (quiz) prompt format: question, lettered options, and the letter of the answer.

    Question: What is a joule?

    Options:
    A. A unit of energy
    B. A unit of force

    Answer:

Multiple choice is fine-tuned in this format only, whatever letters or numbers a source uses, and is
answered with a letter. Parsing restores what was formatted, unless an option has a line that looks
like the start of the next: such a question can be trained on, but `quiz_to_row` refuses it.
"""

from zephyr.data.readers.answer_key import LETTERS
from zephyr.data.readers.choice import ParsedQuiz, QuizReader, check_options
from zephyr.data.readers.parsing import RowValues, UnreadableRowError, read_text
from zephyr.errors import ZephyrError
from zephyr.records import Chat, Choice, Message

_QUESTION, _OPTIONS, _ANSWER = "Question: ", "\n\nOptions:\n", "\n\nAnswer:"


def format_quiz(choice: Choice) -> str:
    """Formats a multiple-choice prompt: question and options, without the letter of the answer."""
    assert len(choice.choices) <= len(LETTERS), "readers refuse what has more"
    lettered_options = zip(LETTERS, choice.choices, strict=False)
    options_text = "\n".join(f"{letter}. {option}" for letter, option in lettered_options)
    return f"{_QUESTION}{choice.text}{_OPTIONS}{options_text}{_ANSWER}"


def quiz_to_chat(choice: Choice) -> Chat:
    """Converts a multiple-choice question to a chat: the prompt, and the answer's letter."""
    turns = (Message("user", format_quiz(choice)), Message("assistant", LETTERS[choice.answer]))
    return Chat(choice.source, turns)


def parse_quiz(quiz: str) -> tuple[str, tuple[str, ...]]:
    """Parses a multiple-choice prompt: the question and the options.

    Raises:
        UnreadableRowError: the text is not of this form.
    """
    body = quiz.strip()
    question, marker, options_text = body.removesuffix(_ANSWER).rpartition(f"{_OPTIONS}A. ")
    if not (body.startswith(_QUESTION) and body.endswith(_ANSWER) and marker):
        raise UnreadableRowError("the question does not go 'Question: …', 'Options:', 'Answer:'")
    parsed_options = []
    for letter_of_next in LETTERS[1:]:
        option, marker, rest = options_text.partition(f"\n{letter_of_next}. ")
        if not marker:
            break
        parsed_options.append(option)
        options_text = rest
    checked_options = check_options([*parsed_options, options_text])
    return read_text({"question": question.removeprefix(_QUESTION)}, "question"), checked_options


def _parse_quiz_row(row: RowValues) -> ParsedQuiz:
    question, options = parse_quiz(read_text(row, "question"))
    subject = read_text(row, "subject", allow_empty=True)
    return ParsedQuiz(question, options, row.get("answer"), subject)


read_quiz_row = QuizReader(_parse_quiz_row)
"""Reads a row of the course's file: `question` holds the multiple-choice prompt."""


def quiz_to_row(choice: Choice) -> dict[str, str]:
    """Converts a multiple-choice question to the columns that `read_quiz_row` reads.

    Raises:
        ZephyrError: it would be read back as another quiz.
    """
    quiz, letter = format_quiz(choice), LETTERS[choice.answer]
    try:
        is_round_trip = parse_quiz(quiz) == (choice.text, choice.choices)
    except UnreadableRowError:
        is_round_trip = False
    if not is_round_trip:
        raise ZephyrError(
            "a quiz can't be written in the course's form: it would be read as another one",
            where=f"source {choice.source}",
            found=quiz,
            todo="leave it out, or write another form: no option may hold a line like 'B. …'",
        )
    return {"subject": choice.subject, "question": quiz, "answer": letter}
