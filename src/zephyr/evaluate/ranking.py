"""Ranking: each option is a continuation of the question, and the likeliest is the answer.

Protocol of EleutherAI's lm-evaluation-harness (`hellaswag` and `arc_*`, 0-shot, no chat template):
an option is scored by the summed log-probability of its tokens (`acc`), or by that sum over the
option's length in characters (`acc_norm`), and of equal scores the first wins.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from zephyr.evaluate.asking import Asked, Item, Model, Settings, item
from zephyr.model.fork import Fork, fork
from zephyr.records import Choice


def ask_endings(model: Model, records: Sequence[Choice], settings: Settings) -> Asked:
    """HellaSwag: the text as it stands, and each ending after a space."""
    return _rank(model, records, lambda record: record.text)


def ask_questions(model: Model, records: Sequence[Choice], settings: Settings) -> Asked:
    """Multiple choice as lm-eval asks ARC: the options are not listed, each is a full answer."""
    return _rank(model, records, lambda record: f"Question: {record.text}\nAnswer:")


class _Option(NamedTuple):
    """The tokens of one option and those before it, as they enter the model."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    cut: bool


class _Question(NamedTuple):
    record: Choice
    text: str
    options: list[_Option]


def _rank(model: Model, records: Sequence[Choice], context: Callable[[Choice], str]) -> Asked:
    questions, counts = _encode(model, records, [context(record) for record in records])
    forks: list[Fork] = []
    places: list[list[tuple[int, int]]] = []
    for question in questions:
        made, where = _share_prompts(question.options, first=len(forks))
        forks += made
        places.append(where)
    answers = model.logprobs(forks)
    items = [
        _score(question, [answers[f][c].tolist() for f, c in where])
        for question, where in zip(questions, places, strict=True)
    ]
    counts["cut"] = sum(any(option.cut for option in q.options) for q in questions)
    return Asked(items, {k: v for k, v in counts.items() if v}, ("0-shot",), {})


def _encode(
    model: Model, records: Sequence[Choice], contexts: Sequence[str]
) -> tuple[list[_Question], dict[str, int]]:
    """The tokens of every option of every question, and how many questions are left out and why.

    lm-eval's rule: the option's tokens are those of the whole text beyond as many as the context
    alone has, with special tokens as the tokenizer adds them by default, and blanks at the end of
    the context counted to the option. Where the two do not meet at a token's edge, this keeps the
    whole text's tokens for the option. Of what is too long the last `model.context` + 1 tokens are
    kept: the last one is predicted and never read.

    lm-eval stops at an option without tokens (a sign that the tokenizer does not know) or longer
    than the context; here the question is left out, since an option that can't be weighed makes
    the others meaningless.
    """
    before = _tokens(model, [text.rstrip() for text in contexts])
    wholes = iter(
        _tokens(
            model,
            [
                f"{text} {choice}"
                for record, text in zip(records, contexts, strict=True)
                for choice in record.choices
            ],
        )
    )
    questions: list[_Question] = []
    left_out = {"an option without tokens": 0, "an option longer than the context": 0}
    for record, text, own in zip(records, contexts, before, strict=True):
        rests = [tuple(next(wholes)[len(own) :]) for _ in record.choices]
        if not all(rests):
            left_out["an option without tokens"] += 1
            continue
        if max(map(len, rests)) > model.context:
            left_out["an option longer than the context"] += 1
            continue
        prompt = tuple(own or [_start(model)])
        room = [model.context + 1 - len(rest) for rest in rests]
        options = [
            _Option(prompt[-r:], o, r < len(prompt)) for r, o in zip(room, rests, strict=True)
        ]
        questions.append(_Question(record, text, options))
    return questions, left_out


def _tokens(model: Model, texts: list[str]) -> list[list[int]]:
    # a limit of length keeps the tokenizer from warning of texts that are cut only afterwards
    encoded: list[list[int]] = model.tokenizer(texts, truncation=False, max_length=10**9)[
        "input_ids"
    ]
    return encoded


def _start(model: Model) -> int:
    """The token that stands for an empty context: the start token, else the end token."""
    start, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    return int(end if start is None else start)


def _share_prompts(
    options: Sequence[_Option], first: int
) -> tuple[list[Fork], list[tuple[int, int]]]:
    """One fork for each distinct prompt, and for each option its fork and place in it.

    Options of the same tokens (a tokenizer may not know the sign in which they differ) are asked
    once: asked apart, rounding would choose among them.
    """
    by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    places = []
    for option in options:
        branches = by_prompt.setdefault(option.prompt, [])
        if option.continuation not in branches:
            branches.append(option.continuation)
        at = branches.index(option.continuation)
        places.append((first + list(by_prompt).index(option.prompt), at))
    return [fork(prompt, *branches) for prompt, branches in by_prompt.items()], places


def _score(question: _Question, logprobs: Iterable[Sequence[float]]) -> Item:
    record, text, options = question
    sums = np.array([sum(values) for values in logprobs])
    lengths = np.array([max(1, len(choice)) for choice in record.choices])
    chosen, chosen_norm = int(sums.argmax()), int((sums / lengths).argmax())
    scores = {
        "acc_norm": float(chosen_norm == record.answer),
        "acc": float(chosen == record.answer),
        "chance": 1 / len(record.choices),
    }
    if not np.isfinite(sums).all():
        scores |= {"acc_norm": float("nan"), "acc": float("nan")}
    detail: dict[str, Any] = {
        "request": text,
        "choices": list(record.choices),
        "answer": record.answer,
        "chosen": chosen,
        "chosen_norm": chosen_norm,
        "logprobs": sums.tolist(),
        "tokens": [len(option.continuation) for option in options],
        "cut": any(option.cut for option in options),
    }
    return item(record, scores, detail, record.subject)
