"""Writes lm_eval.json: what lm-evaluation-harness says of the rows that the tests ask Zephyr.

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

from tests.parity import questions
from zephyr.evaluate.page_perplexity import split_pages

HERE = Path(__file__).parent
TASKS = Path(lm_eval.__file__).parent / "tasks"
ABOUT = (
    "The following are multiple choice questions (with answers) about "
    "{{subject.replace('_', ' ')}}.\n\n"
)
"""The harness writes the subject out, in a file for each."""

LEFT_OUT = (
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
        stories, random = (
            harness(*questions.tinystories(data)),
            harness(*questions.random_qwen2(data, folder)),
        )
        hellaswag = [
            {"query": r["ctx"], "choices": r["endings"], "label": int(r["label"])}
            for r in questions.spread(
                questions.rows(data / "hellaswag/validation_first_5000.jsonl.gz")
            )
        ]
        quizzes = questions.rows(data / "arc/ARC-Challenge-Train.jsonl.gz")
        arc = [_arc(r) for r in questions.spread(quizzes)]
        mmlu = questions.rows(data / "mmlu/mmlu_test.jsonl.gz")
        few = [r for r in mmlu if r["subject"] == questions.SUBJECT]
        dev = questions.rows(data / "mmlu/mmlu_dev.jsonl.gz")
        shown = [r for r in dev if r["subject"] == questions.SUBJECT]
        wiki = [{"page": page} for page in split_pages(questions.wikitext(data))]
        endings = yaml("hellaswag/hellaswag.yaml")
        template = yaml("mmlu/default/_default_template_yaml")
        quiz = {**template, "task": "mmlu", "description": ABOUT}
        found = {
            "versions": {name: version(name) for name in ("lm_eval", "transformers", "torch")},
            "hellaswag": {
                "tinystories": ranked(stories, endings, hellaswag, folder),
                "qwen2": ranked(random, endings, hellaswag, folder),
            },
            "arc_challenge": {
                "tinystories": ranked(stories, arc_yaml(), arc, folder),
                "qwen2": ranked(random, arc_yaml(), arc, folder),
            },
            "mmlu": {
                "tinystories": ranked(stories, quiz, questions.spread(mmlu), folder),
                "qwen2, 5 shots": ranked(random, quiz, questions.spread(few), folder, shown),
            },
            "wikitext": {
                "tinystories": paged(stories, yaml("wikitext/wikitext.yaml"), wiki, folder),
                "qwen2": paged(random, yaml("wikitext/wikitext.yaml"), wiki[:5], folder),
            },
        }
    (HERE / "lm_eval.json").write_text(json.dumps(found, indent=None) + "\n")


def harness(network: Any, tokenizer: Any) -> Any:
    return HFLM(pretrained=network, tokenizer=tokenizer, batch_size=8, device="cpu")


def yaml(path: str) -> dict[str, Any]:
    """A task of the harness, as its file says."""
    found: dict[str, Any] = load_yaml(TASKS / path)
    return found


def arc_yaml() -> dict[str, Any]:
    return {**yaml("arc/arc_easy.yaml"), "task": "arc_challenge"}


def _arc(row: dict[str, Any]) -> dict[str, Any]:
    options = row["question"]["choices"]
    return {
        "question": row["question"]["stem"],
        "choices": {"text": [o["text"] for o in options], "label": [o["label"] for o in options]},
        "answerKey": row["answerKey"],
    }


def _asked(
    model: Any,
    config: dict[str, Any],
    docs: list[dict[str, Any]],
    folder: Path,
    shown: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The samples of the harness, in the order of the rows."""
    files = {"test": folder / "docs.jsonl"}
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    if shown:
        files["dev"] = folder / "shown.jsonl"
        files["dev"].write_text("".join(json.dumps(doc) + "\n" for doc in shown))
    kept = {k: v for k, v in config.items() if k not in LEFT_OUT} | {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {split: str(path) for split, path in files.items()},
            "cache_dir": tempfile.mkdtemp(dir=folder),
        },
        "test_split": "test",
    }
    if shown:
        kept |= {"fewshot_split": "dev", "num_fewshot": len(shown)}
    task = ConfigurableTask(config=kept)
    out = lm_eval.evaluate(model, {kept["task"]: task}, log_samples=True, bootstrap_iters=0)
    samples: list[dict[str, Any]] = sorted(out["samples"][kept["task"]], key=lambda s: s["doc_id"])
    return samples


def ranked(
    model: Any,
    config: dict[str, Any],
    docs: list[dict[str, Any]],
    folder: Path,
    shown: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    samples = _asked(model, config, docs, folder, shown or [])
    return {
        "logprobs": [[round(r[0], 6) for r in s["filtered_resps"]] for s in samples],
        **{m: [s[m] for s in samples] for m in ("acc", "acc_norm") if m in samples[0]},
    }


def paged(
    model: Any, config: dict[str, Any], docs: list[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    samples = _asked(model, config, docs, folder, [])
    return {
        "logprob": [round(s["word_perplexity"][0], 4) for s in samples],
        "words": [s["word_perplexity"][1] for s in samples],
        "bytes": [s["byte_perplexity"][1] for s in samples],
    }


if __name__ == "__main__":
    main()
