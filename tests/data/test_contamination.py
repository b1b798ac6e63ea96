"""Test questions in training data: found with a word changed, and not where only a pattern is."""

from zephyr.data.contamination import MAX_QUESTIONS_PER_NGRAM, EvalQuestionIndex
from zephyr.data.quiz_format import quiz_to_chat
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record

PROBLEM = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
    " How many clips did Natalia sell altogether in April and May?"
)
OTHER = PROBLEM.replace("48", "36").replace("half", "twice").replace("Natalia", "Weng")


def make_chat(question: str, answer: str = "So.") -> Chat:
    return Chat("s", (Message("user", question), Message("assistant", answer)))


def matched_tasks(index: EvalQuestionIndex, *records: Record) -> list[str | None]:
    return [match.task if match else None for match in index.find_matches(records)]


def test_a_question_is_found_wherever_it_stands() -> None:
    index = EvalQuestionIndex([("gsm8k", make_chat(PROBLEM))], 8)
    pair = Pair("s", (Message("user", "Solve it."),), "No.", f"The text: {PROBLEM}")
    inside = make_chat("Make a problem.", f"Here is one.\n\n{PROBLEM.upper()}\nGood luck!")
    assert matched_tasks(index, make_chat(PROBLEM), inside, pair, make_chat("What is a clip?")) == [
        "gsm8k"
    ] * 3 + [None]
    [match] = index.find_matches([inside])
    assert match is not None
    assert (match.question, match.coverage) == (PROBLEM, 1.0)


def test_a_word_changed_does_not_hide_it_and_other_numbers_are_another_question() -> None:
    index = EvalQuestionIndex([("gsm8k", make_chat(PROBLEM))], 8)
    changed = PROBLEM.replace("then", "later")
    other = PROBLEM.replace("48", "36")
    assert matched_tasks(index, make_chat(changed), make_chat(other), make_chat(OTHER)) == [
        "gsm8k",
        None,
        None,
    ]
    [match] = index.find_matches([make_chat(changed)])
    assert match is not None
    assert match.coverage == round(30 / 31, 4)


def test_the_coverage_by_hand() -> None:
    """Of 20 words, the 19 last stand in the record: 0.95 is enough, and 18 are not."""
    words = [f"{chr(97 + n)}x" for n in range(20)]
    index = EvalQuestionIndex([("t", make_chat(" ".join(words)))], 3)
    [found] = index.find_matches([make_chat(" ".join(words[1:]))])
    assert found is not None
    assert found.coverage == 0.95
    assert index.find_matches([make_chat(" ".join(words[2:]))]) == [None]


def test_a_single_letter_tells_two_questions_apart() -> None:
    words = " ".join(f"{chr(97 + n)}x" for n in range(25))
    index = EvalQuestionIndex([("t", make_chat(f"{words} find b of {words}"))], 8)
    assert matched_tasks(
        index, make_chat(f"{words} find b of {words}"), make_chat(f"{words} find d of {words}")
    ) == [
        "t",
        None,
    ]


def test_letters_of_options_make_no_difference() -> None:
    quiz = Choice("mmlu", "Which planet is the largest?", ("Venus", "Jupiter", "Mars", "Pluto"), 1)
    index = EvalQuestionIndex([("mmlu", quiz)], 8)
    quiz_text = "Which planet is the largest?\nA) Venus\nB) Jupiter\nC) Mars\nD) Pluto"
    assert matched_tasks(index, make_chat(quiz_text)) == ["mmlu"]
    assert matched_tasks(index, Choice("s", quiz.text, quiz.choices, 1)) == ["mmlu"]
    assert matched_tasks(index, make_chat("Which planet is the largest? I think Saturn.")) == [None]


def test_a_text_shorter_than_an_ngram_must_be_the_whole() -> None:
    index = EvalQuestionIndex([("t", make_chat("Compute 7 + 5."))], 8)
    assert matched_tasks(index, make_chat("compute 7+5"), make_chat("Compute 7 + 5 + 1.")) == [
        "t",
        None,
    ]
    assert matched_tasks(EvalQuestionIndex([("t", make_chat("?"))], 8), make_chat("!")) == [None]


def test_what_many_questions_share_is_a_phrase() -> None:
    """It tells nothing by itself, and a question that begins with it is found all the same."""
    phrase = "which of the following statements about this thing is most likely to be true of"
    questions = [
        ("t", make_chat(f"{phrase} the {'x' * n} and the {'y' * n}"))
        for n in range(2, MAX_QUESTIONS_PER_NGRAM + 3)
    ]
    index = EvalQuestionIndex(questions, 8)
    assert matched_tasks(index, make_chat(phrase), make_chat(f"{phrase} the moon and the sun")) == [
        None,
        None,
    ]
    assert matched_tasks(index, *(record for _, record in questions)) == ["t"] * (
        MAX_QUESTIONS_PER_NGRAM + 1
    )


def test_paragraphs_of_a_text_are_looked_for_one_by_one() -> None:
    text = Passage(
        "w", f"= Title =\n\n{PROBLEM}\n \nAnother line of eight words stands here below."
    )
    assert matched_tasks(EvalQuestionIndex([("wikitext2", text)], 8), Passage("s", PROBLEM)) == [
        "wikitext2"
    ]


def test_the_task_of_the_greatest_coverage_is_named_and_nothing_is_found_in_nothing() -> None:
    half = PROBLEM[:96]
    index = EvalQuestionIndex([("a", make_chat(PROBLEM)), ("b", make_chat(half))], 8)
    assert matched_tasks(index, make_chat(half), make_chat(PROBLEM)) == ["b", "a"]
    assert index.find_matches([]) == []
    assert EvalQuestionIndex([], 8).find_matches([make_chat(PROBLEM)]) == [None]


SHORT = Choice("mmlu", "Which planet is the largest of all?", ("Venus", "Jupiter", "Mars"), 1)


def test_questions_in_the_form_of_fine_tuning_are_found() -> None:
    """However many words a question has, the quiz that is made of it holds it."""
    options = ("heat", "work", "power")
    for count in range(1, 20):
        quiz = Choice("t", " ".join(f"{chr(97 + n)}x" for n in range(count)), options, 1)
        assert matched_tasks(EvalQuestionIndex([("t", quiz)], 8), quiz_to_chat(quiz)) == ["t"], (
            count
        )


def test_a_short_question_is_found_with_its_right_answer_alone() -> None:
    index = EvalQuestionIndex([("mmlu", SHORT)], 8)
    assert matched_tasks(
        index, make_chat(SHORT.text, "It is Jupiter."), make_chat(SHORT.text, "It is Mars.")
    ) == [
        "mmlu",
        None,
    ]
    inline = f"{SHORT.text} (A) Venus (B) Jupiter (C) Mars"
    assert matched_tasks(index, make_chat(inline, "(B)")) == ["mmlu"]


def test_a_question_that_is_asked_many_times_is_one() -> None:
    index = EvalQuestionIndex(
        [(f"t{n}", make_chat(PROBLEM)) for n in range(3 * MAX_QUESTIONS_PER_NGRAM)], 8
    )
    assert matched_tasks(index, make_chat(PROBLEM)) == ["t0"]


def test_not_and_operators_tell_questions_apart() -> None:
    words = " ".join(f"{chr(97 + n)}x" for n in range(25))
    for one, other in (("always", "never"), ("×", "÷"), ("≤", "≥")):
        index = EvalQuestionIndex([("t", make_chat(f"{words} {one} {words}"))], 8)
        assert matched_tasks(
            index, make_chat(f"{words} {one} {words}"), make_chat(f"{words} {other} {words}")
        ) == [
            "t",
            None,
        ]


def test_texts_without_blanks_are_found() -> None:
    question = "小明有三个苹果，又买了五个苹果，他一共有多少个苹果？"
    index = EvalQuestionIndex([("t", make_chat(question))], 8)
    assert matched_tasks(
        index, make_chat(f"请回答：{question}"), make_chat("小明有三个苹果。")
    ) == ["t", None]
