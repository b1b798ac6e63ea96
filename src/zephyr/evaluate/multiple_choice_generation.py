"""Multiple choice by generation: the model writes an answer, and its letter is parsed.

The letter is, in this order: the whole answer without punctuation (`B`, `(b)`, `C.`); the letter
after the last "answer is" or "answer:" (lower case only if no word follows, since "the answer is
a force" names none); the first letter of the answer, if a full stop, a bracket or a colon follows
(`D) 12 joules`). An answer without a letter is wrong, and counted.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr.data.quiz_format import format_quiz, quiz_to_chat
from zephyr.data.readers.answer_key import LETTERS
from zephyr.evaluate.few_shot import FewShotPool, shots_label
from zephyr.evaluate.generation import generate_answers, sampling_label
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, make_item
from zephyr.records import Choice, Message

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 32

_LETTER_ONLY = re.compile(r"\W*([A-Za-z])\W*")
_ANSWER_PHRASE = re.compile(
    r"""(?i:answer(?: is|:))\W*(?:([A-Z])\b|([a-z])(?=[.,;:)\]*"']|\s*(?:\n|$)))"""
)
_LEADING_LETTER = re.compile(r"\s*\(?([A-Z])[.):]")


def evaluate_written_choices(
    model: EvalModel, records: Sequence[Choice], settings: EvalSettings
) -> TaskOutput:
    """Multiple choice in the course's form, answered in writing; the letter is read from the text.

    Worked examples are earlier turns of the conversation, answered with their letters alone.
    """
    pool = FewShotPool(settings)
    prompts = []
    for record in records:
        turns = [
            turn
            for example in pool.select_examples(record)
            for turn in quiz_to_chat(example).messages
        ]
        prompts.append(model.template.encode_prompt([*turns, Message("user", format_quiz(record))]))
    generations = generate_answers(model, records, prompts, settings, MAX_NEW_TOKENS)
    items = [
        _score_answer(model.tokenizer.decode(prompt.tolist()), record, answer)
        for record, prompt, answer in zip(records, prompts, generations, strict=True)
    ]
    counts = {
        "no room for an answer": sum(answer is None for answer in generations),
        "no letter in the answer": sum(i["detail"]["chosen"] is None for i in items),
    }
    return TaskOutput(
        items,
        {reason: count for reason, count in counts.items() if count},
        (shots_label(settings), "chat", *sampling_label(settings, MAX_NEW_TOKENS)),
        {},
    )


def parse_letter(text: str, option_count: int) -> int | None:
    """Parses the letter of an answer: the 0-based index of the option, or None."""
    answer_phrases = list(_ANSWER_PHRASE.finditer(text))
    for match in (
        _LETTER_ONLY.fullmatch(text.strip()),
        answer_phrases[-1] if answer_phrases else None,
        _LEADING_LETTER.match(text),
    ):
        if match is not None and match[match.lastindex or 0].upper() in LETTERS[:option_count]:
            return LETTERS.index(match[match.lastindex or 0].upper())
    return None


def _score_answer(request: str, record: Choice, generation: "Generation | None") -> Item:
    answer_text = "" if generation is None else generation.text
    chosen = parse_letter(answer_text, len(record.choices))
    scores = {
        "acc": float(chosen == record.answer),
        "chance": 1 / len(record.choices),
        "named": float(chosen is not None),
        "stopped": float(generation is not None and generation.is_complete),
    }
    detail = {
        "request": request,
        "choices": list(record.choices),
        "answer": record.answer,
        "chosen": chosen,
        "output": answer_text,
        "ended": "no room" if generation is None else generation.finish_reason,
    }
    return make_item(record, scores, detail, record.subject)
