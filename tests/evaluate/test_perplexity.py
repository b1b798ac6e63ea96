import gzip
import math
from pathlib import Path
from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Passage


def evaluate(model: Any, *texts: str, n: int | None = None) -> EvalResult:
    settings = TaskSpec(name="wikitext2", n=n)
    records = [Passage("source", text) for text in texts]
    return run_task(settings, records, model, split_label="test", seed=0)


def test_windows_do_not_overlap_and_the_tail_is_counted(fake_model: Any) -> None:
    model = fake_model(context_length=5)
    result = evaluate(model, "abcdefghijklm")
    text = model.tokenizer.decode
    assert [text(f.prompt) for f in model.scored_examples] == ["a", "f"]
    assert [text(f.completions[0].ids) for f in model.scored_examples] == ["bcde", "ghij"]
    assert result.scores["counts"] == {"tail tokens": 3}
    [metric] = result.scores["metrics"]
    assert metric["protocol"] == "wikitext2@1 · predict · per token · windows of 5 · test · n=2"


@pytest.mark.parametrize(
    ("task", "windows", "weights"),
    [
        ("wikitext2", ["<abcd", "<efgh", "<ijkl"], [4, 4, 4]),
        ("wikitext2_strided", ["<abcd", "<cdef", "<efgh", "<ghij", "<ijkl", "<jklm"], None),
    ],
)
def test_a_start_token_stands_before_each_window_and_in_the_protocol(
    fake_model: Any, task: str, windows: list[str], weights: list[int] | None
) -> None:
    """Every token of the text that is in a window is predicted, and each of them once."""
    model = fake_model(context_length=5)
    model.template.start_ids = (ord("<"),)
    records = [Passage("source", "abcdefghijklm")]
    result = run_task(TaskSpec(name=task), records, model, split_label="test", seed=0)
    text = model.tokenizer.decode
    found = [text([*f.prompt, *f.completions[0].ids]) for f in model.scored_examples]
    assert found == windows
    predicted = "".join(text(f.completions[0].ids) for f in model.scored_examples)
    assert predicted == "abcdefghijklm"[: len(predicted)]
    assert len(predicted) == (12 if weights else 13)
    assert "· each after the start token ·" in result.scores["metrics"][0]["protocol"]


def test_texts_are_joined_by_a_blank_line(fake_model: Any) -> None:
    model = fake_model(context_length=8)
    evaluate(model, "abc", "def")
    assert model.tokenizer.decode(model.scored_examples[0].completions[0].ids) == "bc\n\ndef"


def test_perplexity_is_gptqs_mean_of_window_means(fake_model: Any) -> None:
    """Losses of 1 and 3 a token in two windows: e²."""
    model = fake_model(lambda prompt, completion: -1.0 if prompt == "a" else -3.0, context_length=4)
    result = evaluate(model, "abcdefgh")
    [metric] = result.scores["metrics"]
    assert metric["value"] == pytest.approx(math.exp((1 + 3) / 2))
    assert metric["low"] < math.e  # two windows tell little: the interval holds both
    assert metric["high"] > math.e**3
    assert [i["scores"]["perplexity"] for i in result.items] == [3, 9]


def test_windows_have_at_most_2048_tokens(fake_model: Any) -> None:
    model = fake_model()
    evaluate(model, "a" * 5_000)
    assert [len(f.completions[0].ids) for f in model.scored_examples] == [2047, 2047]


def test_a_text_shorter_than_a_window_is_one_and_says_so(fake_model: Any) -> None:
    model = fake_model(context_length=100)
    result = evaluate(model, "abcdef")
    assert len(model.scored_examples) == len(result.items) == 1
    assert "windows of 6 (the whole text)" in result.scores["metrics"][0]["protocol"]
    assert result.scores["counts"] == {"text shorter than one window": 1}


def test_n_samples_windows(fake_model: Any) -> None:
    text = "".join(chr(97 + i % 26) for i in range(400))
    model = fake_model(context_length=10)
    all_ids = {i["id"] for i in evaluate(fake_model(context_length=10), text).items}
    result = evaluate(model, text, n=7)
    assert len(result.items) == 7
    assert {i["id"] for i in result.items} < all_ids
    assert result.scores["counts"] == {"windows not drawn": 33}
    assert result.items != evaluate(fake_model(context_length=10), text).items[:7]


def test_one_token_predicts_nothing(fake_model: Any) -> None:
    with pytest.raises(ZephyrError, match="nothing to predict"):
        evaluate(fake_model(), "a")


def test_wikitext_equals_a_plain_computation(
    real_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GPTQ's loop, and this tokenizer's start token before each window: mean losses, their mean."""
    import torch

    from zephyr.model.load import Lineage, load_model

    torch.set_num_threads(1)
    folder = real_data / "models/tinystories-656k"
    model = load_model(Lineage(str(folder)), tmp_path, token_budget=2048)
    with gzip.open(real_data / "wikitext2/wiki.test.raw.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read(12_000)
    [metric] = evaluate(model, text).scores["metrics"]
    start, *ids = model.tokenizer(text)["input_ids"]
    assert start == model.tokenizer.bos_token_id
    rows = torch.tensor(ids[: len(ids) // 511 * 511]).view(-1, 511)
    windows = torch.cat([torch.full((len(rows), 1), start), rows], dim=1)
    with torch.inference_mode():
        logits = model.causal(windows).logits.double()
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), windows[:, 1:], reduction="none"
    )
    assert metric["n"] == len(windows) >= 5
    assert metric["value"] == pytest.approx(float(losses.mean(dim=1).mean().exp()), rel=1e-5)
