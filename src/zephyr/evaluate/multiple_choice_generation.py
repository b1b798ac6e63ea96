"""Multiple choice by generation: the model writes an answer, and its letter is parsed.

`parse_letter` finds the letter; an answer without one is wrong, and counted.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr.data.quiz_format import format_quiz, quiz_to_chat
from zephyr.evaluate.few_shot import FewShotPool, shots_label
from zephyr.evaluate.generation import generate_answers, sampling_label
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, make_item
from zephyr.evaluate.letters import parse_letter
from zephyr.records import Choice, Message

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 32


def evaluate_written_choices(
    model: EvalModel, records: Sequence[Choice], settings: EvalSettings
) -> TaskOutput:
    """Multiple choice in the course's form, answered in writing; the letter is read from the text.

    Worked examples are earlier turns of the conversation, answered with their letters alone.

    The letter of an answer is, in this order:

    1. the last one that is stated: in `\\boxed{B}`, after "the answer (option, choice) is" or
       "answer:", or before "is correct (right, the answer)";
    2. the one with which the answer begins, if it is the whole answer or line, or a full stop, a
       bracket, a colon, a comma, a dash or "because" follows: `B`, `(b)`, `Option B`, `A - honey`;
    3. the last one after words such as "I pick", "I think it's", "so";
    4. the only one that is named as `(B)` or "option B".

    Bold type, LaTeX and what a model thinks (`<think>`) don't count. A letter that is a word ("a
    force", "I think") is none, nor one that is denied ("not B", "B is wrong"). Two letters ("A or
    B", "A, C"), or one that no option has, are no answer. An option's text without its letter is
    not read, nor are phrases in other languages than English. Small letters count where no word
    follows them.
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
