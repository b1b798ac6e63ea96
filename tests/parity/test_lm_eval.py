"""Item by item what lm-evaluation-harness says of the same rows and networks (lm_eval.json).

Its figures were made by make_lm_eval, one completion at a time in batches of eight padded rows;
ours share prompts and prefixes. Tolerances are for sums of float32 in another order: 5e-4 nats for
an option of at most a hundred tokens, whose log-probabilities lie between -1 and -600 (1e-4 was
met), and 1e-5 of the sum for a page.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity import inputs
from zephyr.evaluate.page_perplexity import split_pages
from zephyr.evaluate.scoring import run_task
from zephyr.model.load import build_model
from zephyr.model.model import Model
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice, Passage, Record

STORED = json.loads((Path(__file__).parent / "lm_eval.json").read_text())
LOGPROB_TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def models(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    torch.set_num_threads(1)
    parts = {
        "tinystories": inputs.load_tinystories(real_data),
        "qwen2": inputs.make_random_qwen2(real_data, tmp_path_factory.mktemp("qwen2")),
    }
    return {name: build_model(*part, token_budget=4096) for name, part in parts.items()}


def evaluate_items(
    model: Model, records: list[Record], name: str, **extra: Any
) -> list[dict[str, Any]]:
    settings = TaskSpec.model_validate({"name": name, **extra.pop("settings", {})})
    return run_task(settings, records, model, split_label="test", seed=1, **extra).items


def assert_same_scores(items: list[dict[str, Any]], stored: dict[str, Any]) -> None:
    """Log-probabilities to rounding, and scores wherever two options are not a rounding apart."""
    differences = [
        np.abs(np.subtract(item["detail"]["logprobs"], theirs)).max()
        for item, theirs in zip(items, stored["logprobs"], strict=True)
    ]
    assert max(differences) < LOGPROB_TOLERANCE
    for metric in ("acc", "acc_norm"):
        if metric in stored and metric in items[0]["scores"]:
            mismatches = [
                at
                for at, item in enumerate(items)
                if item["scores"][metric] != stored[metric][at]
                and not _is_tie(stored["logprobs"][at])
            ]
            assert not mismatches


def _is_tie(logprobs: list[float]) -> bool:
    best, second = sorted(logprobs, reverse=True)[:2]
    return best - second < 2 * LOGPROB_TOLERANCE


def hellaswag_records(data: Path) -> list[Record]:
    rows = inputs.read_rows(data / "hellaswag" / "validation_first_5000.jsonl.gz")
    return [
        Choice("hellaswag", r["ctx"], tuple(r["endings"]), int(r["label"]))
        for r in inputs.evenly_spaced(rows)
    ]


def arc_records(data: Path) -> list[Record]:
    records: list[Record] = []
    for row in inputs.evenly_spaced(
        inputs.read_rows(data / "arc" / "ARC-Challenge-Train.jsonl.gz")
    ):
        options = row["question"]["choices"]
        answer = [o["label"] for o in options].index(row["answerKey"])
        texts = tuple(o["text"] for o in options)
        records.append(Choice("arc", row["question"]["stem"], texts, answer))
    return records


def mmlu_records(rows: list[dict[str, Any]]) -> list[Record]:
    return [
        Choice("mmlu", r["question"], tuple(r["choices"]), "ABCD".index(r["answer"]), r["subject"])
        for r in rows
    ]


@pytest.mark.parametrize("name", ["tinystories", "qwen2"])
def test_hellaswag(name: str, models: dict[str, Model], real_data: Path) -> None:
    assert_same_scores(
        evaluate_items(models[name], hellaswag_records(real_data), "hellaswag"),
        STORED["hellaswag"][name],
    )


@pytest.mark.parametrize("name", ["tinystories", "qwen2"])
def test_arc_challenge(name: str, models: dict[str, Model], real_data: Path) -> None:
    assert_same_scores(
        evaluate_items(models[name], arc_records(real_data), "mcqa"), STORED["arc_challenge"][name]
    )


def test_mmlu_without_examples(models: dict[str, Model], real_data: Path) -> None:
    """Questions of more than 512 tokens are cut from the left by both."""
    records = mmlu_records(
        inputs.evenly_spaced(inputs.read_rows(real_data / "mmlu" / "mmlu_test.jsonl.gz"))
    )
    items = evaluate_items(models["tinystories"], records, "mcqa_letter")
    assert any(item["detail"]["cut"] for item in items)
    assert_same_scores(items, STORED["mmlu"]["tinystories"])


def test_mmlu_after_five_examples(models: dict[str, Model], real_data: Path) -> None:
    def subject_rows(file: str) -> list[dict[str, Any]]:
        rows = inputs.read_rows(real_data / "mmlu" / file)
        return [r for r in rows if r["subject"] == inputs.FEW_SHOT_SUBJECT]

    items = evaluate_items(
        models["qwen2"],
        mmlu_records(inputs.evenly_spaced(subject_rows("mmlu_test.jsonl.gz"))),
        "mcqa_letter",
        settings={"shots": 5},
        few_shot_examples=mmlu_records(subject_rows("mmlu_dev.jsonl.gz")),
    )
    assert_same_scores(items, STORED["mmlu"]["qwen2, 5 shots"])


@pytest.mark.parametrize(("name", "count"), [("tinystories", 20), ("qwen2", 2)])
def test_wikitext(name: str, count: int, models: dict[str, Model], real_data: Path) -> None:
    stored = STORED["wikitext"][name]
    text = "".join(split_pages(inputs.read_wikitext(real_data))[:count])
    items = evaluate_items(models[name], [Passage("wikitext2", text)], "wikitext2_pages")
    assert len(items) == count
    for at, item in enumerate(items):
        assert item["weight"]["word_perplexity"] == stored["words"][at]
        assert item["weight"]["byte_perplexity"] == stored["bytes"][at]
        assert -item["scores"]["word_perplexity"] == pytest.approx(stored["logprob"][at], rel=1e-5)
