"""Perplexity by the page and by overlapping windows: hand-made texts, exact sums."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from zephyr.evaluate.page_perplexity import detokenize_page, split_pages
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Passage

TEXT = " \n = One = \n \n Some words . \n = = Part = = \n More . \n = Two = \n \n Last ( one ) . \n"


def evaluate(model: Any, name: str, text: str = TEXT, **settings: Any) -> EvalResult:
    task = TaskSpec.model_validate({"name": name, **settings})
    return run_task(task, [Passage("wiki", text)], model, split_label="test", seed=0)


def metric_values(result: EvalResult) -> dict[str, float]:
    return {m["name"]: m["value"] for m in result.scores["metrics"]}


def test_a_page_begins_at_a_title() -> None:
    first, second = split_pages(TEXT)
    assert first == TEXT[: TEXT.index(" = Two")]
    assert second.startswith(" = Two = \n")


def test_plain_writing_is_the_harnesss(real_data: Path) -> None:
    detokenize = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    from tests.parity.inputs import read_wikitext

    found = split_pages(read_wikitext(real_data))
    assert len(found) == 62
    for page in [*found, " a . , b ? ! c @-@ d @,@ e ( f ) \" g \" ' h ' N 's ° = = i "]:
        assert detokenize_page(page) == detokenize.wikitext_detokenizer({"page": page})


def test_word_byte_and_bit_figures_by_hand(fake_model: Any) -> None:
    """Each token (a character) costs ln 50; words and bytes are those of the page as it stood."""
    result = evaluate(fake_model(), "wikitext2_pages")
    first, second = split_pages(TEXT)
    cost = math.log(50) * (len(detokenize_page(first)) + len(detokenize_page(second)))
    words = sum(len(re.split(r"\s+", page)) for page in (first, second))
    size = len(TEXT.encode())
    assert metric_values(result) == {
        "word_perplexity": pytest.approx(math.exp(cost / words)),
        "byte_perplexity": pytest.approx(math.exp(cost / size)),
        "bits_per_byte": pytest.approx(cost / size / math.log(2)),
    }


@pytest.mark.parametrize("context", [5, 7, 16, 1000])
def test_every_token_of_a_page_is_predicted_once(context: int, fake_model: Any) -> None:
    model = fake_model(context_length=context)
    evaluate(model, "wikitext2_pages")
    pages = [detokenize_page(page) for page in split_pages(TEXT)]
    text = model.tokenizer.decode
    assert "".join(text(c.ids) for f in model.scored_examples for c in f.completions) == "".join(
        pages
    )
    assert max(f.max_sequence_length for f in model.scored_examples) <= context


@pytest.mark.parametrize("length", [100, 1024, 5000])
@pytest.mark.parametrize("context", [512, 700, 2048])
def test_strided_windows_predict_every_token_but_the_first_once(
    length: int, context: int, fake_model: Any
) -> None:
    text = "".join(chr(97 + n % 26) for n in range(length))
    model = fake_model(context_length=context)
    result = evaluate(model, "wikitext2_strided", text)
    decode = model.tokenizer.decode
    assert "".join(decode(f.completions[0].ids) for f in model.scored_examples) == text[1:]
    for example in model.scored_examples[1:]:
        assert example.max_sequence_length + 1 == min(2048, context, length)
        assert len(example.completions[0].ids) <= 512
    assert metric_values(result)["perplexity"] == pytest.approx(50)


def test_some_pages_are_sampled_and_the_rest_counted(fake_model: Any) -> None:
    result = evaluate(fake_model(), "wikitext2_pages", n=1)
    assert len(result.items) == 1
    assert result.scores["counts"] == {"pages not drawn": 1}


def test_a_start_token_of_the_tokenizers_own_is_in_the_protocol(fake_model: Any) -> None:
    model = fake_model()
    label = "· the tokenizer's start token counts ·"
    [metric, *_] = evaluate(model, "wikitext2_pages").scores["metrics"]
    assert label not in metric["protocol"]
    model.template.start_ids = (ord("<"),)
    [metric, *_] = evaluate(model, "wikitext2_pages").scores["metrics"]
    assert label in metric["protocol"]
