"""Scores of a real network on real rows equal a plain computation, item by item."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.in_memory_sources import read_source
from tests.real.reference_model import ReferenceModel, argmax
from zephyr.evaluate.interface import Item
from zephyr.evaluate.scoring import run_task
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.recipe.data import SourceSpec
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice, Passage, Record, RecordKind

TOLERANCE = 1e-4
"""In nats, for a whole option or window: float32 sums of up to 511 terms."""

FILES: dict[str, tuple[str, RecordKind]] = {
    "hellaswag": ("hellaswag/validation_first_5000.jsonl.gz", "choice"),
    "mmlu": ("mmlu/mmlu_test.jsonl.gz", "choice"),
    "wikitext2": ("wikitext2/wiki.test.raw.txt.gz", "passage"),
}
REQUEST_TEMPLATES = {"hellaswag": "{}", "mcqa": "Question: {}\nAnswer:"}


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    torch.set_num_threads(1)
    return real_data / "models/tinystories-656k"


@pytest.fixture(scope="module")
def reference(folder: Path) -> ReferenceModel:
    return ReferenceModel(folder)


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(Lineage(str(folder)), tmp_path_factory.mktemp("store"), token_budget=4096)


def read_task_records(real_data: Path, name: str) -> list[Record]:
    path, kind = FILES[name]
    source = SourceSpec(name=name, path=path)
    return read_source(source, kind, real_data, use="exam")[0]


def score_task(model: Model, task: str, task_records: list[Record], n: int) -> dict[str, Any]:
    """The items and scores of `n` of the records, as a recipe with seed 42 asks them."""
    settings = TaskSpec(name=task, n=n)
    return run_task(settings, task_records, model, split_label="test", seed=42)._asdict()


def check_choices(
    task: str, items: Iterable[Item], task_records: list[Record], reference: ReferenceModel
) -> float:
    """Compares each item with the plain computation; the largest difference in nats."""
    by_id = {r.id: r for r in task_records if isinstance(r, Choice)}
    largest = 0.0
    for item in items:
        record, detail = by_id[item["id"]], item["detail"]
        text = REQUEST_TEMPLATES[task].format(record.text)
        option_logprobs = [
            reference.option_logprob(text, choice) or math.nan for choice in record.choices
        ]
        differences = [abs(a - b) for a, b in zip(detail["logprobs"], option_logprobs, strict=True)]
        assert max(differences) < TOLERANCE, (record.text, differences)
        by_character = [s / len(c) for s, c in zip(option_logprobs, record.choices, strict=True)]
        assert (detail["chosen"], detail["chosen_norm"]) == (
            argmax(option_logprobs),
            argmax(by_character),
        )
        assert item["scores"] == {
            "acc": argmax(option_logprobs) == record.answer,
            "acc_norm": argmax(by_character) == record.answer,
            "chance": 0.25,
        }
        largest = max(largest, *differences)
    return largest


def check_windows(
    items: Iterable[Item], task_records: list[Record], reference: ReferenceModel
) -> float:
    """Compares each window with the plain computation; gives the plain perplexity."""
    [text] = [r.text for r in task_records if isinstance(r, Passage)]
    windows = reference.windows(text)
    losses = []
    for item in items:
        first = item["detail"]["request"]["first_token"]
        window = windows[first // 511]
        assert first % 511 == 0
        loss = -sum(reference.logprobs(window))
        assert item["scores"]["perplexity"] == pytest.approx(loss, abs=TOLERANCE)
        assert item["weight"]["perplexity"] == len(window) - 1 == 511
        losses.append(loss / (len(window) - 1))
    return math.exp(sum(losses) / len(losses))


def find_metric(scores: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in scores["metrics"] if m["name"] == name)
    return found


@pytest.mark.parametrize(("task", "name"), [("hellaswag", "hellaswag"), ("mcqa", "mmlu")])
def test_sixty_questions(
    real_data: Path, model: Model, reference: ReferenceModel, task: str, name: str
) -> None:
    task_records = read_task_records(real_data, name)
    output = score_task(model, task, task_records, n=60)
    assert len(output["items"]) == 60
    check_choices(task, output["items"], task_records, reference)
    for kind in ("acc", "acc_norm"):
        right = sum(item["scores"][kind] for item in output["items"])
        assert find_metric(output["scores"], kind)["value"] == right / 60


def test_twenty_windows(real_data: Path, model: Model, reference: ReferenceModel) -> None:
    task_records = read_task_records(real_data, "wikitext2")
    output = score_task(model, "wikitext2", task_records, n=20)
    assert len(output["items"]) == 20
    perplexity = check_windows(output["items"], task_records, reference)
    assert find_metric(output["scores"], "perplexity")["value"] == pytest.approx(
        perplexity, rel=1e-6
    )


def test_the_whole_protocol_of_real_small(real_data: Path, reference: ReferenceModel) -> None:
    """All that `zephyr run real-small` asks its base model, a few minutes of forwards."""
    runs = os.environ.get("ZEPHYR_REAL_RUNS")
    if runs is None:
        pytest.skip("takes minutes; set ZEPHYR_REAL_RUNS to where `zephyr run real-small` has run")
    known = json.loads((Path(runs) / "real-small/nodes.json").read_text())["nodes"]
    fingerprints = {node["name"]: node["fingerprint"] for node in known}

    def read_output(task: str) -> tuple[list[Item], dict[str, Any]]:
        artifact = Path(runs) / "objects" / fingerprints[f"M0/{task}"] / "artifact"
        with (artifact / "items.jsonl").open(encoding="utf-8", newline="\n") as file:
            items = [json.loads(line) for line in file]
        return items, json.loads((artifact / "scores.json").read_text())

    for task, name in (("hellaswag", "hellaswag"), ("mcqa", "mmlu")):
        items, scores = read_output(task)
        largest = check_choices(task, items, read_task_records(real_data, name), reference)
        assert len(items) + scores["counts"].get("an option without tokens", 0) == 500
        for kind in ("acc", "acc_norm"):
            right = sum(item["scores"][kind] for item in items)
            assert find_metric(scores, kind)["value"] == right / len(items)
            print(f"{task} {kind}: {right:.0f} of {len(items)}, {right / len(items):.6f}")
        print(f"{task}: largest difference {largest:.2g} nats")
    items, scores = read_output("wikitext2")
    perplexity = check_windows(items, read_task_records(real_data, "wikitext2"), reference)
    assert len(items) == 200
    assert find_metric(scores, "perplexity")["value"] == pytest.approx(perplexity, rel=1e-6)
    print(
        f"wikitext2: {perplexity:.6f}, by Zephyr {find_metric(scores, 'perplexity')['value']:.6f}"
    )
