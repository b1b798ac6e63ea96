"""Mixture sizes of the seed, from generated sources of the published sizes."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from zephyr.data import mixture
from zephyr.data.column_formats import ColumnFormat
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.mixture import BuiltMixture, build_mixture
from zephyr.data.rows import Header, RowNumbers, Rows, SourceRow
from zephyr.data.sources import OpenedSource
from zephyr.data.table import SOURCES
from zephyr.recipe.load import find_recipe, read_recipe

ROWS_OF_UNKNOWN_SIZE = 1_000
"""The seed took 1,000 rows of each source whose size is not known."""

RECIPE = read_recipe(find_recipe("paper"))


def _make_messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text} so"}]


ROW_MAKERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "lima": lambda text: {"conversations": [text, f"{text} so"]},
    "epfl": lambda text: {
        "question_complete": text,
        "preference": [{"A": f"{text} {n}", "B": f"no {n}", "overall": "A"} for n in range(17)],
    },
    "arc_challenge": lambda text: {
        "question": text,
        "choices": {"text": [f"{text} {n}" for n in range(4)], "label": ["1", "2", "3", "4"]},
        "answerKey": "3",
    },
    "mmlu": lambda text: {
        "question": text,
        "choices": [f"{text} {n}" for n in "abcd"],
        "answer": 0,
    },
    "dpo_mix_zero_math_untoxic": lambda text: {
        "chosen": _make_messages(text),
        "rejected": [*_make_messages(text)[:1], {"role": "assistant", "content": "no"}],
    },
}
ROW_MAKERS["arc_easy"] = ROW_MAKERS["arc_challenge"]
ROW_MAKERS["exp_dpo_3"] = ROW_MAKERS["dpo_mix_zero_math_untoxic"]


class NumberedRows(Rows):
    """Rows of a source in its own columns, made when they are taken, no two alike."""

    def __init__(self, name: str, columns: Collection[str], count: int) -> None:
        self._name = name
        self._columns = columns
        self._count = count

    def __len__(self) -> int:
        return self._count

    def header(self) -> Header:
        return Header(self._name, frozenset(self._columns))

    def take(self, numbers: RowNumbers, columns: Collection[str] | None = None) -> list[SourceRow]:
        return [SourceRow(f"{self._name} row {n}", self._row(f"{self._name} {n}")) for n in numbers]

    def _row(self, text: str) -> dict[str, Any]:
        if self._name in ROW_MAKERS:
            return ROW_MAKERS[self._name](text)
        texts: dict[str, Any] = {column: f"{text} {column}" for column in self._columns}
        return texts | ({"labels": 1} if "labels" in texts else {})


def build_recipe_mixture(name: str) -> BuiltMixture:
    """The mixture that is built by recipes/paper.yaml."""
    recipe = RECIPE.data[name]
    opened_sources = []
    for spec in recipe.sources:
        source = SOURCES[str(spec.name)]
        assert source.train_split is not None
        rows = NumberedRows(
            source.name, source.columns, source.splits[source.train_split] or ROWS_OF_UNKNOWN_SIZE
        )
        column_format = ColumnFormat(
            source.kind, source.columns, source.reader, has_many_records=source.has_many_records
        )
        opened_sources.append(OpenedSource(source.name, recipe.kind, rows, column_format, source))
    return build_mixture(recipe, opened_sources, seed=42, question_index=EvalQuestionIndex([], 8))


@pytest.mark.parametrize(
    ("name", "kept", "num_holdout"),
    [
        ("D_S", 102_030, 5_102),
        ("D_L-20k", 81_030, 4_052),
        pytest.param("D_L", 328_377, 16_419, marks=pytest.mark.soak),  # half a minute
        ("pairs", 12_500, 625),
        ("mcqa", 103_212, 0),
    ],
)
def test_mixtures_have_the_sizes_of_the_seed(
    name: str, kept: int, num_holdout: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hold-outs are 5 %, rounded up: 5,102 and 625 are what the seed's steps per epoch tell.

    No two of the rows are alike, so near-duplicates are not looked for: that takes most of the time
    of a draw, and the mixtures of this recipe would only count them.
    """
    monkeypatch.setattr(
        mixture, "find_near_duplicates", lambda records, remove: [[] for _ in records]
    )
    built = build_recipe_mixture(name)
    totals = built.manifest["totals"]
    assert (totals["kept"], totals["held_out"]) == (kept, num_holdout)
    assert len(built.split.train) + len(built.split.holdout) == len(built.lock_rows) == kept
    assert totals["seen"] == kept + totals["capped"]
