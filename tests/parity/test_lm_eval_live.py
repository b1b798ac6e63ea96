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

NUM_ROWS = 40
LOGPROB_TOLERANCE = 1e-3
"""Rounding: options here are of at most sixty tokens, each of which costs up to some 30 nats."""


def tokenizer_with_start_token() -> Any:
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
    tiny_model = tiny.make_model("qwen2")
    if request.param == "no start token":
        return tiny_model
    tokenizer = tokenizer_with_start_token()
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    tokenizer.chat_template = tiny.tokenizer().chat_template
    return build_model(tiny_model.causal, tokenizer, token_budget=256)


def embedded_rows(name: str, split: str) -> list[dict[str, Any]]:
    return list(islice(embedded.make_rows(name, split), NUM_ROWS))


def read_records(reader: Any, found: list[dict[str, Any]]) -> list[Choice]:
    return [record for row in found for record in reader(row, "source")]


def assert_same_scores(
    model: Model, name: str, choices: list[Choice], stored: dict[str, Any], **extra: Any
) -> list[dict[str, Any]]:
    settings = TaskSpec.model_validate({"name": name, **extra.pop("settings", {})})
    items = run_task(settings, choices, model, split_label="test", seed=1, **extra).items
    assert len(items) == len(stored["logprobs"])
    for at, (item, theirs) in enumerate(zip(items, stored["logprobs"], strict=True)):
        assert np.abs(np.subtract(item["detail"]["logprobs"], theirs)).max() < LOGPROB_TOLERANCE
        for metric in ("acc", "acc_norm"):
            if metric in stored:
                assert item["scores"][metric] == stored[metric][at]
    return items


def test_hellaswag(model: Model, tmp_path: Path) -> None:
    choices = read_records(choice.read_hellaswag, embedded_rows("hellaswag", "validation"))
    docs = [{"query": r.text, "choices": list(r.choices), "label": r.answer} for r in choices]
    lm = harness.make_harness_model(model.causal, model.tokenizer)
    stored = harness.score_multiple_choice(
        lm, harness.load_task_yaml("hellaswag/hellaswag.yaml"), docs, tmp_path
    )
    assert_same_scores(model, "hellaswag", choices, stored)


def test_arc(model: Model, tmp_path: Path) -> None:
    arc_rows = embedded_rows("arc_challenge", "test")
    lm = harness.make_harness_model(model.causal, model.tokenizer)
    stored = harness.score_multiple_choice(lm, harness.load_arc_yaml(), arc_rows, tmp_path)
    assert_same_scores(model, "mcqa", read_records(choice.read_arc, arc_rows), stored)


@pytest.mark.parametrize("shots", [0, 2])
def test_mmlu(shots: int, model: Model, tmp_path: Path) -> None:
    mmlu_rows = [r for r in embedded.make_rows("mmlu", "test") if r["subject"] == "physics"][
        :NUM_ROWS
    ]
    few_shot_rows = [r for r in embedded.make_rows("mmlu", "dev") if r["subject"] == "physics"][
        :shots
    ]
    template = harness.load_task_yaml("mmlu/default/_default_template_yaml")
    quiz = {**template, "task": "mmlu", "description": harness.MMLU_DESCRIPTION}
    lm = harness.make_harness_model(model.causal, model.tokenizer)
    stored = harness.score_multiple_choice(lm, quiz, mmlu_rows, tmp_path, few_shot_rows)
    items = assert_same_scores(
        model,
        "mcqa_letter",
        read_records(choice.read_choices, mmlu_rows),
        stored,
        settings={"shots": shots} if shots else {},
        few_shot_examples=read_records(choice.read_choices, few_shot_rows),
    )
    assert any(item["detail"]["cut"] for item in items)


def test_wikitext(model: Model, tmp_path: Path) -> None:
    text = "".join(
        f"{row['text']}\n" for row in islice(embedded.make_rows("wikitext2", "test"), 120)
    )
    lm = harness.make_harness_model(model.causal, model.tokenizer)
    docs = [{"page": page} for page in split_pages(text)]
    stored = harness.score_pages(
        lm, harness.load_task_yaml("wikitext/wikitext.yaml"), docs, tmp_path
    )
    passages: list[Record] = [Passage("wikitext2", text)]
    settings = TaskSpec(name="wikitext2_pages")
    items = run_task(settings, passages, model, split_label="test", seed=1).items
    assert len(items) == len(docs) > 1
    for at, item in enumerate(items):
        assert item["weight"]["word_perplexity"] == stored["words"][at]
        assert item["weight"]["byte_perplexity"] == stored["bytes"][at]
        assert -item["scores"]["word_perplexity"] == pytest.approx(stored["logprob"][at], rel=1e-5)
