"""Item by item what lm-evaluation-harness itself says of generated rows and tiny networks.

Contexts are short, so that many questions are cut and every page has several windows. One of the
tokenizers sets a start token before each text.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tests.parity import make_lm_eval as harness
from zephyr.data import embedded
from zephyr.data.readers import choice
from zephyr.evaluate.page_perplexity import split_pages
from zephyr.evaluate.scoring import run_task
from zephyr.model.load import build_model
from zephyr.model.model import Model
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice, Passage, Record

pytestmark = pytest.mark.filterwarnings("default")  # the harness and what it imports

COUNT = 40
NATS = 1e-3
"""Rounding: options here are of at most sixty tokens, each of which costs up to some 30 nats."""


def starting() -> Any:
    """The tiny tokenizer, which sets its end token before each text too."""
    plain = tiny.tokenizer()
    copied = Tokenizer.from_str(plain.backend_tokenizer.to_str())
    copied.post_processor = TemplateProcessing(
        single=f"{plain.eos_token} $A", special_tokens=[(plain.eos_token, plain.eos_token_id)]
    )
    end = plain.eos_token
    return PreTrainedTokenizerFast(tokenizer_object=copied, bos_token=end, eos_token=end)


@pytest.fixture(scope="module", params=["no start token", "a start token"])
def model(request: pytest.FixtureRequest) -> Model:
    made = tiny.make_model("qwen2")
    if request.param == "no start token":
        return made
    tokenizer = starting()
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    tokenizer.chat_template = tiny.tokenizer().chat_template
    return build_model(made.causal, tokenizer, token_budget=256)


def rows(name: str, split: str) -> list[dict[str, Any]]:
    return list(islice(embedded.make_rows(name, split), COUNT))


def records(reader: Any, found: list[dict[str, Any]]) -> list[Choice]:
    return [record for row in found for record in reader(row, "source")]


def same(
    model: Model, name: str, asked: list[Choice], stored: dict[str, Any], **extra: Any
) -> list[dict[str, Any]]:
    settings = TaskSpec.model_validate({"name": name, **extra.pop("settings", {})})
    items = run_task(settings, asked, model, split_label="test", seed=1, **extra).items
    assert len(items) == len(stored["logprobs"])
    for at, (item, theirs) in enumerate(zip(items, stored["logprobs"], strict=True)):
        assert np.abs(np.subtract(item["detail"]["logprobs"], theirs)).max() < NATS
        for metric in ("acc", "acc_norm"):
            if metric in stored:
                assert item["scores"][metric] == stored[metric][at]
    return items


def test_hellaswag(model: Model, tmp_path: Path) -> None:
    asked = records(choice.read_hellaswag, rows("hellaswag", "validation"))
    docs = [{"query": r.text, "choices": list(r.choices), "label": r.answer} for r in asked]
    lm = harness.harness(model.causal, model.tokenizer)
    stored = harness.ranked(lm, harness.yaml("hellaswag/hellaswag.yaml"), docs, tmp_path)
    same(model, "hellaswag", asked, stored)


def test_arc(model: Model, tmp_path: Path) -> None:
    found = rows("arc_challenge", "test")
    lm = harness.harness(model.causal, model.tokenizer)
    stored = harness.ranked(lm, harness.arc_yaml(), found, tmp_path)
    same(model, "mcqa", records(choice.read_arc, found), stored)


@pytest.mark.parametrize("shots", [0, 2])
def test_mmlu(shots: int, model: Model, tmp_path: Path) -> None:
    found = [r for r in embedded.make_rows("mmlu", "test") if r["subject"] == "physics"][:COUNT]
    shown = [r for r in embedded.make_rows("mmlu", "dev") if r["subject"] == "physics"][:shots]
    template = harness.yaml("mmlu/default/_default_template_yaml")
    quiz = {**template, "task": "mmlu", "description": harness.ABOUT}
    lm = harness.harness(model.causal, model.tokenizer)
    stored = harness.ranked(lm, quiz, found, tmp_path, shown)
    items = same(
        model,
        "mcqa_letter",
        records(choice.read_choices, found),
        stored,
        settings={"shots": shots} if shots else {},
        few_shot_examples=records(choice.read_choices, shown),
    )
    assert any(item["detail"]["cut"] for item in items)


def test_wikitext(model: Model, tmp_path: Path) -> None:
    text = "".join(
        f"{row['text']}\n" for row in islice(embedded.make_rows("wikitext2", "test"), 120)
    )
    lm = harness.harness(model.causal, model.tokenizer)
    docs = [{"page": page} for page in split_pages(text)]
    stored = harness.paged(lm, harness.yaml("wikitext/wikitext.yaml"), docs, tmp_path)
    asked: list[Record] = [Passage("wikitext2", text)]
    settings = TaskSpec(name="wikitext2_pages")
    items = run_task(settings, asked, model, split_label="test", seed=1).items
    assert len(items) == len(docs) > 1
    for at, item in enumerate(items):
        assert item["weight"]["word_perplexity"] == stored["words"][at]
        assert item["weight"]["byte_perplexity"] == stored["bytes"][at]
        assert -item["scores"]["word_perplexity"] == pytest.approx(stored["logprob"][at], rel=1e-5)
