"""Item by item what lm-evaluation-harness says of the same rows and networks (lm_eval.json).

Its figures were made by make_lm_eval, one continuation at a time in batches of eight padded rows;
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

from tests.parity import questions
from zephyr.evaluate.page_perplexity import split_pages
from zephyr.evaluate.scoring import run_task
from zephyr.model.load import build_model
from zephyr.model.model import Model
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice, Passage, Record

STORED = json.loads((Path(__file__).parent / "lm_eval.json").read_text())
NATS = 5e-4


@pytest.fixture(scope="module")
def models(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    torch.set_num_threads(1)
    parts = {
        "tinystories": questions.tinystories(real_data),
        "qwen2": questions.random_qwen2(real_data, tmp_path_factory.mktemp("qwen2")),
    }
    return {name: build_model(*part, token_budget=4096) for name, part in parts.items()}


def ask(model: Model, records: list[Record], name: str, **extra: Any) -> list[dict[str, Any]]:
    settings = TaskSpec.model_validate({"name": name, **extra.pop("settings", {})})
    return run_task(settings, records, model, split_label="test", seed=1, **extra).items


def same(items: list[dict[str, Any]], stored: dict[str, Any]) -> None:
    """Log-probabilities to rounding, and scores wherever two options are not a rounding apart."""
    gaps = [
        np.abs(np.subtract(item["detail"]["logprobs"], theirs)).max()
        for item, theirs in zip(items, stored["logprobs"], strict=True)
    ]
    assert max(gaps) < NATS
    for metric in ("acc", "acc_norm"):
        if metric in stored and metric in items[0]["scores"]:
            differ = [
                at
                for at, item in enumerate(items)
                if item["scores"][metric] != stored[metric][at] and not _tie(stored["logprobs"][at])
            ]
            assert not differ


def _tie(logprobs: list[float]) -> bool:
    best, second = sorted(logprobs, reverse=True)[:2]
    return best - second < 2 * NATS


def hellaswag(data: Path) -> list[Record]:
    rows = questions.rows(data / "hellaswag" / "validation_first_5000.jsonl.gz")
    return [
        Choice("hellaswag", r["ctx"], tuple(r["endings"]), int(r["label"]))
        for r in questions.spread(rows)
    ]


def arc(data: Path) -> list[Record]:
    records: list[Record] = []
    for row in questions.spread(questions.rows(data / "arc" / "ARC-Challenge-Train.jsonl.gz")):
        options = row["question"]["choices"]
        answer = [o["label"] for o in options].index(row["answerKey"])
        texts = tuple(o["text"] for o in options)
        records.append(Choice("arc", row["question"]["stem"], texts, answer))
    return records


def mmlu(rows: list[dict[str, Any]]) -> list[Record]:
    return [
        Choice("mmlu", r["question"], tuple(r["choices"]), "ABCD".index(r["answer"]), r["subject"])
        for r in rows
    ]


@pytest.mark.parametrize("name", ["tinystories", "qwen2"])
def test_hellaswag(name: str, models: dict[str, Model], real_data: Path) -> None:
    same(ask(models[name], hellaswag(real_data), "hellaswag"), STORED["hellaswag"][name])


@pytest.mark.parametrize("name", ["tinystories", "qwen2"])
def test_arc_challenge(name: str, models: dict[str, Model], real_data: Path) -> None:
    same(ask(models[name], arc(real_data), "mcqa"), STORED["arc_challenge"][name])


def test_mmlu_without_examples(models: dict[str, Model], real_data: Path) -> None:
    """Questions of more than 512 tokens are cut from the left by both."""
    records = mmlu(questions.spread(questions.rows(real_data / "mmlu" / "mmlu_test.jsonl.gz")))
    items = ask(models["tinystories"], records, "mcqa_letter")
    assert any(item["detail"]["cut"] for item in items)
    same(items, STORED["mmlu"]["tinystories"])


def test_mmlu_after_five_examples(models: dict[str, Model], real_data: Path) -> None:
    def about(file: str) -> list[dict[str, Any]]:
        rows = questions.rows(real_data / "mmlu" / file)
        return [r for r in rows if r["subject"] == questions.SUBJECT]

    items = ask(
        models["qwen2"],
        mmlu(questions.spread(about("mmlu_test.jsonl.gz"))),
        "mcqa_letter",
        settings={"shots": 5},
        few_shot_examples=mmlu(about("mmlu_dev.jsonl.gz")),
    )
    same(items, STORED["mmlu"]["qwen2, 5 shots"])


@pytest.mark.parametrize(("name", "count"), [("tinystories", 20), ("qwen2", 2)])
def test_wikitext(name: str, count: int, models: dict[str, Model], real_data: Path) -> None:
    stored = STORED["wikitext"][name]
    text = "".join(split_pages(questions.wikitext(real_data))[:count])
    items = ask(models[name], [Passage("wikitext2", text)], "wikitext2_pages")
    assert len(items) == count
    for at, item in enumerate(items):
        assert item["weight"]["word_perplexity"] == stored["words"][at]
        assert item["weight"]["byte_perplexity"] == stored["bytes"][at]
        assert -item["scores"]["word_perplexity"] == pytest.approx(stored["logprob"][at], rel=1e-5)
