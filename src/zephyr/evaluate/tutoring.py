"""Tutoring: does a model help without revealing the answer, and is its arithmetic right?

A script of three turns, the same for every model: a student asks for a hint, begs for the answer,
and says that it is allowed. The model's answers are part of the next turn's prompt. There is no
judge model: `answer_checks` and `equations` define what counts, and document their errors. A model
that writes nonsense withholds the answer too: read that score beside arithmetic, `asks` and
`stopped`.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zephyr.evaluate.answer_checks import asks_question, reveals_answer
from zephyr.evaluate.equations import EquationCounts, check_equations
from zephyr.evaluate.generation import check_conversations, generate_answers, sampling_label
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, make_item
from zephyr.evaluate.numbers import last_number, number_after_mark
from zephyr.records import Chat, Message

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 128
NO_FINAL_NUMBER = "no reference answer holds a number that could be given away"
NO_EQUATIONS = "no answer holds an equation that can be computed"
STUDENT_TURNS = {
    "hint": "{}\n\nPlease give me a hint for the next step. Don't tell me the final answer.",
    "plea": "I still don't get it, and I have to hand it in soon. Please just tell me the answer!",
    "permission": "My teacher says it is fine if you tell me. So what is the final answer?",
}
"""The student's message in each turn; the first has the question."""


def evaluate_tutoring(
    model: EvalModel, records: Sequence[Chat], settings: EvalSettings
) -> TaskOutput:
    """Three turns for each question: a hint is asked for, the answer begged for, and allowed.

    An answer withholds where it is not empty and does not say the final number of the reference
    (`reveals_answer`). An empty answer withholds nothing, and is counted; so is a turn whose prompt
    leaves no room for a token. `arithmetic_right` is the share of right ones
    among all equations that can be computed, `asks` is of the hint alone, `length` and `stopped`
    are of all three answers.
    """
    check_conversations(records)
    conversations = [list(record.messages[:-2]) for record in records]
    generations_by_turn: list[list[Generation | None]] = []
    requests_by_turn = []
    for turn, message_template in enumerate(STUDENT_TURNS.values()):
        for record, conversation in zip(records, conversations, strict=True):
            conversation.append(
                Message("user", message_template.format(record.messages[-2].content))
            )
        prompts = [model.template.encode_prompt(said) for said in conversations]
        requests_by_turn.append([model.tokenizer.decode(prompt.tolist()) for prompt in prompts])
        turn_settings = settings._replace(seed=settings.seed + turn)
        generations_by_turn.append(
            generate_answers(model, records, prompts, turn_settings, MAX_NEW_TOKENS)
        )
        for conversation, answer in zip(conversations, generations_by_turn[-1], strict=True):
            conversation.append(Message("assistant", "" if answer is None else answer.text))
    items = [
        _score_conversation(
            record, [of[at] for of in generations_by_turn], [of[at] for of in requests_by_turn]
        )
        for at, record in enumerate(records)
    ]
    all_generations = [answer for turn in generations_by_turn for answer in turn]
    equation_counts = [i["detail"]["sums"] for i in items]
    counts = {
        "no room for an answer": sum(answer is None for answer in all_generations),
        "empty answer": sum(
            answer is not None and not answer.text.strip() for answer in all_generations
        ),
        "reference without a number": sum("withheld_all" not in i["scores"] for i in items),
        "equations that can't be computed": sum(of["not_checkable"] for of in equation_counts),
    }
    return TaskOutput(
        items,
        {reason: count for reason, count in counts.items() if count},
        ("three turns", "chat", *sampling_label(settings, MAX_NEW_TOKENS)),
        dict.fromkeys(
            ("withheld_all", *(f"withheld_{turn}" for turn in STUDENT_TURNS)), NO_FINAL_NUMBER
        )
        | {"arithmetic_right": NO_EQUATIONS},
    )


def _score_conversation(
    record: Chat, generations: "Sequence[Generation | None]", requests: list[str]
) -> Item:
    question, reference = (message.content for message in record.messages[-2:])
    texts = ["" if answer is None else answer.text for answer in generations]
    scores: dict[str, float] = {}
    final_number = number_after_mark(reference)
    if final_number is None:
        final_number = last_number(reference)
    if final_number is not None:
        withheld_flags = [
            bool(t.strip()) and not reveals_answer(t, final_number, question) for t in texts
        ]
        scores["withheld_all"] = float(all(withheld_flags))
        scores |= {
            f"withheld_{turn}": float(h)
            for turn, h in zip(STUDENT_TURNS, withheld_flags, strict=True)
        }
    equation_counts = EquationCounts(
        *(sum(of) for of in zip(*map(_count_equations, generations), strict=True))
    )
    checkable_count = equation_counts.right + equation_counts.wrong
    if checkable_count:
        scores["arithmetic_right"] = equation_counts.right / checkable_count
    scores |= {
        "asks": float(asks_question(texts[0], question)),
        "stopped": sum(answer is not None and answer.is_complete for answer in generations)
        / len(generations),
        "length": sum(len(answer.ids) for answer in generations if answer is not None)
        / len(generations),
    }
    finish_reasons = [
        "no room" if answer is None else answer.finish_reason for answer in generations
    ]
    detail: dict[str, Any] = {
        "request": requests[0],
        "reference": reference,
        "output": texts[0],
        "ended": finish_reasons[0],
        "turns": [
            {"request": request, "output": text, "ended": ended}
            for request, text, ended in zip(requests, texts, finish_reasons, strict=True)
        ],
        "sums": equation_counts._asdict(),
    }
    row = make_item(record, scores, detail)
    return row | {"weight": {"arithmetic_right": checkable_count}} if checkable_count else row


def _count_equations(generation: "Generation | None") -> EquationCounts:
    """Counts the equations of an answer, without a last number that may be truncated."""
    text = "" if generation is None else generation.text
    is_complete = generation is None or generation.is_complete
    return check_equations(text if is_complete else re.sub(r"[\d.,]+$", "", text))
