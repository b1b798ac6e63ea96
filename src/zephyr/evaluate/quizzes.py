"""Quizzes that a model answers in writing, in the course's form, and the letter that it means.

The letter is, in this order: the whole answer, signs around it left out (`B`, `(b)`, `C.`); what
stands after "answer is" or "answer:", the last time (a small letter only where no word
follows, since "the answer is a force" names none); the letter that an answer begins with, if a
full stop, a bracket or a colon follows (`D) 12 joules`). An answer without one is wrong, and
counted.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr.data.course import as_chat, quiz_text
from zephyr.data.readers.choice import LETTERS
from zephyr.evaluate.asking import Asked, Item, Model, Settings, item
from zephyr.evaluate.shots import Pool, said
from zephyr.evaluate.writing import answers, written_how
from zephyr.records import Choice, Message

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 32

_WHOLE = re.compile(r"\W*([A-Za-z])\W*")
_TOLD = re.compile(r"""(?i:answer(?: is|:))\W*(?:([A-Z])\b|([a-z])(?=[.,;:)\]*"']|\s*(?:\n|$)))""")
_LEADS = re.compile(r"\s*\(?([A-Z])[.):]")


def ask_quizzes(model: Model, records: Sequence[Choice], settings: Settings) -> Asked:
    """Multiple choice in the course's form, answered in writing; the letter is read from the text.

    Worked examples are earlier turns of the conversation, answered with their letters alone.
    """
    pool = Pool(settings)
    prompts = []
    for record in records:
        turns = [turn for example in pool.of(record) for turn in as_chat(example).messages]
        prompts.append(model.template.prompt([*turns, Message("user", quiz_text(record))]))
    found = answers(model, records, prompts, settings, MAX_NEW_TOKENS)
    items = [
        _score(model.tokenizer.decode(prompt.tolist()), record, answer)
        for record, prompt, answer in zip(records, prompts, found, strict=True)
    ]
    counts = {
        "no room for an answer": sum(answer is None for answer in found),
        "no letter in the answer": sum(i["detail"]["chosen"] is None for i in items),
    }
    return Asked(
        items,
        {reason: count for reason, count in counts.items() if count},
        (said(settings), "chat", *written_how(settings, MAX_NEW_TOKENS)),
        {},
    )


def letter(text: str, options: int) -> int | None:
    """The place of the option that an answer means; None where it names none."""
    told = list(_TOLD.finditer(text))
    for found in (_WHOLE.fullmatch(text.strip()), told[-1] if told else None, _LEADS.match(text)):
        if found is not None and found[found.lastindex or 0].upper() in LETTERS[:options]:
            return LETTERS.index(found[found.lastindex or 0].upper())
    return None


def _score(request: str, record: Choice, answer: "Generation | None") -> Item:
    text = "" if answer is None else answer.text
    chosen = letter(text, len(record.choices))
    scores = {
        "acc": float(chosen == record.answer),
        "chance": 1 / len(record.choices),
        "named": float(chosen is not None),
        "stopped": float(answer is not None and answer.stopped),
    }
    detail = {
        "request": request,
        "choices": list(record.choices),
        "answer": record.answer,
        "chosen": chosen,
        "output": text,
        "ended": "no room" if answer is None else answer.ended,
    }
    return item(record, scores, detail, record.subject)
