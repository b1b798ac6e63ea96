"""Test questions in training data: found with a word changed, and not where only a pattern is."""

from zephyr.data.contamination import MAX_QUESTIONS_PER_NGRAM, EvalQuestionIndex
from zephyr.data.quiz_format import quiz_to_chat
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record

PROBLEM = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
    " How many clips did Natalia sell altogether in April and May?"
)
OTHER = PROBLEM.replace("48", "36").replace("half", "twice").replace("Natalia", "Weng")


def chat(question: str, answer: str = "So.") -> Chat:
    return Chat("s", (Message("user", question), Message("assistant", answer)))


def tasks(exams: EvalQuestionIndex, *records: Record) -> list[str | None]:
    return [match.task if match else None for match in exams.find_matches(records)]


def test_a_question_is_found_wherever_it_stands() -> None:
    exams = EvalQuestionIndex([("gsm8k", chat(PROBLEM))], 8)
    pair = Pair("s", (Message("user", "Solve it."),), "No.", f"The text: {PROBLEM}")
    inside = chat("Make a problem.", f"Here is one.\n\n{PROBLEM.upper()}\nGood luck!")
    assert tasks(exams, chat(PROBLEM), inside, pair, chat("What is a clip?")) == ["gsm8k"] * 3 + [
        None
    ]
    [match] = exams.find_matches([inside])
    assert match is not None
    assert (match.question, match.coverage) == (PROBLEM, 1.0)


def test_a_word_changed_does_not_hide_it_and_other_numbers_are_another_question() -> None:
    exams = EvalQuestionIndex([("gsm8k", chat(PROBLEM))], 8)
    changed = PROBLEM.replace("then", "later")
    other = PROBLEM.replace("48", "36")
    assert tasks(exams, chat(changed), chat(other), chat(OTHER)) == ["gsm8k", None, None]
    [match] = exams.find_matches([chat(changed)])
    assert match is not None
    assert match.coverage == round(30 / 31, 4)


def test_the_share_by_hand() -> None:
    """Of 20 words, the 19 last stand in the record: 0.95 is enough, and 18 are not."""
    said = [f"{chr(97 + n)}x" for n in range(20)]
    exams = EvalQuestionIndex([("t", chat(" ".join(said)))], 3)
    [found] = exams.find_matches([chat(" ".join(said[1:]))])
    assert found is not None
    assert found.coverage == 0.95
    assert exams.find_matches([chat(" ".join(said[2:]))]) == [None]


def test_a_single_letter_tells_two_questions_apart() -> None:
    said = " ".join(f"{chr(97 + n)}x" for n in range(25))
    exams = EvalQuestionIndex([("t", chat(f"{said} find b of {said}"))], 8)
    assert tasks(exams, chat(f"{said} find b of {said}"), chat(f"{said} find d of {said}")) == [
        "t",
        None,
    ]


def test_letters_of_options_make_no_difference() -> None:
    exam = Choice("mmlu", "Which planet is the largest?", ("Venus", "Jupiter", "Mars", "Pluto"), 1)
    exams = EvalQuestionIndex([("mmlu", exam)], 8)
    asked = "Which planet is the largest?\nA) Venus\nB) Jupiter\nC) Mars\nD) Pluto"
    assert tasks(exams, chat(asked)) == ["mmlu"]
    assert tasks(exams, Choice("s", exam.text, exam.choices, 1)) == ["mmlu"]
    assert tasks(exams, chat("Which planet is the largest? I think Saturn.")) == [None]


def test_a_text_shorter_than_a_run_must_be_the_whole() -> None:
    exams = EvalQuestionIndex([("t", chat("Compute 7 + 5."))], 8)
    assert tasks(exams, chat("compute 7+5"), chat("Compute 7 + 5 + 1.")) == ["t", None]
    assert tasks(EvalQuestionIndex([("t", chat("?"))], 8), chat("!")) == [None]


def test_what_many_questions_share_is_a_phrase() -> None:
    """It tells nothing by itself, and a question that begins with it is found all the same."""
    phrase = "which of the following statements about this thing is most likely to be true of"
    asked = [
        ("t", chat(f"{phrase} the {'x' * n} and the {'y' * n}"))
        for n in range(2, MAX_QUESTIONS_PER_NGRAM + 3)
    ]
    exams = EvalQuestionIndex(asked, 8)
    assert tasks(exams, chat(phrase), chat(f"{phrase} the moon and the sun")) == [None, None]
    assert tasks(exams, *(record for _, record in asked)) == ["t"] * (MAX_QUESTIONS_PER_NGRAM + 1)


def test_paragraphs_of_a_text_are_looked_for_one_by_one() -> None:
    text = Passage(
        "w", f"= Title =\n\n{PROBLEM}\n \nAnother line of eight words stands here below."
    )
    assert tasks(EvalQuestionIndex([("wikitext2", text)], 8), Passage("s", PROBLEM)) == [
        "wikitext2"
    ]


def test_the_task_of_the_greatest_share_is_named_and_nothing_is_found_in_nothing() -> None:
    half = PROBLEM[:96]
    exams = EvalQuestionIndex([("a", chat(PROBLEM)), ("b", chat(half))], 8)
    assert tasks(exams, chat(half), chat(PROBLEM)) == ["b", "a"]
    assert exams.find_matches([]) == []
    assert EvalQuestionIndex([], 8).find_matches([chat(PROBLEM)]) == [None]


SHORT = Choice("mmlu", "Which planet is the largest of all?", ("Venus", "Jupiter", "Mars"), 1)


def test_questions_in_the_form_of_fine_tuning_are_found() -> None:
    """However many words a question has, the quiz that is made of it holds it."""
    options = ("heat", "work", "power")
    for count in range(1, 20):
        asked = Choice("t", " ".join(f"{chr(97 + n)}x" for n in range(count)), options, 1)
        assert tasks(EvalQuestionIndex([("t", asked)], 8), quiz_to_chat(asked)) == ["t"], count


def test_a_short_question_is_found_with_its_right_answer_alone() -> None:
    exams = EvalQuestionIndex([("mmlu", SHORT)], 8)
    assert tasks(exams, chat(SHORT.text, "It is Jupiter."), chat(SHORT.text, "It is Mars.")) == [
        "mmlu",
        None,
    ]
    inline = f"{SHORT.text} (A) Venus (B) Jupiter (C) Mars"
    assert tasks(exams, chat(inline, "(B)")) == ["mmlu"]


def test_a_question_that_is_asked_many_times_is_one() -> None:
    exams = EvalQuestionIndex(
        [(f"t{n}", chat(PROBLEM)) for n in range(3 * MAX_QUESTIONS_PER_NGRAM)], 8
    )
    assert tasks(exams, chat(PROBLEM)) == ["t0"]


def test_not_and_operators_tell_questions_apart() -> None:
    said = " ".join(f"{chr(97 + n)}x" for n in range(25))
    for one, other in (("always", "never"), ("×", "÷"), ("≤", "≥")):
        exams = EvalQuestionIndex([("t", chat(f"{said} {one} {said}"))], 8)
        assert tasks(exams, chat(f"{said} {one} {said}"), chat(f"{said} {other} {said}")) == [
            "t",
            None,
        ]


def test_texts_without_blanks_are_found() -> None:
    question = "小明有三个苹果，又买了五个苹果，他一共有多少个苹果？"
    exams = EvalQuestionIndex([("t", chat(question))], 8)
    assert tasks(exams, chat(f"请回答：{question}"), chat("小明有三个苹果。")) == ["t", None]
