"""Figures: the same bytes twice, numbers in words, and nothing that is not finite."""

import csv
import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pytest

from tests.report.conftest import Shelf, canary_row, coins, new_shelf, training_rows
from zephyr.report.curves import read_series, smooth
from zephyr.report.figures import draw_figures
from zephyr.report.plotting import Drawing, shorten_name
from zephyr.report.results import read_results

MakeShelf = Callable[..., Shelf]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    shelf = new_shelf(tmp_path_factory.mktemp("trained"), "quiz")
    align = {"accuracy": 0.75, "margin": 0.2, "chosen_logprob": -40.0, "rejected_logprob": -50.0}
    shelf.finish("M0", training_rows([4.0, 3.0, 2.0]))
    shelf.finish("M1", training_rows([3.0 - n / 10 for n in range(12)]))
    start = {"step": 0, "split": "holdout", "loss": 0.69} | align
    start |= {"chosen_logprob": -39.5, "rejected_logprob": -45.0}
    rows = [start, canary_row(0, "a", "b"), *training_rows([0.69, 0.5], **align)]
    shelf.finish("M2", [*rows, canary_row(20, "a", "c")], canary=["?", "!"])
    shelf.score("M0/quiz", coins(0, 10))
    shelf.score("M1/quiz", coins(10, 0))
    return shelf


@pytest.fixture(scope="module")
def found(trained: Shelf) -> dict[str, Drawing]:
    return drawings(trained)


def drawings(shelf: Shelf) -> dict[str, Drawing]:
    return {d.name: d for d in draw_figures(read_results(shelf.store, "demo"))}


def test_each_kind_of_training_and_the_scores_are_drawn(found: dict[str, Drawing]) -> None:
    curves = {"loss-pretrain", "loss-tune", "alignment", "canary", "learning-rate"}
    assert set(found) == {"scores"} | curves
    for drawing in found.values():
        assert ET.fromstring(drawing.svg).tag.endswith("svg")
        assert drawing.png.startswith(b"\x89PNG")


def test_what_is_drawn_is_told_in_numbers(found: dict[str, Drawing]) -> None:
    assert found["loss-pretrain"].alt == (
        "M0: training loss 4.00 (step 10) to 2.00 (step 30), hold-out loss 3.00 (step 30)."
    )
    assert "M2: DPO loss 0.690 (step 10) to 0.500 (step 20)" in found["alignment"].alt
    assert (
        "change of the log-probability of chosen answers 0.00 (step 0) to −0.500 (step 20), "
        "of rejected 0.00 (step 0) to −5.00 (step 20)."
    ) in found["alignment"].alt
    assert found["canary"].alt == (
        "M2: answers that end by themselves 0.500 (step 0) to 0.500 (step 20), "
        "tokens of an answer 10.0 (step 0) to 30.0 (step 20), "
        "repeated 4-grams 0.100 (step 0) to 0.100 (step 20)."
    )
    assert (
        "M1: at most 0.500 (step 10), 0.0417 at the end (step 120)." in found["learning-rate"].alt
    )
    assert found["scores"].alt == (
        "quiz acc: 0.0 % [0.0, 27.8] (M0) to 100.0 % [72.2, 100.0] (M1)."
    )


def rows(drawing: Drawing) -> list[list[str]]:
    return list(csv.reader(io.StringIO(drawing.csv)))


def test_what_is_drawn_is_told_as_csv(found: dict[str, Drawing]) -> None:
    """Ten heads of ten have 72.2 % to 100 % by Wilson, none of ten 0 % to 27.8 %."""
    panel = "M0: loss (nats per token)"
    assert rows(found["loss-pretrain"]) == [
        ["panel", "series", "x", "y"],
        *([panel, "training", f"{step}.0", f"{5 - step / 10}"] for step in (10, 20, 30)),
        [panel, "hold-out", "30.0", "3.0"],
    ]
    head, *scores = rows(found["scores"])
    assert head == ["panel", "series", "x", "y", "low", "high"]
    assert [row[:2] for row in scores] == [["quiz acc % ↑", "M0"], ["quiz acc % ↑", "M1"]]
    numbers = [[float(value) for value in row[2:]] for row in scores]
    assert numbers[0] == pytest.approx([0, 0, 0, 27.8], abs=0.05)
    assert numbers[1] == pytest.approx([100, 1, 72.2, 100], abs=0.05)


def test_a_smoothed_curve_and_its_values_are_told_apart(found: dict[str, Drawing]) -> None:
    """Twelve losses from 3.0 down by 0.1: each is averaged with its neighbours."""
    tune = rows(found["loss-tune"])
    told = {series: [float(r[3]) for r in tune if r[1] == series] for _, series, *_ in tune[1:]}
    assert told["training"] == pytest.approx([3 - n / 10 for n in range(12)])
    assert told["training, smoothed"][:2] == pytest.approx([2.95, 2.9])
    assert told["hold-out"] == pytest.approx([2.9])


def test_panels_are_told_by_model_and_unit(found: dict[str, Drawing]) -> None:
    assert ["M2: reward margin (β × nats)", "training", "10.0", "0.2"] in rows(found["alignment"])
    moved = "M2: change of log-prob. (nats per answer)"
    assert [moved, "rejected, hold-out", "20.0", "-5.0"] in rows(found["alignment"])
    assert ["M2: length (tokens)", "canary", "20.0", "30.0"] in rows(found["canary"])
    assert ["M1", "learning rate", "20.0", "0.25"] in rows(found["learning-rate"])


def test_an_alignment_of_an_earlier_version_is_drawn(make_shelf: MakeShelf) -> None:
    """It was not evaluated before its first step, and had no canary."""
    shelf = make_shelf()
    shelf.finish("M2", training_rows([0.69, 0.5], accuracy=0.75, chosen_logprob=-40.0))
    found = drawings(shelf)
    assert "canary" not in found
    assert "change" not in found["alignment"].alt
    assert "hold-out reward accuracy 0.750 (step 20)." in found["alignment"].alt


def test_the_step_that_was_kept_is_told(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    shelf.finish("M2", training_rows([0.69, 0.5], accuracy=0.75), env={"kept_step": 10})
    assert "(step 20), kept at step 10." in drawings(shelf)["alignment"].alt


def test_the_same_runs_give_the_same_bytes(trained: Shelf, found: dict[str, Drawing]) -> None:
    assert drawings(trained) == found


def test_without_runs_there_is_nothing_to_draw(make_shelf: MakeShelf) -> None:
    assert drawings(make_shelf("quiz")) == {}


def test_a_training_that_is_not_finished_is_drawn_as_far_as_it_came(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    run = shelf.begin("M1")
    (run.path / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2, "lr": 1}\n')
    assert drawings(shelf)["loss-tune"].alt == "M1: training loss 2.00 (step 1)."


def test_a_line_that_is_being_written_is_not_drawn_yet(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    run = shelf.begin("M1")
    whole = '{"step": 1, "split": "train", "loss": 2, "lr": 1}\n'
    (run.path / "metrics.jsonl").write_bytes(f'{whole}{{"step": 2, "split": "β'.encode()[:-1])
    assert drawings(shelf)["loss-tune"].alt == "M1: training loss 2.00 (step 1)."


def test_what_is_not_finite_is_left_out(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    rows = [*training_rows([4.0, math.nan, math.inf, 1.0]), {"split": "train", "loss": None}]
    shelf.finish("M0", rows)
    assert "training loss 4.00 (step 10) to 1.00 (step 40)" in drawings(shelf)["loss-pretrain"].alt
    found = read_series(read_results(shelf.store, "demo").nodes["M0"], "train", "loss")
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
