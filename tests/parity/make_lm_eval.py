"""Writes lm_eval.json: what lm-evaluation-harness says of the rows on which tests run Zephyr.

    ZEPHYR_REAL_DATA=/path/to/data python -m tests.parity.make_lm_eval

The harness's own tasks are read from its package; only where their rows come from is changed, to
local files. Of the rows nothing is stored but the numbers.
"""

import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

from tests.parity import inputs
from zephyr.evaluate.page_perplexity import split_pages

HERE = Path(__file__).parent
TASKS_FOLDER = Path(lm_eval.__file__).parent / "tasks"
MMLU_DESCRIPTION = (
    "The following are multiple choice questions (with answers) about "
    "{{subject.replace('_', ' ')}}.\n\n"
)
"""The harness writes the subject out, in a file for each."""

DATA_SET_KEYS = (
    "include",
    "training_split",
    "validation_split",
    "fewshot_split",
    "tag",
    "dataset_name",
    "process_docs",
    "should_decontaminate",
    "doc_to_decontamination_query",
)
"""What a task says of its own data set; local rows of HellaSwag are processed already."""


def main() -> None:
    data = Path(os.environ["ZEPHYR_REAL_DATA"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tinystories, qwen2 = (
            make_harness_model(*inputs.load_tinystories(data)),
            make_harness_model(*inputs.make_random_qwen2(data, folder)),
        )
        hellaswag = [
            {"query": r["ctx"], "choices": r["endings"], "label": int(r["label"])}
            for r in inputs.evenly_spaced(
                inputs.read_rows(data / "hellaswag/validation_first_5000.jsonl.gz")
            )
        ]
        quizzes = inputs.read_rows(data / "arc/ARC-Challenge-Train.jsonl.gz")
        arc = [_convert_arc_row(r) for r in inputs.evenly_spaced(quizzes)]
        mmlu = inputs.read_rows(data / "mmlu/mmlu_test.jsonl.gz")
        subject_rows = [r for r in mmlu if r["subject"] == inputs.FEW_SHOT_SUBJECT]
        dev = inputs.read_rows(data / "mmlu/mmlu_dev.jsonl.gz")
        few_shot_docs = [r for r in dev if r["subject"] == inputs.FEW_SHOT_SUBJECT]
        wiki = [{"page": page} for page in split_pages(inputs.read_wikitext(data))]
        hellaswag_config = load_task_yaml("hellaswag/hellaswag.yaml")
        template = load_task_yaml("mmlu/default/_default_template_yaml")
        mmlu_config = {**template, "task": "mmlu", "description": MMLU_DESCRIPTION}
        results = {
            "versions": {name: version(name) for name in ("lm_eval", "transformers", "torch")},
            "hellaswag": {
                "tinystories": score_multiple_choice(
                    tinystories, hellaswag_config, hellaswag, folder
                ),
                "qwen2": score_multiple_choice(qwen2, hellaswag_config, hellaswag, folder),
            },
            "arc_challenge": {
                "tinystories": score_multiple_choice(tinystories, load_arc_yaml(), arc, folder),
                "qwen2": score_multiple_choice(qwen2, load_arc_yaml(), arc, folder),
            },
            "mmlu": {
                "tinystories": score_multiple_choice(
                    tinystories, mmlu_config, inputs.evenly_spaced(mmlu), folder
                ),
                "qwen2, 5 shots": score_multiple_choice(
                    qwen2, mmlu_config, inputs.evenly_spaced(subject_rows), folder, few_shot_docs
                ),
            },
            "wikitext": {
                "tinystories": score_pages(
                    tinystories, load_task_yaml("wikitext/wikitext.yaml"), wiki, folder
                ),
                "qwen2": score_pages(
                    qwen2, load_task_yaml("wikitext/wikitext.yaml"), wiki[:5], folder
                ),
            },
        }
    (HERE / "lm_eval.json").write_text(json.dumps(results, indent=None) + "\n")


def make_harness_model(network: Any, tokenizer: Any) -> Any:
    return HFLM(pretrained=network, tokenizer=tokenizer, batch_size=8, device="cpu")


def load_task_yaml(path: str) -> dict[str, Any]:
    """A task of the harness, as its file says."""
    found: dict[str, Any] = load_yaml(TASKS_FOLDER / path)
    return found


def load_arc_yaml() -> dict[str, Any]:
    return {**load_task_yaml("arc/arc_easy.yaml"), "task": "arc_challenge"}


def _convert_arc_row(row: dict[str, Any]) -> dict[str, Any]:
    options = row["question"]["choices"]
    return {
        "question": row["question"]["stem"],
        "choices": {"text": [o["text"] for o in options], "label": [o["label"] for o in options]},
        "answerKey": row["answerKey"],
    }


def _run_harness_task(
    model: Any,
    config: dict[str, Any],
    docs: list[dict[str, Any]],
    folder: Path,
    few_shot_docs: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The samples of the harness, in the order of the rows."""
    files = {"test": folder / "docs.jsonl"}
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    if few_shot_docs:
        files["dev"] = folder / "shown.jsonl"
        files["dev"].write_text("".join(json.dumps(doc) + "\n" for doc in few_shot_docs))
    task_config = {k: v for k, v in config.items() if k not in DATA_SET_KEYS} | {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {split: str(path) for split, path in files.items()},
            "cache_dir": tempfile.mkdtemp(dir=folder),
        },
        "test_split": "test",
    }
    if few_shot_docs:
        task_config |= {"fewshot_split": "dev", "num_fewshot": len(few_shot_docs)}
    task = ConfigurableTask(config=task_config)
    out = lm_eval.evaluate(model, {task_config["task"]: task}, log_samples=True, bootstrap_iters=0)
    samples: list[dict[str, Any]] = sorted(
        out["samples"][task_config["task"]], key=lambda s: s["doc_id"]
    )
    return samples


def score_multiple_choice(
    model: Any,
    config: dict[str, Any],
    docs: list[dict[str, Any]],
    folder: Path,
    few_shot_docs: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    samples = _run_harness_task(model, config, docs, folder, few_shot_docs or [])
    return {
        "logprobs": [[round(r[0], 6) for r in s["filtered_resps"]] for s in samples],
        **{m: [s[m] for s in samples] for m in ("acc", "acc_norm") if m in samples[0]},
    }


def score_pages(
    model: Any, config: dict[str, Any], docs: list[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    samples = _run_harness_task(model, config, docs, folder, [])
    return {
        "logprob": [round(s["word_perplexity"][0], 4) for s in samples],
        "words": [s["word_perplexity"][1] for s in samples],
        "bytes": [s["byte_perplexity"][1] for s in samples],
    }


if __name__ == "__main__":
    main()
