"""Training rows: drawn by a seed from public data, counted by one tokenization."""

import itertools
import random
import re
from typing import Any, NamedTuple

from bench.shared.datasets import read_rows

Row = dict[str, Any]
"""`prompt`: messages that end with the user; `completion` of a chat, or `chosen` and `rejected`."""

MAX_LENGTH = 2048
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Count(NamedTuple):
    """Tokens of rows: all, the supervised ones, and those of the chosen answers among them.

    The prompt of a pair counts once.
    """

    rows: int
    tokens: int
    supervised: int
    chosen: int


def chats() -> list[list[Row]]:
    """GSM8K's training rows, and Open-Platypus, as questions and answers."""

    def chat(question: str, answer: str) -> Row:
        prompt = [{"role": "user", "content": question.strip()}]
        return {"prompt": prompt, "completion": answer.strip()}

    return [
        [chat(row["question"], row["answer"]) for row in read_rows("gsm8k/train")],
        [
            chat(f"{row['instruction']}\n{row['input']}", row["output"])
            for row in read_rows("sft/open_platypus")
        ],
    ]


def pairs() -> list[list[Row]]:
    """hh-rlhf's pairs of two answers to one conversation."""
    rows = []
    for row in read_rows("preference/hh_rlhf_harmless_base_test"):
        prompt, _, chosen = row["chosen"].rpartition("\n\nAssistant:")
        same, _, rejected = row["rejected"].rpartition("\n\nAssistant:")
        turns = _turns(prompt)
        if same == prompt and turns and chosen.strip() and rejected.strip():
            rows.append({"prompt": turns, "chosen": chosen.strip(), "rejected": rejected.strip()})
    return [rows]


def draw(sources: list[list[Row]], count: int, tokenizer: Any, seed: int = 0) -> list[Row]:
    """`count` rows at random, as many of each source, none longer than `MAX_LENGTH` tokens."""
    random_numbers = random.Random(seed)
    drawn: list[Row] = []
    for source in sources:
        order = random_numbers.sample(source, len(source))
        fitting = (r for r in order if max(_lengths(r, tokenizer)) <= MAX_LENGTH)
        drawn += itertools.islice(fitting, count // len(sources))
    random_numbers.shuffle(drawn)
    return drawn


def count(rows: list[Row], tokenizer: Any) -> Count:
    """Tokens up to the end token of each answer; what a template writes after it is not counted."""
    lengths = [_lengths(row, tokenizer) for row in rows]
    prompts = sum(prompt for prompt, *_ in lengths)
    supervised = sum(whole - prompt for prompt, *wholes in lengths for whole in wholes)
    chosen = sum(first - prompt for prompt, first, *_ in lengths)
    return Count(len(rows), prompts + supervised, supervised, chosen)


def _lengths(row: Row, tokenizer: Any) -> list[int]:
    """Tokens of the prompt, and of the prompt with each of its answers."""
    prompt = tokenizer.apply_chat_template(
        row["prompt"], tokenize=False, add_generation_prompt=True
    )
    answers = [row[key] for key in ("completion", "chosen", "rejected") if key in row]
    texts = [prompt, *(f"{prompt}{answer}{tokenizer.eos_token}" for answer in answers)]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _turns(text: str) -> list[dict[str, str]]:
    """The messages of a conversation, or none where the speakers do not take turns."""
    _, *pieces = _TURN.split(text)
    turns = [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    expected = ["user", "assistant"] * (len(turns) // 2) + ["user"]
    is_valid = [t["role"] for t in turns] == expected and all(t["content"] for t in turns)
    return turns if is_valid else []
