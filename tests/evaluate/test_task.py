import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from typing import Any, cast

import numpy as np
import pytest

from zephyr.data.readers.answer_key import LETTERS
from zephyr.errors import ZephyrError
from zephyr.evaluate.interface import sample
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.evaluate.tasks import TASKS, get_task
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record


def choices(n: int, options: int = 4, seed: int = 7) -> list[Choice]:
    """Questions with random options of random length, of which a random one is right."""
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.choices("abcdef", k=rng.randrange(2, 12)))

    return [
        Choice(
            ("left", "right")[i % 2],
            f"text {i}",
            tuple(f"{word()} {i} {k}" for k in range(options)),
            rng.randrange(options),
            subject=f"subject {i % 3}",
        )
        for i in range(n)
    ]


def pairs(n: int) -> list[Pair]:
    rng = random.Random(7)
    return [
        Pair(
            "source",
            (Message("user", f"question {i}"),),
            "good " * rng.randrange(1, 9),
            "bad  " * rng.randrange(1, 9),
            aspect=("truth", "manner")[i % 2],
        )
        for i in range(n)
    ]


def problems(n: int) -> list[Chat]:
    return [
        Chat(
            "source",
            (
                Message("user", f"What is {i} + 1?"),
                Message("assistant", f"One more.\n#### {i + 1}"),
            ),
        )
        for i in range(n)
    ]


RECORDS: dict[str, list[Any]] = {
    "hellaswag": choices(400),
    "mcqa": choices(400, options=5),
    "preferences": pairs(400),
    "gsm8k": problems(40),
    "lessons": problems(40),
    "tutoring": problems(40),
    "mcqa_letter": choices(400, options=5),
    "mcqa_written": choices(40),
    "wikitext2": [Passage("source", "abcdefgh" * 50)],
    "wikitext2_strided": [Passage("source", "abcdefgh" * 50)],
    "wikitext2_pages": [Passage("source", " = One = \n some words \n = Two = \n and more \n")],
}
PAGE_START = "\0"
"""Before the first token of a page."""
ONE_TEXT = {name for name in RECORDS if TASKS[name].is_single_text}


def perfect_model_functions(
    records: list[Any],
) -> tuple[Callable[[str, str], float], Callable[[str], str]]:
    """The log-probability and answer functions of a perfect model."""
    right = {" " + r.choices[r.answer] for r in records if isinstance(r, Choice)}
    right |= {r.chosen + "\0" for r in records if isinstance(r, Pair)}
    right |= {r.messages[-1].content + "\0" for r in records if isinstance(r, Chat)}
    answers = {
        f"user: {r.messages[0].content}\n": r.messages[1].content
        for r in records
        if isinstance(r, Chat)
    }
    passages = any(isinstance(r, Passage) for r in records)
    letters = {f"A. {r.choices[0]}\n": LETTERS[r.answer] for r in records if isinstance(r, Choice)}

    def letter(prompt: str) -> str:
        listed = (line for line in prompt.splitlines(keepends=True) if line.startswith("A. "))
        return letters.get(next(listed, ""), "")

    def logprob_fn(prompt: str, completion: str) -> float:
        is_right = completion in right or completion == f" {letter(prompt)}"
        return 0 if passages or is_right else -20

    return logprob_fn, answers.__getitem__ if answers else letter


def write_perfect_hint(prompt: str) -> str:
    """What a perfect tutor writes."""
    return "Here is one like it: 300 + 100 = 400. What do you do first?"


def record_id(record: Record) -> str:
    return record.id


def evaluate(name: str, model: Any, records: list[Any] | None = None, **extra: Any) -> EvalResult:
    settings = TaskSpec.model_validate({"name": name, **extra.pop("settings", {})})
    task_records = RECORDS[name] if records is None else records
    return run_task(settings, task_records, model, split_label="test", seed=42, **extra)


def metric_values(result: EvalResult) -> dict[str, float]:
    return {m["name"]: m["value"] for m in result.scores["metrics"]}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_perfect_model_has_a_perfect_score(name: str, fake_model: Any) -> None:
    reference = evaluate(name, fake_model()).items if name == "preferences" else None
    logprob_fn, answer_fn = perfect_model_functions(RECORDS[name])
    if name == "tutoring":
        answer_fn = write_perfect_hint
    result = evaluate(name, fake_model(logprob_fn, answer_fn), reference_items=reference)
    headlines = {m["name"]: m["value"] for m in result.scores["metrics"] if m["headline"]}
    perfect = {metric: 0 if metric == "bits_per_byte" else 1 for metric in headlines}
    assert headlines == pytest.approx(perfect, abs=1e-6)


@pytest.mark.parametrize(("name", "options"), [("hellaswag", 4), ("mcqa", 5), ("mcqa_letter", 5)])
def test_a_uniform_model_ranks_by_chance(name: str, options: int, fake_model: Any) -> None:
    """Chance lies in the 95 % interval in at least 17 of 20 draws of 200 questions."""
    covered = {"acc": 0, "acc_norm": 0}
    for seed in range(20):
        result = evaluate(name, fake_model(), choices(200, options, seed))
        scores = {m["name"]: m for m in result.scores["metrics"]}
        assert scores["chance"]["value"] == pytest.approx(1 / options)
        for metric in covered.keys() & scores.keys():
            covered[metric] += scores[metric]["low"] <= 1 / options <= scores[metric]["high"]
    assert covered["acc"] >= 17
    assert name == "mcqa_letter" or covered["acc_norm"] >= 17


def test_every_task_passes_these_tests() -> None:
    record_tasks = {name for name, task in TASKS.items() if task.record_kind is not None}
    assert RECORDS.keys() == record_tasks
    assert TASKS.keys() - record_tasks == {"footprint"}, (
        "which asks nothing: tests/quantize/test_stage.py"
    )


def test_a_uniform_model_prefers_by_chance(fake_model: Any) -> None:
    """Measured against a model that likes other tokens: the reward is a matter of length alone."""
    reference = evaluate("preferences", fake_model(lambda prompt, completion: -1.0)).items
    scores = {
        m["name"]: m
        for m in evaluate("preferences", fake_model(), reference_items=reference).scores["metrics"]
    }
    for metric in ("reward_accuracy", "policy_accuracy", "longer_accuracy"):
        assert scores[metric]["low"] <= 0.5 <= scores[metric]["high"]


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(fake_model: Any) -> None:
    result = evaluate("wikitext2", fake_model(context_length=100))
    assert metric_values(result)["perplexity"] == pytest.approx(50)
    assert all(i["weight"]["perplexity"] == 99 for i in result.items)


@pytest.mark.parametrize("name", sorted(set(RECORDS) - ONE_TEXT))
def test_the_order_of_items_changes_none(name: str, fake_model: Any) -> None:
    def logprob_fn(prompt: str, completion: str) -> float:
        return -1 - (sum(map(ord, prompt + completion)) % 97) / 97

    def answer_fn(prompt: str) -> str:
        return f"It is #### {len(prompt)}"

    shuffled = random.Random(1).sample(RECORDS[name], len(RECORDS[name]))
    reference = evaluate(name, fake_model(), shuffled).items if name == "preferences" else None
    original = evaluate(name, fake_model(logprob_fn, answer_fn), reference_items=reference)
    reordered = evaluate(
        name, fake_model(logprob_fn, answer_fn), shuffled, reference_items=reference
    )
    items_by_id = {i["id"]: i for i in reordered.items}
    assert [i["id"] for i in original.items] != [i["id"] for i in reordered.items]
    assert all(items_by_id[i["id"]] == i for i in original.items)
    assert metric_values(original) == pytest.approx(metric_values(reordered))


def test_a_sample_depends_on_seed_and_content_alone() -> None:
    records = choices(300)
    sampled = sample(records, 50, 1, record_id)
    assert len(sampled) == 50
    assert sampled == [r for r in records if r in sampled] != records[:50]
    assert {r.id for r in sample(records[::-1], 50, 1, record_id)} == {r.id for r in sampled}
    assert {r.id for r in sample(records, 50, 2, record_id)} != {r.id for r in sampled}
    assert sample(records, None, 1, record_id) == sample(records, 999, 1, record_id) == records


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    records = choices(300)
    assert {r.id for r in sample(records, 20, 3, record_id)} < {
        r.id for r in sample(records, 90, 3, record_id)
    }


def test_every_record_is_sampled_equally_often() -> None:
    """Each of 20 is sampled by a quarter of 2,000 seeds: 500, within five times 19.4."""
    records = choices(20)
    counts = dict.fromkeys((r.id for r in records), 0)
    for seed in range(2_000):
        for r in sample(records, 5, seed, record_id):
            counts[r.id] += 1
    assert max(abs(count - 500) for count in counts.values()) < 97


def test_scores_name_their_protocol_and_count_what_was_not_sampled(fake_model: Any) -> None:
    result = evaluate("hellaswag", fake_model(), settings={"n": 100})
    [acc_norm, acc, chance] = result.scores["metrics"]
    assert (
        acc_norm["protocol"] == "hellaswag@1 · rank · acc_norm (characters) · 0-shot · test · n=100"
    )
    assert acc["protocol"] == "hellaswag@1 · rank · acc · 0-shot · test · n=100"
    assert (acc["kind"], acc["better"], acc["scale"], acc["n"]) == (
        "proportion",
        "higher",
        100,
        100,
    )
    assert chance["better"] is None
    assert result.scores["counts"] == {"not drawn": 300}
    assert result.scores["empty"] is None


def test_groups_are_scored_apart(fake_model: Any) -> None:
    result = evaluate("mcqa", fake_model())
    groups = result.scores["groups"]
    subjects = [f"subject {i}" for i in range(3)]
    assert list(groups) == [*subjects, "source: left", "source: right"]
    assert sum(groups[name]["acc"]["n"] for name in subjects) == 400
    right = [i["scores"]["acc"] for i in result.items if i["source"] == "right"]
    assert groups["source: right"]["acc"]["value"] == np.mean(right)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_results_are_plain_json(name: str, fake_model: Any) -> None:
    result = evaluate(name, fake_model())
    assert json.loads(json.dumps(result._asdict(), allow_nan=False)) == result._asdict()
    for item in result.items:
        assert item.keys() >= {"id", "source", "group", "scores", "detail"}
        assert "request" in item["detail"]


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("name", sorted(set(RECORDS) - {"gsm8k", "tutoring", "mcqa_written"}))
def test_what_is_no_number_is_never_a_score(name: str, bad: float, fake_model: Any) -> None:
    def logprob_fn(prompt: str, completion: str) -> float:
        return (
            bad
            if any(text in prompt for text in ("text 7", "question 7", "What is 7 +"))
            or prompt in ("a", PAGE_START)
            else -1
        )

    with pytest.raises(ZephyrError, match=rf"'{name}' has no score") as caught:
        evaluate(name, fake_model(logprob_fn))
    assert "items, such as" in str(caught.value)


def test_nothing_to_ask_is_an_error(fake_model: Any) -> None:
    with pytest.raises(ZephyrError, match="nothing to ask"):
        evaluate("hellaswag", fake_model(), [])


def test_records_of_another_kind_are_an_error(fake_model: Any) -> None:
    with pytest.raises(ZephyrError, match="can't ask this source") as caught:
        evaluate("hellaswag", fake_model(), problems(3))
    assert "records of kind chat" in str(caught.value)


def test_an_unknown_task_is_an_error() -> None:
    with pytest.raises(ZephyrError, match="nearest: hellaswag"):
        get_task("helaswag")


def test_a_table_of_tasks_without_the_libraries_of_models() -> None:
    code = "import sys, zephyr.evaluate.scoring\nprint(*(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "jieba", "nltk", "rouge_chinese", "tokenizers"}
    assert not heavy & set(done.stdout.split())


def test_names_of_metrics_are_unique() -> None:
    for name, task in TASKS.items():
        assert name == task.name
        names = [m.name for m in task.metrics]
        assert all(a != b for a, b in permutations(names, 2))
        assert task.metrics[0].headline == (task.record_kind is not None)


def test_an_item_is_one_record(fake_model: Any) -> None:
    records: list[Record] = [*RECORDS["hellaswag"]]
    assert [i["id"] for i in evaluate("hellaswag", fake_model()).items] == [r.id for r in records]


def test_an_amount_is_never_below_zero() -> None:
    """Five readings of a busy machine vary so much that a mean's interval would go below zero."""

    class Benchmark:
        device_and_dtype = ("cpu", "float32")

        def measure(self) -> list[dict[str, float]]:
            sizes = {"disk": 1.0, "memory": 1.0}
            rates = (1000.0, 1010.0, 990.0, 1005.0, 30.0)
            return [sizes | {"prompt": rate, "decode": rate} for rate in rates]

    settings, model = TaskSpec(name="footprint"), cast("Any", Benchmark())
    result = run_task(settings, [], model, split_label="all", seed=0)
    decode = {metric["name"]: metric for metric in result.scores["metrics"]}["decode"]
    assert decode["low"] == 0 < decode["value"] == 807
