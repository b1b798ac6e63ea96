"""Rows that Zephyr makes itself, for every source it knows, in that source's own columns.

They stand in for the real data where there is no network: the same readers read them. All are
drawn by seeds of their own, so that they are the same on every machine; training and test parts
are told apart by content (`splits`). What is taught is true, and the tests recompute it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

from zephyr.data.embedded import exams, lessons, preferences, primer
from zephyr.errors import unknown

VERSION = 2
"""Raised when any row changes: it enters the fingerprint of every mixture made of them."""

Maker = Callable[[Random, str], Any]


class _Part(NamedTuple):
    """A split of a source: which side its content is on, and how many rows it has."""

    side: str
    rows: int


class _Source(NamedTuple):
    """How a row is made (a list of rows for WikiText, one for each line), and the splits.

    `content` is what no two rows of a split have in common.
    """

    make: Maker
    parts: Mapping[str, _Part]
    content: Callable[[Any], str] = json.dumps


def _only_train(make: Maker, rows: int) -> _Source:
    return _Source(make, {"train": _Part("train", rows)})


_ARC = {
    "train": _Part("train", 80),
    "validation": _Part("validation", 25),
    "test": _Part("test", 60),
}
_SOURCES: dict[str, _Source] = {
    "khan_academy": _only_train(lessons.khan_academy, 1_250),
    "math_college": _only_train(lessons.math_college, 500),
    "arxiv_math": _only_train(lessons.arxiv_math, 1_400),
    "magicoder": _only_train(lessons.magicoder, 1_300),
    "goat": _only_train(lessons.goat, 4_000),
    "metamathqa": _only_train(lessons.metamathqa, 3_000),
    "code_assistant": _only_train(lessons.code_assistant, 1_500),
    "lima": _only_train(lessons.lima, 103),
    "open_platypus": _only_train(lessons.open_platypus, 1_300),
    "math_instruct": _only_train(lessons.math_instruct, 2_500),
    "wiki_qa": _only_train(lessons.wiki_qa, 400),
    "code_alpaca": _only_train(lessons.code_alpaca, 600),
    "epfl": _only_train(preferences.epfl, 180),
    "orca_dpo_pairs": _only_train(preferences.orca_dpo_pairs, 250),
    "truthy_dpo": _only_train(preferences.truthy_dpo, 120),
    "shp_askengineers": _only_train(preferences.shp_askengineers, 200),
    "shp_askphysics": _only_train(preferences.shp_askphysics, 150),
    "shp_askscience": _only_train(preferences.shp_askscience, 120),
    "shp_explainlikeimfive": _only_train(preferences.shp_explainlikeimfive, 160),
    "code_vulnerability": _only_train(preferences.code_vulnerability, 110),
    "py_dpo": _only_train(preferences.py_dpo, 150),
    "dpo_mix_zero_math_untoxic": _only_train(preferences.dpo_mix_zero_math_untoxic, 120),
    "h4rmony": _only_train(preferences.h4rmony, 250),
    "exp_dpo_3": _only_train(preferences.exp_dpo_3, 120),
    "arc_challenge": _Source(exams.arc_challenge, _ARC, exams.asked),
    "arc_easy": _Source(exams.arc_easy, _ARC, exams.asked),
    "mmlu": _Source(
        exams.mmlu,
        {
            "auxiliary_train": _Part("train", 500),
            "dev": _Part("dev", 20),
            "validation": _Part("validation", 60),
            "test": _Part("test", 200),
        },
        exams.asked,
    ),
    "hellaswag": _Source(
        exams.hellaswag,
        {"train": _Part("train", 500), "validation": _Part("validation", 250)},
        exams.asked,
    ),
    "gsm8k": _Source(lessons.gsm8k, {"train": _Part("train", 1_500), "test": _Part("test", 250)}),
    "gsm8k_socratic": _Source(
        lessons.gsm8k_socratic, {"train": _Part("train", 300), "test": _Part("test", 60)}
    ),
    "mathdial": _Source(lessons.mathdial, {"test": _Part("test", 60)}),
    "wikitext2": _Source(
        primer.wikitext,
        {
            "train": _Part("train", 1_000),
            "validation": _Part("validation", 150),
            "test": _Part("test", 250),
        },
    ),
    "primer": _only_train(primer.primer, 40_000),
}


SAME = {"wiki_qa_all": "wiki_qa"}
"""Sources that are other readings of the rows of one."""


def rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a source, no two of one content.

    Raises:
        ZephyrError: the source has no such split.
    """
    name = SAME.get(name, name)
    source = _SOURCES[name]
    if split not in source.parts:
        raise unknown("split", split, source.parts, where=f"source {name}")
    side, wanted = source.parts[split]
    seen: set[str] = set()
    number = 0
    while len(seen) < wanted:
        made = source.make(Random(f"{name}/{split}/{number}"), side)
        number += 1
        assert number < 100 * wanted, f"{name} has no {wanted} different rows"
        content = source.content(made)
        if content not in seen:
            seen.add(content)
            yield from made if isinstance(made, list) else (made,)
