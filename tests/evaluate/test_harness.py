"""Tasks of lm-evaluation-harness: the same answers as of its own class on the same network."""

import json
import math
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.evaluate import harness
from zephyr.evaluate.scoring import EvalResult, run_task
from zephyr.evaluate.tasks import get_task, resolve_few_shot_sources, resolve_sources
from zephyr.model.load import build_model
from zephyr.model.model import Model
from zephyr.recipe.evaluation import TaskSpec

pytestmark = pytest.mark.filterwarnings("default")  # the harness and what it imports

ROWS = [
    {"q": f"What is {a} + {b}?", "options": [str(a + b), str(a - b), "a force"], "right": a % 3}
    for a in range(2, 8)
    for b in (1, 2)
]
TEXTS = ["A force changes how a body moves. " * k for k in (1, 3, 9)]  # the last has two windows
TASKS: dict[str, dict[str, Any]] = {
    "choose": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{q}}\nAnswer:",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{right}}",
        "fewshot_split": "train",
        "metric_list": [
            {"metric": m, "aggregation": "mean", "higher_is_better": True}
            for m in ("acc", "acc_norm", "exact_match")
        ],
    },
    "write": {
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{options[0]}}",
        "generation_kwargs": {"until": ["e", "\n\n"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
            {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True},
        ],
        "filter_list": [
            {
                "name": "first",
                "filter": [
                    {"function": "regex", "regex_pattern": "([a-z]+)"},
                    {"function": "take_first"},
                ],
            },
            {"name": "whole", "filter": [{"function": "take_first"}]},
        ],
    },
    "read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            {"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ],
    },
    "go_on": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{' ' + options[0]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks_folder = tmp_path_factory.mktemp("tasks")
    files = {"docs": ROWS, "shown": ROWS[::-1], "texts": [{"text": text} for text in TEXTS]}
    for name, rows in files.items():
        (tasks_folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        data = {"test": str(tasks_folder / f"{'texts' if name == 'read' else 'docs'}.jsonl")}
        if "fewshot_split" in task:
            data["train"] = str(tasks_folder / "shown.jsonl")
        task_config = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": data, "cache_dir": str(tasks_folder / "cache")},
            "test_split": "test",
            "metadata": {"version": 3.0},
        }
        (tasks_folder / f"{name}.yaml").write_text(yaml.safe_dump({**task_config, **task}))
    both = {"group": "both", "task": ["choose", "go_on"]}
    (tasks_folder / "both.yaml").write_text(yaml.safe_dump(both))
    return tasks_folder


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(3)
    network = tiny.qwen2()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(6)
    return build_model(network, tiny.tokenizer(), token_budget=512)


def evaluate(model: Model, folder: Path, name: str, **settings: Any) -> EvalResult:
    task = TaskSpec(name=f"lm_eval:{name}", path=str(folder), **settings)
    return run_task(task, [], model, split_label="test", seed=5)


def run_harness(model: Model, folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    """What the harness says of its own class on the same network."""
    lm = HFLM(pretrained=model.causal, tokenizer=model.tokenizer, batch_size=4, device="cpu")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        lm, tasks=[name], task_manager=manager, bootstrap_iters=0, **settings
    )
    return found


def metric_values(result: EvalResult) -> dict[str, float]:
    return {m["name"]: m["value"] for m in result.scores["metrics"]}


@pytest.mark.parametrize("shots", [None, 2])
def test_choices_are_scored_as_by_the_harness(
    model: Model, folder: Path, shots: int | None
) -> None:
    ours = evaluate(model, folder, "choose", shots=shots)
    found = run_harness(model, folder, "choose", num_fewshot=shots)
    for item, row in zip(ours.items, found["samples"]["choose"], strict=True):
        assert item["detail"]["request"] == row["arguments"][0][0]
        assert item["detail"]["logprobs"] == pytest.approx(
            [answer[0][0] for answer in row["resps"]], abs=1e-4
        )
        assert item["scores"] == {m: row[m] for m in row["metrics"]}
        assert float(item["detail"]["chosen"] == item["detail"]["answer"]) == row["acc"]
    expected = found["results"]["choose"]
    assert metric_values(ours) == {
        m: expected[f"{m},none"] for m in ("acc", "acc_norm", "exact_match")
    }
    assert {m["kind"] for m in ours.scores["metrics"]} == {"proportion"}
    assert f"task version 3.0 · {shots or 0}-shot" in ours.scores["metrics"][0]["protocol"]


def test_answers_are_written_as_by_the_harness(model: Model, folder: Path) -> None:
    ours = evaluate(model, folder, "write")
    found = run_harness(model, folder, "write")
    rows = [r for r in found["samples"]["write"] if r["filter"] == "whole"]
    texts = [item["detail"]["output"] for item in ours.items]
    assert texts == [row["resps"][0][0] for row in rows]
    assert len(set(texts)) > 1
    assert {"stop string", "length"} & {item["detail"]["ended"] for item in ours.items}
    expected = found["results"]["write"]
    for label in ("exact_match,first", "exact_match,whole"):
        assert metric_values(ours)[label] == expected[label]
    corpus = next(m for m in ours.scores["metrics"] if m["name"] == "bleu,whole")
    assert corpus["value"] is None
    assert f"by lm-eval {expected['bleu,whole']:.6g}" in corpus["empty"]


def test_texts_are_read_as_by_the_harness(model: Model, folder: Path) -> None:
    ours = evaluate(model, folder, "read")
    found = run_harness(model, folder, "read")
    for item, row in zip(ours.items, found["samples"]["read"], strict=True):
        assert -item["scores"]["word_perplexity"] == pytest.approx(row["resps"][0][0], rel=1e-5)
    expected = found["results"]["read"]
    for name, value in metric_values(ours).items():
        assert value == pytest.approx(expected[f"{name},none"], rel=1e-5)
    kinds = {m["name"]: m["kind"] for m in ours.scores["metrics"]}
    assert kinds == {
        "word_perplexity": "exp-mean",
        "byte_perplexity": "exp-mean",
        "bits_per_byte": "mean",
    }


def test_the_greedy_flag_is_that_of_the_harness(model: Model, folder: Path) -> None:
    lm = HFLM(pretrained=model.causal, tokenizer=model.tokenizer, batch_size=1, device="cpu")
    prompts = [row["q"] for row in ROWS]
    greedy = model.generate([encode(model, text) for text in prompts], max_new_tokens=3)
    rows = [
        {**row, "options": [model.tokenizer.decode(g.ids.tolist())]}
        for row, g in list(zip(ROWS, greedy, strict=True))[::2]
    ] + ROWS[1::2]
    requests = [
        lm_eval.api.instance.Instance(
            request_type="loglikelihood", doc=row, arguments=(row["q"], row["options"][0]), idx=0
        )
        for row in rows
        if row["options"][0]
    ]
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    from zephyr.evaluate.harness_model import LmEvalModel

    settings = TaskSpec(name="lm_eval:go_on", path=str(folder))
    ours = LmEvalModel(model, settings, 0, manager.load("go_on")["tasks"])
    pairs = list(zip(ours.loglikelihood(requests), lm.loglikelihood(requests), strict=True))
    assert [a[1] for a, _ in pairs] == [b[1] for _, b in pairs]
    assert {a[1] for a, _ in pairs} == {True, False}
    assert [a[0] for a, _ in pairs] == pytest.approx([b[0] for _, b in pairs], abs=1e-4)


def encode(model: Model, text: str) -> Any:
    from zephyr.model.example import to_token_ids

    return to_token_ids(model.tokenizer(text)["input_ids"])


def test_perplexity_of_completions(model: Model, folder: Path) -> None:
    ours, found = evaluate(model, folder, "go_on"), run_harness(model, folder, "go_on")
    expected = found["results"]["go_on"]
    assert metric_values(ours)["perplexity"] == pytest.approx(expected["perplexity,none"], rel=1e-4)
    assert metric_values(ours)["acc"] == expected["acc,none"]
    assert ours.scores["metrics"][0]["better"] == "lower"


def test_a_group_asks_all_of_its_tasks(model: Model, folder: Path) -> None:
    ours = evaluate(model, folder, "both")
    assert {item["group"] for item in ours.items} == {"choose", "go_on"}
    assert len({item["id"] for item in ours.items}) == len(ours.items) == 2 * len(ROWS)
    right = [i["scores"]["acc"] for i in ours.items]
    assert metric_values(ours)["acc"] == pytest.approx(sum(right) / len(right))


def test_n_documents_are_sampled_by_the_seed(model: Model, folder: Path) -> None:
    all_items = {item["id"]: item for item in evaluate(model, folder, "choose").items}
    some = evaluate(model, folder, "choose", n=5)
    assert some.scores["counts"] == {"not drawn": len(ROWS) - 5}
    assert len(some.items) == 5
    for item in some.items:
        assert item["detail"]["request"] == all_items[item["id"]]["detail"]["request"]
        assert item["detail"]["logprobs"] == pytest.approx(
            all_items[item["id"]]["detail"]["logprobs"], abs=1e-4
        )


def test_the_chat_template_is_the_models(model: Model, folder: Path) -> None:
    request = evaluate(model, folder, "choose", chat=True, n=1).items[0]["detail"]["request"]
    messages = [{"role": "user", "content": "Question: "}]
    before = model.tokenizer.apply_chat_template(messages, tokenize=False).partition("Question:")[0]
    assert request.startswith(f"{before}Question: What is")
    assert request != before


def test_tasks_that_can_not_be_run_are_refused(model: Model, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ZephyrError, match="nearest: choose"):
        evaluate(model, folder, "chose")
    for name, change, message in (
        ("longer", {"generation_kwargs": {"until": ["e"], "max_gen_toks": 128}}, "longer answers"),
        ("beams", {"generation_kwargs": {"until": ["e"], "num_beams": 4}}, "num_beams: 4"),
        (
            "away",
            {"dataset_path": "nobody/nothing", "dataset_kwargs": {}},
            "can't be read on this machine",
        ),
    ):
        task_config = yaml.safe_load((folder / "write.yaml").read_text()) | {"task": name} | change
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(task_config))
        with pytest.raises(ZephyrError, match=message):
            evaluate(model, tmp_path, name)
    assert len(evaluate(model, tmp_path, "longer", max_new_tokens=4).items) == len(ROWS)


def test_broken_log_probabilities_are_refused(folder: Path) -> None:
    broken = build_model(tiny.qwen2(), tiny.tokenizer(), token_budget=512)
    with torch.no_grad():
        broken.causal.model.norm.weight.fill_(math.nan)
    with pytest.raises(ZephyrError, match="not all finite"):
        evaluate(broken, folder, "choose")


def test_without_the_extra_the_command_to_install_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> str:
        raise harness.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(harness.importlib.metadata, "version", absent)
    with pytest.raises(ZephyrError, match=r"pip install 'zephyr-tutor\[lm-eval\]'"):
        get_task("lm_eval:arc_easy")


def test_a_recipe_names_such_a_task(folder: Path) -> None:
    task = TaskSpec(name="lm_eval:choose", path=folder.name, shots=0)
    assert task.key == "lm_eval:choose"
    assert task.spec() == {"name": "lm_eval:choose", "path": folder.name, "shots": 0}
    assert resolve_sources(task) == resolve_few_shot_sources(task) == ()
    for wrong in (
        {"name": "hellaswag", "path": "x"},
        {"name": "lm_eval:choose", "sources": ["hellaswag"]},
        {"name": "other:choose"},
    ):
        with pytest.raises(ValueError, match=r"path|brings its own data|pattern"):
            TaskSpec.model_validate(wrong)
    before = harness.fingerprint_content(task, folder.parent)
    with pytest.raises(ZephyrError, match="has no `temperature`"):
        resolve_sources(task.model_copy(update={"temperature": 1.0}))
    (folder / "note.txt").write_text("x")
    assert harness.fingerprint_content(task, folder.parent) != before
