"""Synthetic (embedded) data sets: generated rows for every source, in its own columns.

They replace the real data where there is no network: the same readers read them. All are sampled
with fixed seeds, so that they are the same on every machine; training and test splits differ in
content (`splits`). The facts are true, and the tests recompute them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

from zephyr.data.embedded import eval_rows, preference_rows, pretraining_text, sft_rows
from zephyr.errors import unknown_name_error

VERSION = 2
"""Increased when any row changes: it is part of the fingerprint of every mixture of them."""

RowMaker = Callable[[Random, str], Any]


class _SplitSpec(NamedTuple):
    """A split of a synthetic source: the side of its content, and its number of rows."""

    side: str
    rows: int


class _EmbeddedSource(NamedTuple):
    """A synthetic source: how a row is made (for WikiText a list, one for each line), its splits.

    `content_key` must be unique among the rows of a split.
    """

    make_row: RowMaker
    splits: Mapping[str, _SplitSpec]
    content_key: Callable[[Any], str] = json.dumps


def _train_only(make_row: RowMaker, rows: int) -> _EmbeddedSource:
    return _EmbeddedSource(make_row, {"train": _SplitSpec("train", rows)})


_ARC_SPLITS = {
    "train": _SplitSpec("train", 80),
    "validation": _SplitSpec("validation", 25),
    "test": _SplitSpec("test", 60),
}
_SOURCES: dict[str, _EmbeddedSource] = {
    "khan_academy": _train_only(sft_rows.khan_academy, 1_250),
    "math_college": _train_only(sft_rows.math_college, 500),
    "arxiv_math": _train_only(sft_rows.arxiv_math, 1_400),
    "magicoder": _train_only(sft_rows.magicoder, 1_300),
    "goat": _train_only(sft_rows.goat, 4_000),
    "metamathqa": _train_only(sft_rows.metamathqa, 3_000),
    "code_assistant": _train_only(sft_rows.code_assistant, 1_500),
    "lima": _train_only(sft_rows.lima, 103),
    "open_platypus": _train_only(sft_rows.open_platypus, 1_300),
    "math_instruct": _train_only(sft_rows.math_instruct, 2_500),
    "wiki_qa": _train_only(sft_rows.wiki_qa, 400),
    "code_alpaca": _train_only(sft_rows.code_alpaca, 600),
    "epfl": _train_only(preference_rows.epfl, 180),
    "orca_dpo_pairs": _train_only(preference_rows.orca_dpo_pairs, 250),
    "truthy_dpo": _train_only(preference_rows.truthy_dpo, 120),
    "shp_askengineers": _train_only(preference_rows.shp_askengineers, 200),
    "shp_askphysics": _train_only(preference_rows.shp_askphysics, 150),
    "shp_askscience": _train_only(preference_rows.shp_askscience, 120),
    "shp_explainlikeimfive": _train_only(preference_rows.shp_explainlikeimfive, 160),
    "code_vulnerability": _train_only(preference_rows.code_vulnerability, 110),
    "py_dpo": _train_only(preference_rows.py_dpo, 150),
    "dpo_mix_zero_math_untoxic": _train_only(preference_rows.dpo_mix_zero_math_untoxic, 120),
    "h4rmony": _train_only(preference_rows.h4rmony, 250),
    "exp_dpo_3": _train_only(preference_rows.exp_dpo_3, 120),
    "arc_challenge": _EmbeddedSource(eval_rows.arc_challenge, _ARC_SPLITS, eval_rows.row_question),
    "arc_easy": _EmbeddedSource(eval_rows.arc_easy, _ARC_SPLITS, eval_rows.row_question),
    "mmlu": _EmbeddedSource(
        eval_rows.mmlu,
        {
            "auxiliary_train": _SplitSpec("train", 500),
            "dev": _SplitSpec("dev", 20),
            "validation": _SplitSpec("validation", 60),
            "test": _SplitSpec("test", 200),
        },
        eval_rows.row_question,
    ),
    "hellaswag": _EmbeddedSource(
        eval_rows.hellaswag,
        {"train": _SplitSpec("train", 500), "validation": _SplitSpec("validation", 250)},
        eval_rows.row_question,
    ),
    "gsm8k": _EmbeddedSource(
        sft_rows.gsm8k, {"train": _SplitSpec("train", 1_500), "test": _SplitSpec("test", 250)}
    ),
    "gsm8k_socratic": _EmbeddedSource(
        sft_rows.gsm8k_socratic, {"train": _SplitSpec("train", 300), "test": _SplitSpec("test", 60)}
    ),
    "mathdial": _EmbeddedSource(sft_rows.mathdial, {"test": _SplitSpec("test", 60)}),
    "wikitext2": _EmbeddedSource(
        pretraining_text.wikitext,
        {
            "train": _SplitSpec("train", 1_000),
            "validation": _SplitSpec("validation", 150),
            "test": _SplitSpec("test", 250),
        },
    ),
    "primer": _train_only(pretraining_text.primer, 40_000),
}


SOURCE_ALIASES = {"wiki_qa_all": "wiki_qa"}
"""Sources that share the rows of another, and read them with their own reader."""


def make_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    """Generates the rows of a split of a synthetic source, without duplicates.

    Raises:
        ZephyrError: the source has no such split.
    """
    name = SOURCE_ALIASES.get(name, name)
    source = _SOURCES[name]
    if split not in source.splits:
        raise unknown_name_error("split", split, source.splits, where=f"source {name}")
    side, row_count = source.splits[split]
    seen_content: set[str] = set()
    number = 0
    while len(seen_content) < row_count:
        row = source.make_row(Random(f"{name}/{split}/{number}"), side)
        number += 1
        assert number < 100 * row_count, f"{name} has no {row_count} different rows"
        content = source.content_key(row)
        if content not in seen_content:
            seen_content.add(content)
            yield from row if isinstance(row, list) else (row,)
