"""lm-evaluation-harness: its own tasks on its own model class, with rows of a local file."""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    PreTrainedTokenizerFast,
)

from bench.contenders.exam import Answers, Exam, main

FILES = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "mmlu": "mmlu/default/_default_template_yaml",
    "wikitext": "wikitext/wikitext.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
}
ABOUT = (
    "The following are multiple choice questions (with answers) about "
    "{{subject.replace('_', ' ')}}.\n\n"
)
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


class _Ends(LogitsProcessor):
    """Ends each row after as many tokens as its reference has, and no sooner."""

    def __init__(self, width: int, limits: list[int], end: int) -> None:
        self.width, self.limits, self.end = width, limits, end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.end] = -torch.inf
        for row, limit in enumerate(self.limits):
            if input_ids.shape[1] - self.width >= limit:
                scores[row] = -torch.inf
                scores[row, self.end] = 0
        return scores


class _Model(HFLM):
    """The harness's model, whose answers end where they are told to."""

    limits: dict[tuple[int, ...], int]
    written: int = 0

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any
    ) -> torch.Tensor:
        mask = kwargs["attention_mask"].bool()
        limits = [
            self.limits[tuple(row[kept].tolist())] for row, kept in zip(context, mask, strict=True)
        ]
        self.written += sum(limits)
        ends = _Ends(context.shape[1], limits, self.tokenizer.eos_token_id)
        found: torch.Tensor = self.model.generate(
            input_ids=context,
            attention_mask=kwargs["attention_mask"],
            max_new_tokens=max(limits) + 1,
            do_sample=False,
            logits_processor=[ends],
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            use_cache=True,
        )
        return found


def ask(exam: Exam) -> Callable[[list[dict[str, Any]]], Answers]:
    logging.disable(logging.WARNING)
    dtype = torch.bfloat16 if exam.dtype == "bfloat16" else torch.float32
    kind = AutoTokenizer if exam.dtype == "bfloat16" else PreTrainedTokenizerFast
    tokenizer = kind.from_pretrained(exam.model)  # TinyStories's by its own file
    network = AutoModelForCausalLM.from_pretrained(exam.model, dtype=dtype).to(exam.device)
    model = _Model(
        pretrained=network.eval(),
        tokenizer=tokenizer,
        batch_size=exam.batch,
        max_length=exam.context,
        device=exam.device,
    )

    def asked(rows: list[dict[str, Any]]) -> Answers:
        model.written = 0
        config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / FILES[exam.work])
        config = {k: v for k, v in config.items() if k not in LEFT_OUT} | {"task": exam.work}
        if exam.work == "mmlu":
            config |= {"description": ABOUT}
        if exam.work == "gsm8k":
            config |= {"doc_to_text": "{{prompt}}", "num_fewshot": 0}
            config |= {
                "generation_kwargs": {"until": ["\0"], "max_gen_toks": 1, "do_sample": False}
            }
            model.limits = {tuple(model.tok_encode(row["prompt"])): row["tokens"] for row in rows}
        samples = _samples(model, config, rows, exam)
        if exam.work == "gsm8k":
            return Answers([[] for _ in samples], model.written)
        if exam.work == "wikitext":
            return Answers([[s["word_perplexity"][0]] for s in samples], 0)
        return Answers([[r[0] for r in s["filtered_resps"]] for s in samples], 0)

    return asked


def _samples(
    model: _Model, config: dict[str, Any], rows: list[dict[str, Any]], exam: Exam
) -> list[dict[str, Any]]:
    """What the harness keeps of each row, in their order."""
    folder = Path(tempfile.mkdtemp(dir=exam.folder))
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": str(folder / "docs.jsonl")}
    if exam.shown:
        files["dev"] = exam.shown
        shots = len(Path(exam.shown).read_text().splitlines())
        config = config | {"fewshot_split": "dev", "num_fewshot": shots}
    config = config | {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "test_split": "test",
    }
    task = ConfigurableTask(config=config)
    out = lm_eval.evaluate(model, {exam.work: task}, log_samples=True, bootstrap_iters=0)
    samples: list[dict[str, Any]] = sorted(out["samples"][exam.work], key=lambda s: s["doc_id"])
    return samples


if __name__ == "__main__":
    main(ask, ("lm_eval", "torch", "transformers"))
