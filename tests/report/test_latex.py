"""The table in LaTeX: rows of equal width, verdicts as signs, and no text that LaTeX would obey."""

import re
from collections.abc import Callable

import pytest

from tests.report.conftest import RecipeRuns, item_scores
from zephyr.report.latex import escape_latex, table_latex
from zephyr.report.results import read_results

MakeRuns = Callable[..., RecipeRuns]


@pytest.fixture
def table(make_runs: MakeRuns) -> str:
    """M1 is better than M0, M1-int8 worse than M1; M2 has no value."""
    runs = make_runs("quiz", {"name": "gsm8k", "label": "a_b"})
    runs.score("M0/quiz", item_scores(0, 10))
    runs.score("M1/quiz", item_scores(10, 0))
    runs.score("M1-int8/quiz", item_scores(2, 8))
    return table_latex(read_results(runs.store, "demo"))


def test_values_intervals_and_verdicts_stand_in_their_cells(table: str) -> None:
    lines = table.splitlines()
    at = lines.index(r"M1 & 100.0$^{+}$ & -- \\")
    assert lines[at + 1] == r"\footnotesize from M0 & \footnotesize {[69.2, 100.0]} &  \\"
    assert r"M0 & 0.0 & -- \\" in lines
    assert r"M1-int8 & 20.0$^{-}$ & -- \\" in lines
    assert r"M2 & -- & -- \\" in lines
    assert r"Model & acc \% $\uparrow$ &  \\" in lines
    assert r"quiz acc: quiz@1 $\cdot$ by hand $\cdot$ n=10\par" in lines


def test_every_row_is_as_wide_as_the_table(table: str) -> None:
    inside = table.split(r"\toprule")[1].split(r"\bottomrule", maxsplit=1)[0]
    rows = [line for line in inside.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2 + 2 * 4
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}
    assert r"\begin{tabular}{lrr}" in table
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}" in table


def test_no_name_is_read_as_a_command(table: str) -> None:
    assert r"\multicolumn{1}{c}{a\_b}" in table
    assert escape_latex(r"\input{x} & 5% $1 #2 ~^ −β") == (
        r"\textbackslash{}input\{x\} \& 5\% \$1 \#2 \textasciitilde{}\textasciicircum{} $-$$\beta$"
    )
    bare = re.sub(r"\\[{}]", "", table)
    assert bare.count("{") == bare.count("}")


def test_a_recipe_that_evaluates_nothing_has_a_table(make_runs: MakeRuns) -> None:
    table = table_latex(read_results(make_runs().store, "demo"))
    assert r"\begin{tabular}{l}" in table
    assert "multicolumn" not in table


def test_generated_texts_are_called_so(make_runs: MakeRuns) -> None:
    runs = make_runs("quiz", origin="embedded")
    assert "not comparable with published ones" in table_latex(read_results(runs.store, "demo"))
