"""Ranking: each option is a continuation of the question, and the likeliest is the answer.

Protocol of EleutherAI's lm-evaluation-harness (`hellaswag`, `arc_*`, `mmlu`): an option is scored
by the summed log-probability of its tokens (`acc`), or by that sum over the option's length in
characters (`acc_norm`), and of equal scores the first wins.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from zephyr.data.readers.choice import LETTERS
from zephyr.evaluate.asking import Asked, Item, Model, Settings, item
from zephyr.evaluate.shots import Pool, before, said
from zephyr.model.fork import Fork, fork
from zephyr.records import Choice, Message


@dataclass(frozen=True)
class Form:
    """How a question is put: its text, the options that are weighed, and what stands before all."""

    ask: Callable[[Choice], str]
    options: Callable[[Choice], tuple[str, ...]]
    opening: Callable[[Choice], str] = lambda record: ""


def _lettered(record: Choice) -> str:
    lines = zip(LETTERS, record.choices, strict=False)
    return "\n".join(
        [record.text.strip(), *(f"{letter}. {text}" for letter, text in lines), "Answer:"]
    )


def _about(record: Choice) -> str:
    subject = f" about {record.subject.replace('_', ' ')}" if record.subject else ""
    return f"The following are multiple choice questions (with answers){subject}.\n\n"


ENDINGS = Form(lambda record: record.text, lambda record: record.choices)
TEXTS = Form(lambda record: f"Question: {record.text}\nAnswer:", lambda record: record.choices)
LETTERED = Form(_lettered, lambda record: LETTERS[: len(record.choices)], _about)


def ask_endings(model: Model, records: Sequence[Choice], settings: Settings) -> Asked:
    """HellaSwag: the text as it stands, and each ending after a space."""
    return _rank(model, records, settings, ENDINGS)


def ask_questions(model: Model, records: Sequence[Choice], settings: Settings) -> Asked:
    """Multiple choice as lm-eval asks ARC: the options are not listed, each is a full answer."""
    return _rank(model, records, settings, TEXTS)


def ask_letters(model: Model, records: Sequence[Choice], settings: Settings) -> Asked:
    """Multiple choice as lm-eval asks MMLU: the options are listed, and their letters weighed."""
    return _rank(model, records, settings, LETTERED)


class Option(NamedTuple):
    """The tokens of one option and those before it, as they enter the model."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    cut: bool


class _Question(NamedTuple):
    record: Choice
    text: str
    options: list[Option]


def _rank(model: Model, records: Sequence[Choice], settings: Settings, form: Form) -> Asked:
    pool = Pool(settings)
    texts = []
    for record in records:
        shown = before(pool.of(record), form.ask, lambda r: form.options(r)[r.answer])
        texts.append(form.opening(record) + shown + form.ask(record))
    encode = _encode_chats if settings.task.chat else _encode_texts
    options = encode(model, texts, [form.options(record) for record in records])
    questions, counts = _fitting(model, records, texts, options)
    forks: list[Fork] = []
    places: list[list[tuple[int, int]]] = []
    for question in questions:
        made, where = share_prompts(question.options, first=len(forks))
        forks += made
        places.append(where)
    answers = model.logprobs(forks)
    items = [
        _score(question, form.options(question.record), [answers[f][c].tolist() for f, c in where])
        for question, where in zip(questions, places, strict=True)
    ]
    counts["cut"] = sum(any(option.cut for option in q.options) for q in questions)
    how = (said(settings), "chat") if settings.task.chat else (said(settings),)
    return Asked(items, {k: v for k, v in counts.items() if v}, how, {})


_Encoded = list[list[tuple[list[int], list[int]]]]
"""For every question, and each of its options: the tokens before it, and its own."""


def _encode_texts(
    model: Model, texts: Sequence[str], options: Sequence[tuple[str, ...]]
) -> _Encoded:
    """lm-eval's rule: an option's tokens are those of the whole beyond as many as the text has.

    Special tokens are as the tokenizer adds them by default, and blanks at the end of the text
    count to the option. Where the two do not meet at a token's edge, this keeps the whole's tokens
    for the option.
    """
    own = encode(model, [text.rstrip() for text in texts])
    pairs = zip(texts, options, strict=True)
    wholes = iter(encode(model, [f"{text} {option}" for text, some in pairs for option in some]))
    return [
        [(tokens or [start_token(model)], next(wholes)[len(tokens) :]) for _ in some]
        for tokens, some in zip(own, options, strict=True)
    ]


def _encode_chats(
    model: Model, texts: Sequence[str], options: Sequence[tuple[str, ...]]
) -> _Encoded:
    """The text is what the user says, and an option what the model answers, without its end."""
    return [
        [
            (prompt.tolist(), answer.tolist())
            for prompt in [model.template.prompt([Message("user", text)])]
            for answer in model.template.answers(list(some))
        ]
        for text, some in zip(texts, options, strict=True)
    ]


def _fitting(
    model: Model, records: Sequence[Choice], texts: Sequence[str], encoded: _Encoded
) -> tuple[list[_Question], dict[str, int]]:
    """The questions that can be asked, and how many are left out and why.

    Of what is too long the last `model.context` + 1 tokens are kept: the last one is predicted and
    never read. lm-eval stops at an option without tokens (a sign that the tokenizer does not know)
    or longer than the context; here the question is left out, since an option that can't be weighed
    makes the others meaningless.
    """
    questions: list[_Question] = []
    left_out = {"an option without tokens": 0, "an option longer than the context": 0}
    for record, text, pairs in zip(records, texts, encoded, strict=True):
        rests = [tuple(rest) for _, rest in pairs]
        if not all(rests):
            left_out["an option without tokens"] += 1
            continue
        if max(map(len, rests)) > model.context:
            left_out["an option longer than the context"] += 1
            continue
        options = []
        for prompt, rest in pairs:
            room = model.context + 1 - len(rest)
            options.append(Option(tuple(prompt[-room:]), tuple(rest), room < len(prompt)))
        questions.append(_Question(record, text, options))
    return questions, left_out


def encode(model: Model, texts: list[str]) -> list[list[int]]:
    """The tokens of each text, special tokens as the tokenizer adds them by default."""
    # a limit of length keeps the tokenizer from warning of texts that are cut only afterwards
    encoded: list[list[int]] = model.tokenizer(texts, truncation=False, max_length=10**9)[
        "input_ids"
    ]
    return encoded


def start_token(model: Model) -> int:
    """The token that stands for an empty context: the start token, else the end token."""
    start, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    return int(end if start is None else start)


def share_prompts(
    options: Sequence[Option], first: int
) -> tuple[list[Fork], list[tuple[int, int]]]:
    """One fork for each distinct prompt, and for each option its fork and place in it.

    Options of the same tokens (a tokenizer may not know the sign in which they differ) are asked
    once: asked apart, rounding would choose among them.
    """
    numbers: dict[tuple[int, ...], int] = {}
    branches: list[dict[tuple[int, ...], int]] = []
    places = []
    for option in options:
        number = numbers.setdefault(option.prompt, len(numbers))
        if number == len(branches):
            branches.append({})
        at = branches[number].setdefault(option.continuation, len(branches[number]))
        places.append((first + number, at))
    return [fork(prompt, *branches[number]) for prompt, number in numbers.items()], places


def _score(
    question: _Question, weighed: Sequence[str], logprobs: Iterable[Sequence[float]]
) -> Item:
    record, text, options = question
    sums = np.array([sum(values) for values in logprobs])
    lengths = np.array([max(1, len(option)) for option in weighed])
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
