"""Writing: the model answers in its own words, and the answer is compared with a reference.

Greedy unless the recipe sets a temperature, so that the same model writes the same answer.
LLaMA-Factory, whose metrics stand first, samples at temperature 0.95, top-p 0.7 and top-k 50 by
default, and its figures move from run to run.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zephyr.errors import ZephyrError
from zephyr.evaluate.asking import Asked, Item, Model, Settings, item
from zephyr.evaluate.metrics import (
    bleu4,
    flexible_match,
    google_rouge,
    last_number,
    marked_number,
    rouge,
    sacrebleu,
    strict_match,
)
from zephyr.model.fork import Ids
from zephyr.records import Chat, Record, content_hash

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 256
NO_NUMBER = "no reference answer holds a number"


def answers(
    model: Model,
    records: Sequence[Record],
    prompts: Sequence[Ids],
    settings: Settings,
    most: int,
) -> "list[Generation | None]":
    """What a model writes after each prompt; None where there is no room for a token.

    At most `most` tokens, unless the recipe says otherwise. What is drawn for a record depends on
    its content and the recipe's seed.
    """
    from zephyr.model.decode import Sampling  # imports torch

    task = settings.task
    fitting = [at for at, prompt in enumerate(prompts) if len(prompt) < model.context]
    written = model.generate(
        [prompts[at] for at in fitting],
        max_new_tokens=task.max_new_tokens or most,
        sampling=Sampling(task.temperature, task.top_p),
        seeds=[int(content_hash(settings.seed, records[at].id)[:12], 16) for at in fitting],
    )
    by_place = dict(zip(fitting, written, strict=True))
    return [by_place.get(at) for at in range(len(prompts))]


def written_how(settings: Settings, most: int) -> tuple[str, ...]:
    """How answers are chosen, as a part of the protocol."""
    task = settings.task
    how = (
        f"temperature {task.temperature:g}, top-p {task.top_p:g}" if task.temperature else "greedy"
    )
    return (f"{how}, at most {task.max_new_tokens or most} tokens",)


def ask_problems(model: Model, records: Sequence[Chat], settings: Settings) -> Asked:
    """Each conversation up to its last answer, which is the reference.

    A prompt that leaves no room for a token of answer gets an empty one, and is counted.
    """
    check_questions(records)
    prompts = [model.template.prompt(record.messages[:-1]) for record in records]
    found = answers(model, records, prompts, settings, MAX_NEW_TOKENS)
    items = [
        _score(model.tokenizer.decode(prompt.tolist()), record, answer)
        for record, prompt, answer in zip(records, prompts, found, strict=True)
    ]
    counts = {
        "no room for an answer": sum(answer is None for answer in found),
        "empty answer": sum(answer is not None and not answer.text.strip() for answer in found),
        "reference without a number": sum("exact_match" not in i["scores"] for i in items),
    }
    return Asked(
        items,
        {reason: count for reason, count in counts.items() if count},
        ("0-shot", "chat", *written_how(settings, MAX_NEW_TOKENS)),
        dict.fromkeys(("exact_match", "exact_match_flexible", "number_match"), NO_NUMBER),
    )


def check_questions(records: Sequence[Chat]) -> None:
    """Refuses what can't be asked.

    Raises:
        ZephyrError: a conversation does not end with a question and its answer.
    """
    for record in records:
        if [m.role for m in record.messages[-2:]] != ["user", "assistant"]:
            raise ZephyrError(
                "a conversation to be asked ends with a question and its answer",
                where=record.source,
                found=", ".join(m.role for m in record.messages),
            )


def _score(request: str, record: Chat, answer: "Generation | None") -> Item:
    text = "" if answer is None else answer.text
    reference = record.messages[-1].content
    google = google_rouge(reference, text)
    scores: dict[str, float] = {
        "bleu4": bleu4(reference, text),
        **rouge(reference, text)._asdict(),
        "sacrebleu": sacrebleu(reference, text),
        "google_rouge1": google.rouge1,
        "google_rouge2": google.rouge2,
        "google_rougeL": google.rougeL,
        "stopped": float(answer is not None and answer.stopped),
        "length": float(0 if answer is None else len(answer.ids)),
    }
    marked = marked_number(reference)
    expected = last_number(reference) if marked is None else marked
    if expected is not None:
        target = str(expected) if marked is None else reference
        scores |= {
            "exact_match": float(strict_match(target, text)),
            "exact_match_flexible": float(flexible_match(target, text)),
            "number_match": float(expected in (marked_number(text), last_number(text))),
        }
    detail: dict[str, Any] = {
        "request": request,
        "reference": reference,
        "output": text,
        "ended": "no room" if answer is None else answer.ended,
    }
    return item(record, scores, detail)
