"""Multiple choice by log-likelihood: each option is a completion, the most likely one is chosen.

Protocol of EleutherAI's lm-evaluation-harness (`hellaswag`, `arc_*`, `mmlu`): an option is scored
by the summed log-probability of its tokens (`acc`), or by that sum over the option's length in
characters (`acc_norm`); the first of equal scores is chosen.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from zephyr.data.readers.answer_key import LETTERS
from zephyr.evaluate.few_shot import FewShotPool, render_examples, shots_label
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, TaskOutput, make_item
from zephyr.model.example import Example, make_example
from zephyr.records import Choice, Message


@dataclass(frozen=True)
class PromptFormat:
    """Prompt format of multiple choice: renders the question, its options, and the preamble."""

    render_question: Callable[[Choice], str]
    list_options: Callable[[Choice], tuple[str, ...]]
    render_preamble: Callable[[Choice], str] = lambda record: ""


def _render_lettered(record: Choice) -> str:
    lines = zip(LETTERS, record.choices, strict=False)
    return "\n".join(
        [record.text.strip(), *(f"{letter}. {text}" for letter, text in lines), "Answer:"]
    )


def _render_subject_preamble(record: Choice) -> str:
    subject = f" about {record.subject.replace('_', ' ')}" if record.subject else ""
    return f"The following are multiple choice questions (with answers){subject}.\n\n"


ENDING_FORMAT = PromptFormat(lambda record: record.text, lambda record: record.choices)
FULL_ANSWER_FORMAT = PromptFormat(
    lambda record: f"Question: {record.text}\nAnswer:", lambda record: record.choices
)
LETTER_FORMAT = PromptFormat(
    _render_lettered, lambda record: LETTERS[: len(record.choices)], _render_subject_preamble
)


def evaluate_endings(
    model: EvalModel, records: Sequence[Choice], settings: EvalSettings
) -> TaskOutput:
    """HellaSwag: the text as it stands, and each ending after a space."""
    return _rank_options(model, records, settings, ENDING_FORMAT)


def evaluate_full_answers(
    model: EvalModel, records: Sequence[Choice], settings: EvalSettings
) -> TaskOutput:
    """Multiple choice as lm-eval asks ARC: the options are not listed, each is a full answer."""
    return _rank_options(model, records, settings, FULL_ANSWER_FORMAT)


def evaluate_letters(
    model: EvalModel, records: Sequence[Choice], settings: EvalSettings
) -> TaskOutput:
    """Multiple choice as lm-eval asks MMLU: the options are listed, and their letters weighed."""
    return _rank_options(model, records, settings, LETTER_FORMAT)


class OptionTokens(NamedTuple):
    """Token ids of one option (the completion) and of the prompt before it."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    is_truncated: bool


class _Question(NamedTuple):
    record: Choice
    text: str
    options: list[OptionTokens]


def _rank_options(
    model: EvalModel, records: Sequence[Choice], settings: EvalSettings, prompt_format: PromptFormat
) -> TaskOutput:
    pool = FewShotPool(settings)
    texts = []
    for record in records:
        few_shot_text = render_examples(
            pool.select_examples(record),
            prompt_format.render_question,
            lambda r: prompt_format.list_options(r)[r.answer],
        )
        texts.append(
            prompt_format.render_preamble(record)
            + few_shot_text
            + prompt_format.render_question(record)
        )
    encode_options = _encode_chats if settings.task.chat else _encode_texts
    options = encode_options(
        model, texts, [prompt_format.list_options(record) for record in records]
    )
    questions, counts = _drop_unscorable(model, records, texts, options)
    examples: list[Example] = []
    completion_indices: list[list[tuple[int, int]]] = []
    for question in questions:
        new_examples, question_indices = merge_same_prompts(
            question.options, first_index=len(examples)
        )
        examples += new_examples
        completion_indices.append(question_indices)
    answers = model.logprobs(examples)
    items = [
        _score_question(
            question,
            prompt_format.list_options(question.record),
            [answers[f][c].tolist() for f, c in where],
        )
        for question, where in zip(questions, completion_indices, strict=True)
    ]
    counts["cut"] = sum(any(option.is_truncated for option in q.options) for q in questions)
    protocol = (shots_label(settings), "chat") if settings.task.chat else (shots_label(settings),)
    return TaskOutput(items, {k: v for k, v in counts.items() if v}, protocol, {})


_OptionEncodings = list[list[OptionTokens]]
"""The tokens of each option of every question; a question that has no room has no prompt."""


def _encode_texts(
    model: EvalModel, texts: Sequence[str], options: Sequence[tuple[str, ...]]
) -> _OptionEncodings:
    """Encodes prompts and options by lm-eval's rule: the option is what the whole adds.

    An option's tokens are those of prompt and option together, without as many as the prompt alone
    has. Special tokens are the tokenizer's default, and trailing spaces of the prompt count to the
    option. If a token spans the border, the tokenization of the whole is used for the option.
    """
    prompt_tokens = tokenize_texts(model, [text.rstrip() for text in texts])
    pairs = zip(texts, options, strict=True)
    full_tokens = iter(
        tokenize_texts(model, [f"{text} {option}" for text, some in pairs for option in some])
    )
    return [
        [
            OptionTokens(
                tuple(tokens or [start_token_id(model)]),
                tuple(next(full_tokens)[len(tokens) :]),
                is_truncated=False,
            )
            for _ in some
        ]
        for tokens, some in zip(prompt_tokens, options, strict=True)
    ]


def _encode_chats(
    model: EvalModel, texts: Sequence[str], options: Sequence[tuple[str, ...]]
) -> _OptionEncodings:
    """Encodes each prompt as a user message, and each option as its answer (no EOS token).

    A question that is too long loses its beginning, and the template's text around it stays.
    """
    encodings = []
    for text, some in zip(texts, options, strict=True):
        answers = model.template.encode_answers(list(some))
        messages = [Message("user", text)]
        prompt = model.template.encode_prompt(messages)
        max_tokens = model.context_length + 1 - max(map(len, answers))
        is_truncated = len(prompt) > max_tokens
        if is_truncated:
            cut = model.template.cut_prompt(messages, max_tokens)
            prompt = prompt[:0] if cut is None else cut.ids
        encodings.append(
            [OptionTokens(tuple(prompt.tolist()), tuple(a.tolist()), is_truncated) for a in answers]
        )
    return encodings


def _drop_unscorable(
    model: EvalModel, records: Sequence[Choice], texts: Sequence[str], encoded: _OptionEncodings
) -> tuple[list[_Question], dict[str, int]]:
    """Drops the questions that can't be scored, and counts them by reason.

    Requests that are too long are truncated to the last `model.context_length` + 1 tokens: the last
    one is only predicted. lm-eval stops at an option without tokens (an unknown character) or
    longer than the context; here the question is excluded, since one option that can't be scored
    makes the others meaningless.
    """
    questions: list[_Question] = []
    drop_counts = dict.fromkeys(
        ("an option without tokens", "an option longer than the context", "no room for a question"),
        0,
    )
    for record, text, options in zip(records, texts, encoded, strict=True):
        if not all(option.completion for option in options):
            drop_counts["an option without tokens"] += 1
        elif max(len(option.completion) for option in options) > model.context_length:
            drop_counts["an option longer than the context"] += 1
        elif not all(option.prompt for option in options):
            drop_counts["no room for a question"] += 1
        else:
            fitting = [_truncate_left(option, model.context_length) for option in options]
            questions.append(_Question(record, text, fitting))
    return questions, drop_counts


def _truncate_left(option: OptionTokens, context_length: int) -> OptionTokens:
    """The option after the last tokens of its prompt, so that both fit the context."""
    max_prompt_tokens = context_length + 1 - len(option.completion)
    if len(option.prompt) <= max_prompt_tokens:
        return option
    return option._replace(prompt=option.prompt[-max_prompt_tokens:], is_truncated=True)


def tokenize_texts(model: EvalModel, texts: list[str]) -> list[list[int]]:
    """Tokenizes each text, with special tokens as the tokenizer adds them by default."""
    # with a max_length the tokenizer does not warn about texts that are truncated later
    encoded: list[list[int]] = model.tokenizer(texts, truncation=False, max_length=10**9)[
        "input_ids"
    ]
    return encoded


def start_token_id(model: EvalModel) -> int:
    """The token id of an empty context: BOS, else EOS."""
    start, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    return int(end if start is None else start)


def merge_same_prompts(
    options: Sequence[OptionTokens], first_index: int
) -> tuple[list[Example], list[tuple[int, int]]]:
    """Merges options into one example per distinct prompt; also (example, completion) indices.

    Options of the same tokens (they may differ in an unknown character) are scored once: otherwise
    rounding would choose among them.
    """
    prompt_indices: dict[tuple[int, ...], int] = {}
    completions_by_prompt: list[dict[tuple[int, ...], int]] = []
    completion_indices = []
    for option in options:
        prompt_index = prompt_indices.setdefault(option.prompt, len(prompt_indices))
        if prompt_index == len(completions_by_prompt):
            completions_by_prompt.append({})
        completion_index = completions_by_prompt[prompt_index].setdefault(
            option.completion, len(completions_by_prompt[prompt_index])
        )
        completion_indices.append((first_index + prompt_index, completion_index))
    return [
        make_example(prompt, *completions_by_prompt[number])
        for prompt, number in prompt_indices.items()
    ], completion_indices


def _score_question(
    question: _Question, option_texts: Sequence[str], logprobs: Iterable[Sequence[float]]
) -> Item:
    record, text, options = question
    summed_logprobs = np.array([sum(values) for values in logprobs])
    lengths = np.array([max(1, len(option)) for option in option_texts])
    chosen, chosen_norm = int(summed_logprobs.argmax()), int((summed_logprobs / lengths).argmax())
    scores = {
        "acc_norm": float(chosen_norm == record.answer),
        "acc": float(chosen == record.answer),
        "chance": 1 / len(record.choices),
    }
    if not np.isfinite(summed_logprobs).all():
        scores |= {"acc_norm": float("nan"), "acc": float("nan")}
    detail: dict[str, Any] = {
        "request": text,
        "choices": list(record.choices),
        "answer": record.answer,
        "chosen": chosen,
        "chosen_norm": chosen_norm,
        "logprobs": summed_logprobs.tolist(),
        "tokens": [len(option.completion) for option in options],
        "cut": any(option.is_truncated for option in options),
    }
    return make_item(record, scores, detail, record.subject)
