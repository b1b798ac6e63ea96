import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tests.evaluate.conftest import CharTokenizer
from zephyr.errors import ZephyrError
from zephyr.evaluate.interface import Item
from zephyr.evaluate.scoring import run_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice


def evaluate(model: Any, *records: Choice, task: str = "hellaswag") -> list[Item]:
    settings = TaskSpec(name=task)
    return run_task(settings, records, model, split_label="test", seed=0).items


def test_the_request_is_the_context_and_an_ending_after_a_space(fake_model: Any) -> None:
    model = fake_model()
    evaluate(model, Choice("s", "He sat.", ("Then up.", "No."), 0))
    [example] = model.scored_examples
    assert model.tokenizer.decode(example.prompt) == "He sat."
    assert [model.tokenizer.decode(c.ids) for c in example.completions] == [" Then up.", " No."]


def test_a_question_is_asked_as_lm_eval_asks_arc(fake_model: Any) -> None:
    model = fake_model()
    evaluate(model, Choice("s", "Why?", ("So.", "No."), 0), task="mcqa")
    [example] = model.scored_examples
    assert model.tokenizer.decode(example.prompt) == "Question: Why?\nAnswer:"
    assert [model.tokenizer.decode(c.ids) for c in example.completions] == [" So.", " No."]


def test_blanks_at_the_end_of_a_context_belong_to_the_endings(fake_model: Any) -> None:
    model = fake_model()
    evaluate(model, Choice("s", "He sat. ", ("up", "no"), 0))
    [example] = model.scored_examples
    assert model.tokenizer.decode(example.prompt) == "He sat."
    assert model.tokenizer.decode(example.completions[0].ids) == "  up"


def test_acc_takes_the_sum_and_acc_norm_the_sum_per_character(fake_model: Any) -> None:
    """-1 a token, the space too: -3 for "ab", -9 for "abcdefgh": -3/2 and -9/8 per character."""
    [item] = evaluate(fake_model(lambda p, c: -1), Choice("s", "x", ("ab", "abcdefgh"), 1))
    assert item["detail"]["logprobs"] == [-3, -9]
    assert item["detail"]["tokens"] == [3, 9]
    assert (item["detail"]["chosen"], item["detail"]["chosen_norm"]) == (0, 1)
    assert (item["scores"]["acc"], item["scores"]["acc_norm"]) == (0, 1)
    assert item["scores"]["chance"] == 0.5


def test_a_long_question_of_a_chat_loses_its_beginning_and_no_marker() -> None:
    """A question without room for a token of it is excluded, and counted."""
    model = tiny.make_model("qwen2")
    scored: list[Any] = []
    model.logprobs = lambda examples, **_: (  # type: ignore[method-assign]  # a fake
        scored.extend(examples) or [[np.zeros(len(c.ids)) for c in e.completions] for e in examples]
    )
    question = "first " + "so " * 300 + "last"
    records = [Choice("s", question, ("A force", "B"), 0), Choice("s", "Why?", ("x" * 122, "B"), 0)]
    task = TaskSpec(name="hellaswag", chat=True)
    result = run_task(task, records, model, split_label="test", seed=0)
    text = model.tokenizer.decode(scored[0].prompt)
    assert len(scored) == 1
    assert text.startswith("Human:")
    assert text.endswith("so last\nAssistant:")
    assert scored[0].max_sequence_length == tiny.CONTEXT_LENGTH
    assert result.scores["counts"] == {"no room for a question": 1, "cut": 1}


def test_of_equal_endings_the_first_wins(fake_model: Any) -> None:
    [item] = evaluate(fake_model(lambda p, c: -1), Choice("s", "x", ("ab", "cd", "ef"), 1))
    assert (item["detail"]["chosen"], item["scores"]["acc"]) == (0, 0)


def test_options_of_the_same_tokens_are_asked_once_and_the_first_wins(fake_model: Any) -> None:
    """A tokenizer that knows neither sign: no rounding tells the two options apart."""
    model = fake_model()
    model.tokenizer = AsciiTokenizer()
    [item] = evaluate(model, Choice("s", "x", ("a → b", "a ∧ b", "c"), 1))
    [example] = model.scored_examples
    assert [model.tokenizer.decode(c.ids) for c in example.completions] == [" a ? b", " c"]
    assert item["detail"]["logprobs"][0] == item["detail"]["logprobs"][1]
    assert item["detail"]["tokens"] == [6, 6, 2]


class BigramTokenizer:
    """A tokenizer that makes one token of each two characters, from the left."""

    bos_token_id = 1
    eos_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {
            "input_ids": [[self.token_id(t[i : i + 2]) for i in range(0, len(t), 2)] for t in texts]
        }

    def token_id(self, part: str) -> int:
        return int.from_bytes(part.encode(), "big")

    def decode(self, tokens: Any) -> str:
        return "".join(int(t).to_bytes(2, "big").decode() for t in tokens)


class AsciiTokenizer(CharTokenizer):
    """Reads every sign beyond ASCII as a question mark."""

    def __call__(self, texts: list[str], **kwargs: Any) -> dict[str, list[list[int]]]:
        ascii_texts = [text.encode("ascii", errors="replace").decode() for text in texts]
        return super().__call__(ascii_texts, **kwargs)


class PiDroppingTokenizer(CharTokenizer):
    """Knows no π, and takes the space before it along."""

    def __call__(self, texts: list[str], **kwargs: Any) -> dict[str, list[list[int]]]:
        return super().__call__([text.replace(" π", "") for text in texts], **kwargs)


def test_where_tokens_cross_the_edge_the_whole_text_decides(fake_model: Any) -> None:
    """abc + de: the context is ab|c, the whole ab|c |de, and from the third token on: de."""
    model = fake_model()
    model.tokenizer = BigramTokenizer()
    evaluate(model, Choice("s", "abc", ("de", "fgh"), 0))
    [example] = model.scored_examples
    token_id = model.tokenizer.token_id
    assert example.prompt.tolist() == [token_id("ab"), token_id("c")]
    assert [c.ids.tolist() for c in example.completions] == [
        [token_id("de")],
        [token_id("fg"), token_id("h")],
    ]


def test_an_empty_context_is_the_start_token(fake_model: Any) -> None:
    model = fake_model()
    model.tokenizer = BigramTokenizer()
    evaluate(model, Choice("s", "", ("abc", "d"), 0))
    [example] = model.scored_examples
    assert example.prompt.tolist() == [1]
    assert [len(c.ids) for c in example.completions] == [2, 1]


def test_a_long_context_is_cut_from_the_left_for_each_ending(fake_model: Any) -> None:
    """As lm-eval: of context and ending the last 10 + 1 tokens, the very last never read."""
    model = fake_model(context_length=10)
    items = evaluate(
        model,
        Choice("s", "0123456789", ("ab", "abcd"), 0),
        Choice("s", "0123456", ("ab", "ac"), 0),
        Choice("s", "012345678", ("a", "abcd", "b"), 0),
    )
    text = model.tokenizer.decode
    scored = [(text(f.prompt), [text(c.ids) for c in f.completions]) for f in model.scored_examples]
    assert scored == [
        ("23456789", [" ab"]),
        ("456789", [" abcd"]),
        ("0123456", [" ab", " ac"]),
        ("012345678", [" a", " b"]),
        ("345678", [" abcd"]),
    ]
    assert [f.max_sequence_length <= 10 for f in model.scored_examples] == [True] * 5
    assert [i["detail"]["cut"] for i in items] == [True, False, True]
    assert [i["detail"]["tokens"] for i in items] == [[3, 5], [3, 3], [2, 5, 2]]


def test_cuts_are_counted(fake_model: Any) -> None:
    records = [Choice("s", "0" * n, ("ab", "cd"), 0) for n in range(1, 13)]
    settings = TaskSpec(name="hellaswag")
    result = run_task(settings, records, fake_model(context_length=10), split_label="test", seed=0)
    assert result.scores["counts"] == {"cut": 4}


def test_a_question_with_an_option_that_cannot_be_scored_is_left_out(fake_model: Any) -> None:
    """A tokenizer that drops a sign, and an ending (with its space) of more than 10 tokens."""
    model = fake_model(context_length=10)
    char_tokenizer = model.tokenizer
    model.tokenizer = PiDroppingTokenizer()
    records = [
        Choice("s", "x", ("ab", "π"), 0),
        Choice("s", "x", ("ab", "cd"), 0),
        Choice("s", "x", ("ab", "a" * 10), 0),
        Choice("s", "x", ("ab", "a" * 9), 0),
    ]
    settings = TaskSpec(name="hellaswag")
    result = run_task(settings, records, model, split_label="test", seed=0)
    assert [i["id"] for i in result.items] == [records[1].id, records[3].id]
    assert result.scores["counts"] == {
        "an option without tokens": 1,
        "an option longer than the context": 1,
    }
    assert result.scores["metrics"][0]["n"] == 2
    assert [char_tokenizer.decode(f.prompt) for f in model.scored_examples] == ["x", "x"]
    with pytest.raises(ZephyrError, match="nothing left to ask"):
        run_task(settings, records[:1], model, split_label="test", seed=0)


# -- against a plain computation -------------------------------------------------------------------


@pytest.fixture(scope="session")
def stories(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real pretrained network of 656,000 parameters."""
    import torch

    from zephyr.model.load import Lineage, load_model

    torch.set_num_threads(1)
    folder = real_data / "models/tinystories-656k"
    return load_model(Lineage(str(folder)), tmp_path_factory.mktemp("store"), token_budget=2048)


def _plain_logprobs(model: Any, prompt: list[int], completion: list[int]) -> list[float]:
    """One sequence, one forward of the library, one log_softmax; no tree, no packing."""
    import torch

    tokens = (prompt + completion)[-(model.context_length + 1) :]
    with torch.inference_mode():
        logits = model.causal(torch.tensor([tokens[:-1]])).logits[0].double()
    values = logits.log_softmax(-1)[range(len(tokens) - 1), tokens[1:]]
    return [float(v) for v in values[-len(completion) :]]


def test_hellaswag_equals_a_plain_computation(real_data: Path, stories: Any) -> None:
    path = real_data / "hellaswag/validation_first_5000.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(next(file)) for _ in range(20)]
    rows[0] = rows[0] | {"ctx": " ".join(row["ctx"] for row in rows)}  # longer than the context
    records = [Choice("hellaswag", r["ctx"], tuple(r["endings"]), int(r["label"])) for r in rows]
    items = evaluate(stories, *records)
    assert [i["detail"]["cut"] for i in items] == [True] + [False] * 19
    for row, item in zip(rows, items, strict=True):
        sums = []
        for ending in row["endings"]:
            context = stories.tokenizer(row["ctx"])["input_ids"]
            token_ids = stories.tokenizer(row["ctx"] + " " + ending)["input_ids"]
            sums.append(sum(_plain_logprobs(stories, context, token_ids[len(context) :])))
        assert item["detail"]["logprobs"] == pytest.approx(sums, abs=1e-4 * len(token_ids))
        per_character = [s / len(e) for s, e in zip(sums, row["endings"], strict=True)]
        assert item["scores"]["acc"] == (np.argmax(sums) == int(row["label"]))
        assert item["scores"]["acc_norm"] == (np.argmax(per_character) == int(row["label"]))
        assert item["detail"]["logprobs"] == pytest.approx(sums, abs=1e-3)
