"""Generation tasks: the model generates an answer, which is compared with a reference.

Greedy unless the recipe sets a temperature, so that answers are reproducible. LLaMA-Factory, whose
metrics come first, samples at temperature 0.95, top-p 0.7 and top-k 50 by default, and its scores
vary from run to run.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zephyr.errors import ZephyrError
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, make_item
from zephyr.evaluate.metrics import (
    bleu4,
    flexible_match,
    google_rouge,
    rouge,
    sacrebleu,
    strict_match,
)
from zephyr.evaluate.numbers import last_number, number_after_mark
from zephyr.model.example import TokenIds
from zephyr.records import Chat, Record, content_hash

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 256
NO_REFERENCE_NUMBER = "no reference answer holds a number"
NO_ROUGE_LETTERS = "rouge-score reads a to z and digits, and no other script"
NO_SACREBLEU_WORDS = "tokenizer 13a splits at blanks, which this script does not have"


def generate_answers(
    model: EvalModel,
    records: Sequence[Record],
    prompts: Sequence[TokenIds],
    settings: EvalSettings,
    default_max_new_tokens: int,
) -> "list[Generation | None]":
    """Generates an answer to each prompt; None if the prompt fills the context.

    With `default_max_new_tokens`, unless the recipe sets `max_new_tokens`. The seed of a record
    depends on its content and the recipe's seed. The thought of a model that thinks is no part of
    its answer.
    """
    from zephyr.model.decoding import SamplingParams  # imports torch

    task = settings.task
    fitting_indices = [
        at for at, prompt in enumerate(prompts) if len(prompt) < model.context_length
    ]
    generations = model.generate(
        [prompts[at] for at in fitting_indices],
        max_new_tokens=task.max_new_tokens or default_max_new_tokens,
        sampling=SamplingParams(task.temperature, task.top_p),
        seeds=[int(content_hash(settings.seed, records[at].id)[:12], 16) for at in fitting_indices],
    )
    if model.template.thinking == "on":
        generations = [
            g._replace(text=model.template.decode_scored_answer(g.ids)) for g in generations
        ]
    generation_by_index = dict(zip(fitting_indices, generations, strict=True))
    return [generation_by_index.get(at) for at in range(len(prompts))]


def sampling_label(settings: EvalSettings, default_max_new_tokens: int) -> tuple[str, ...]:
    """The sampling params of the answers, as a part of the protocol."""
    task = settings.task
    method_label = (
        f"temperature {task.temperature:g}, top-p {task.top_p:g}" if task.temperature else "greedy"
    )
    return (f"{method_label}, at most {task.max_new_tokens or default_max_new_tokens} tokens",)


def evaluate_written_answers(
    model: EvalModel, records: Sequence[Chat], settings: EvalSettings
) -> TaskOutput:
    """Each conversation up to its last answer, which is the reference.

    A prompt that leaves no room for a token of answer gets an empty one, and is counted.

    `number_match` compares the last number, or that after `####`, by value, in references too.
    Thousands may be grouped by commas, blanks (also thin and no-break ones), apostrophes or LaTeX
    (`{,}`, `\\,`), and decimals may follow a comma: 1,234 is 1234, 1.234 is 1.234, 3,5 and 1.234,5
    are decimal. A minus may be a hyphen, U+2212 or an en dash; fractions are divided; currencies
    and % don't count (20% is 20). Not read are numbers in words and powers (`2^10`, `3 x 10^5`);
    two numbers with only a blank between them, the second of three digits (`3 100`), are one.
    `exact_match` and `exact_match_flexible` are lm-evaluation-harness's filters as they are.

    ROUGE of rouge-score and sacreBLEU have no value for a reference in a script that their
    tokenizers can't read: rouge-score drops all but a to z and digits, 13a splits at blanks.
    """
    check_conversations(records)
    prompts = [model.template.encode_prompt(record.messages[:-1]) for record in records]
    generations = generate_answers(model, records, prompts, settings, MAX_NEW_TOKENS)
    items = [
        _score_answer(model.tokenizer.decode(prompt.tolist()), record, answer)
        for record, prompt, answer in zip(records, prompts, generations, strict=True)
    ]
    counts = {
        "no room for an answer": sum(answer is None for answer in generations),
        "empty answer": sum(
            answer is not None and not answer.text.strip() for answer in generations
        ),
        "reference without a number": sum("exact_match" not in i["scores"] for i in items),
        "reference that sacreBLEU can't split": sum("sacrebleu" not in i["scores"] for i in items),
        "reference that rouge-score can't read": sum(
            "google_rouge1" not in i["scores"] for i in items
        ),
    }
    return TaskOutput(
        items,
        {reason: count for reason, count in counts.items() if count},
        ("0-shot", "chat", *sampling_label(settings, MAX_NEW_TOKENS)),
        dict.fromkeys(("exact_match", "exact_match_flexible", "number_match"), NO_REFERENCE_NUMBER)
        | dict.fromkeys(("google_rouge1", "google_rouge2", "google_rougeL"), NO_ROUGE_LETTERS)
        | {"sacrebleu": NO_SACREBLEU_WORDS},
    )


def check_conversations(records: Sequence[Chat]) -> None:
    """Checks that each conversation ends with a question and its answer.

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


def _score_answer(request: str, record: Chat, generation: "Generation | None") -> Item:
    answer_text = "" if generation is None else generation.text
    reference = record.messages[-1].content
    google_scores = google_rouge(reference, answer_text)
    sacrebleu_score = sacrebleu(reference, answer_text)
    scores: dict[str, float] = {
        "bleu4": bleu4(reference, answer_text),
        **rouge(reference, answer_text)._asdict(),
        "stopped": float(generation is not None and generation.is_complete),
        "length": float(0 if generation is None else len(generation.ids)),
    }
    if sacrebleu_score is not None:
        scores["sacrebleu"] = sacrebleu_score
    if google_scores is not None:
        scores |= {f"google_{name}": score for name, score in google_scores._asdict().items()}
    number_at_mark = number_after_mark(reference)
    expected_number = last_number(reference) if number_at_mark is None else number_at_mark
    if expected_number is not None:
        target = str(expected_number) if number_at_mark is None else reference
        scores |= {
            "exact_match": float(strict_match(target, answer_text)),
            "exact_match_flexible": float(flexible_match(target, answer_text)),
            "number_match": float(
                expected_number in (number_after_mark(answer_text), last_number(answer_text))
            ),
        }
    detail: dict[str, Any] = {
        "request": request,
        "reference": reference,
        "output": answer_text,
        "ended": "no room" if generation is None else generation.finish_reason,
    }
    return make_item(record, scores, detail)
