"""Writing: the model answers in its own words, and the answer is compared with a reference.

Greedy, so that the same model writes the same answer; LLaMA-Factory, whose metrics these are,
samples at temperature 0.95 by default, and its figures move from run to run.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zephyr.errors import ZephyrError
from zephyr.evaluate.asking import Asked, Item, Model, Settings, item
from zephyr.evaluate.metrics import bleu4, last_number, marked_number, rouge
from zephyr.model.fork import Ids
from zephyr.records import Chat

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 256
NO_NUMBER = "no reference answer holds a number"


def ask_problems(model: Model, records: Sequence[Chat], settings: Settings) -> Asked:
    """Each conversation up to its last answer, which is the reference.

    A prompt that leaves no room for a token of answer gets an empty one, and is counted.
    """
    for record in records:
        if [m.role for m in record.messages[-2:]] != ["user", "assistant"]:
            raise ZephyrError(
                "a conversation to be asked ends with a question and its answer",
                where=record.source,
                found=", ".join(m.role for m in record.messages),
            )
    most = settings.task.max_new_tokens or MAX_NEW_TOKENS
    prompts = [model.template.prompt(record.messages[:-1]) for record in records]
    fitting = [at for at, prompt in enumerate(prompts) if len(prompt) < model.context]
    written = model.generate([prompts[at] for at in fitting], max_new_tokens=most)
    answers = dict(zip(fitting, written, strict=True))
    items = [
        _score(model, record, prompt, answers.get(at))
        for at, (record, prompt) in enumerate(zip(records, prompts, strict=True))
    ]
    counts = {
        "no room for an answer": len(records) - len(fitting),
        "reference without a number": sum("exact_match" not in i["scores"] for i in items),
    }
    return Asked(
        items,
        {reason: count for reason, count in counts.items() if count},
        ("0-shot", "chat", f"greedy, at most {most} tokens"),
        dict.fromkeys(("exact_match", "exact_match_flexible"), NO_NUMBER),
    )


def _score(model: Model, record: Chat, prompt: Ids, answer: "Generation | None") -> Item:
    text = "" if answer is None else answer.text
    reference = record.messages[-1].content
    scores: dict[str, float] = {
        "bleu4": bleu4(reference, text),
        **rouge(reference, text)._asdict(),
        "stopped": float(answer is not None and answer.stopped),
        "length": float(0 if answer is None else len(answer.ids)),
    }
    expected = marked_number(reference)
    if expected is None:
        expected = last_number(reference)
    if expected is not None:
        scores["exact_match"] = float(marked_number(text) == expected)
        scores["exact_match_flexible"] = float(last_number(text) == expected)
    detail: dict[str, Any] = {
        "request": model.tokenizer.decode(prompt.tolist()),
        "reference": reference,
        "output": text,
        "ended": _ending(answer),
    }
    return item(record, scores, detail)


def _ending(answer: "Generation | None") -> str:
    if answer is None:
        return "no room"
    return answer.ended
