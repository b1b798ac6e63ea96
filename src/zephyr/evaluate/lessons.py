"""Held-out lessons: how likely, and how alike in writing, are the answers of one's own course?

Asks the hold-out of a chat mixture, which the model was not trained on. The perplexity of the
reference answers is that of the loss that fine-tuning minimizes: of the tokens of all answers of a
conversation, end tokens included, prompts left out. The last answer is also generated, and compared
with its reference by ROUGE (Lin 2004). Perplexities are comparable between models that share a
tokenizer and a chat template.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr.evaluate.generation import check_conversations, generate_answers, sampling_label
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, make_item
from zephyr.evaluate.metrics import rouge
from zephyr.records import Chat

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 256


def evaluate_lessons(
    model: EvalModel, records: Sequence[Chat], settings: EvalSettings
) -> TaskOutput:
    """The log-probability of the answers of each conversation, and its last answer in writing.

    A conversation that does not fit into the context is left out and counted.

    Raises:
        ZephyrError: a conversation does not end with a question and its answer.
    """
    check_conversations(records)
    examples = [model.template.make_chat_example(record) for record in records]
    fitting = [
        (record, example)
        for record, example in zip(records, examples, strict=True)
        if example.max_sequence_length <= model.context_length
    ]
    logprobs = model.logprobs([example for _, example in fitting])
    chats = [record for record, _ in fitting]
    prompts = [model.template.encode_prompt(chat.messages[:-1]) for chat in chats]
    generations = generate_answers(model, chats, prompts, settings, MAX_NEW_TOKENS)
    items = [
        _score_lesson(model.tokenizer.decode(prompt.tolist()), chat, found.tolist(), generation)
        for chat, prompt, [found], generation in zip(
            chats, prompts, logprobs, generations, strict=True
        )
    ]
    counts = {
        "longer than the context": len(records) - len(chats),
        "no room for an answer": sum(generation is None for generation in generations),
    }
    return TaskOutput(
        items,
        {reason: count for reason, count in counts.items() if count},
        ("0-shot", "chat", *sampling_label(settings, MAX_NEW_TOKENS)),
        {},
    )


def _score_lesson(
    request: str, chat: Chat, logprobs: Sequence[float], generation: "Generation | None"
) -> Item:
    text = "" if generation is None else generation.text
    reference = chat.messages[-1].content
    alike = rouge(reference, text)
    scores = {
        "answer_perplexity": -sum(logprobs),
        "rouge1": alike.rouge1,
        "rougeL": alike.rougeL,
        "stopped": float(generation is not None and generation.is_complete),
        "length": float(0 if generation is None else len(generation.ids)),
    }
    detail = {
        "request": request,
        "reference": reference,
        "output": text,
        "ended": "no room" if generation is None else generation.finish_reason,
    }
    return make_item(chat, scores, detail) | {"weight": {"answer_perplexity": len(logprobs)}}
