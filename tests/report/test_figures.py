"""Figures: the same bytes twice, numbers in words, and nothing that is not finite."""

import csv
import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pytest

from tests.report.conftest import (
    RecipeRuns,
    canary_row,
    item_scores,
    new_recipe_runs,
    training_rows,
)
from zephyr.report.curves import read_series, smooth
from zephyr.report.figures import draw_figures
from zephyr.report.plotting import Drawing, shorten_name
from zephyr.report.results import read_results

MakeRuns = Callable[..., RecipeRuns]


@pytest.fixture(scope="module")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> RecipeRuns:
    runs = new_recipe_runs(tmp_path_factory.mktemp("trained"), "quiz")
    align = {"accuracy": 0.75, "margin": 0.2, "chosen_logprob": -40.0, "rejected_logprob": -50.0}
    runs.finish("M0", training_rows([4.0, 3.0, 2.0]))
    runs.finish("M1", training_rows([3.0 - n / 10 for n in range(12)]))
    start = {"step": 0, "split": "holdout", "loss": 0.69} | align
    start |= {"chosen_logprob": -39.5, "rejected_logprob": -45.0}
    rows = [start, canary_row(0, "a", "b"), *training_rows([0.69, 0.5], **align)]
    runs.finish("M2", [*rows, canary_row(20, "a", "c")], canary=["?", "!"])
    runs.score("M0/quiz", item_scores(0, 10))
    runs.score("M1/quiz", item_scores(10, 0))
    return runs


@pytest.fixture(scope="module")
def trained_drawings(trained_runs: RecipeRuns) -> dict[str, Drawing]:
    return draw_by_name(trained_runs)


def draw_by_name(runs: RecipeRuns) -> dict[str, Drawing]:
    return {d.name: d for d in draw_figures(read_results(runs.store, "demo"))}


def test_each_kind_of_training_and_the_scores_are_drawn(
    trained_drawings: dict[str, Drawing],
) -> None:
    curves = {"loss-pretrain", "loss-tune", "alignment", "canary", "learning-rate"}
    assert set(trained_drawings) == {"scores"} | curves
    for drawing in trained_drawings.values():
        assert ET.fromstring(drawing.svg).tag.endswith("svg")
        assert drawing.png.startswith(b"\x89PNG")


def test_figures_are_described_in_numbers(trained_drawings: dict[str, Drawing]) -> None:
    assert trained_drawings["loss-pretrain"].alt == (
        "M0: training loss 4.00 (step 10) to 2.00 (step 30), hold-out loss 3.00 (step 30)."
    )
    assert "M2: DPO loss 0.690 (step 10) to 0.500 (step 20)" in trained_drawings["alignment"].alt
    assert (
        "change of the log-probability of chosen answers 0.00 (step 0) to −0.500 (step 20), "
        "of rejected 0.00 (step 0) to −5.00 (step 20)."
    ) in trained_drawings["alignment"].alt
    assert trained_drawings["canary"].alt == (
        "M2: answers that end by themselves 0.500 (step 0) to 0.500 (step 20), "
        "tokens of an answer 10.0 (step 0) to 30.0 (step 20), "
        "repeated 4-grams 0.100 (step 0) to 0.100 (step 20)."
    )
    assert (
        "M1: at most 0.500 (step 10), 0.0417 at the end (step 120)."
        in trained_drawings["learning-rate"].alt
    )
    assert trained_drawings["scores"].alt == (
        "quiz acc: 0.0 % [0.0, 30.8] (M0) to 100.0 % [69.2, 100.0] (M1)."
    )


def csv_rows(drawing: Drawing) -> list[list[str]]:
    return list(csv.reader(io.StringIO(drawing.csv)))


def test_figures_have_their_numbers_as_csv(trained_drawings: dict[str, Drawing]) -> None:
    """Ten heads of ten have 69.2 % to 100 % exactly, none of ten 0 % to 30.8 %."""
    panel = "M0: loss (nats per token)"
    assert csv_rows(trained_drawings["loss-pretrain"]) == [
        ["panel", "series", "x", "y"],
        *([panel, "training", f"{step}.0", f"{5 - step / 10}"] for step in (10, 20, 30)),
        [panel, "hold-out", "30.0", "3.0"],
    ]
    head, *scores = csv_rows(trained_drawings["scores"])
    assert head == ["panel", "series", "x", "y", "low", "high"]
    assert [row[:2] for row in scores] == [["quiz acc % ↑", "M0"], ["quiz acc % ↑", "M1"]]
    numbers = [[float(value) for value in row[2:]] for row in scores]
    assert numbers[0] == pytest.approx([0, 0, 0, 30.8], abs=0.05)
    assert numbers[1] == pytest.approx([100, 1, 69.2, 100], abs=0.05)


def test_a_smoothed_curve_and_its_values_are_separate_series(
    trained_drawings: dict[str, Drawing],
) -> None:
    """Twelve losses from 3.0 down by 0.1: each is averaged with its neighbours."""
    tune = csv_rows(trained_drawings["loss-tune"])
    values = {series: [float(r[3]) for r in tune if r[1] == series] for _, series, *_ in tune[1:]}
    assert values["training"] == pytest.approx([3 - n / 10 for n in range(12)])
    assert values["training, smoothed"][:2] == pytest.approx([2.95, 2.9])
    assert values["hold-out"] == pytest.approx([2.9])


def test_panels_are_labelled_by_model_and_unit(trained_drawings: dict[str, Drawing]) -> None:
    assert ["M2: reward margin (β × nats)", "training", "10.0", "0.2"] in csv_rows(
        trained_drawings["alignment"]
    )
    moved = "M2: change of log-prob. (nats per answer)"
    assert [moved, "rejected, hold-out", "20.0", "-5.0"] in csv_rows(trained_drawings["alignment"])
    assert ["M2: length (tokens)", "canary", "20.0", "30.0"] in csv_rows(trained_drawings["canary"])
    assert ["M1", "learning rate", "20.0", "0.25"] in csv_rows(trained_drawings["learning-rate"])


def test_an_alignment_of_an_earlier_version_is_drawn(make_runs: MakeRuns) -> None:
    """It was not evaluated before its first step, and had no sample generations."""
    runs = make_runs()
    runs.finish("M2", training_rows([0.69, 0.5], accuracy=0.75, chosen_logprob=-40.0))
    found = draw_by_name(runs)
    assert "canary" not in found
    assert "change" not in found["alignment"].alt
    assert "hold-out reward accuracy 0.750 (step 20)." in found["alignment"].alt


def test_the_step_that_was_kept_is_named(make_runs: MakeRuns) -> None:
    runs = make_runs()
    runs.finish("M2", training_rows([0.69, 0.5], accuracy=0.75), env={"kept_step": 10})
    assert "(step 20), kept at step 10." in draw_by_name(runs)["alignment"].alt


def test_the_same_runs_give_the_same_bytes(
    trained_runs: RecipeRuns, trained_drawings: dict[str, Drawing]
) -> None:
    assert draw_by_name(trained_runs) == trained_drawings


def test_without_runs_there_is_nothing_to_draw(make_runs: MakeRuns) -> None:
    assert draw_by_name(make_runs("quiz")) == {}


def test_a_training_that_is_not_finished_is_drawn_as_far_as_it_came(make_runs: MakeRuns) -> None:
    runs = make_runs()
    run = runs.begin("M1")
    (run.path / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2, "lr": 1}\n')
    assert draw_by_name(runs)["loss-tune"].alt == "M1: training loss 2.00 (step 1)."


def test_a_line_that_is_being_written_is_not_drawn_yet(make_runs: MakeRuns) -> None:
    runs = make_runs()
    run = runs.begin("M1")
    whole = '{"step": 1, "split": "train", "loss": 2, "lr": 1}\n'
    (run.path / "metrics.jsonl").write_bytes(f'{whole}{{"step": 2, "split": "β'.encode()[:-1])
    assert draw_by_name(runs)["loss-tune"].alt == "M1: training loss 2.00 (step 1)."


def test_what_is_not_finite_is_left_out(make_runs: MakeRuns) -> None:
    runs = make_runs()
    rows = [*training_rows([4.0, math.nan, math.inf, 1.0]), {"split": "train", "loss": None}]
    runs.finish("M0", rows)
    assert (
        "training loss 4.00 (step 10) to 1.00 (step 40)" in draw_by_name(runs)["loss-pretrain"].alt
    )
    found = read_series(read_results(runs.store, "demo").nodes["M0"], "train", "loss")
    assert found.steps.tolist() == [10, 40]
    assert found.values.tolist() == [4, 1]


def test_long_names_keep_their_ends_apart() -> None:
    names = [f"a-model-of-quite-a-long-name-{n}" for n in (1, 11)]
    assert [shorten_name(name) for name in names] == [
        "a-model-of-q…long-name-1",
        "a-model-of-q…ong-name-11",
    ]
    assert shorten_name("M1-a-name-of-24-letters-") == "M1-a-name-of-24-letters-"


def test_smoothing_is_a_mean_around_each_value() -> None:
    """Of 8 values each is averaged with one on either side; the ends have one neighbour."""
    values = np.array([0, 3, 6, 0, 3, 0, 0, 9], dtype=float)
    assert smooth(values).tolist() == [1.5, 3, 3, 3, 1, 1, 3, 4.5]
    assert smooth(np.full(100, 2.5)).tolist() == [2.5] * 100
