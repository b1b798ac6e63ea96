"""lm-evaluation-harness worker: its own tasks and model class on rows of a local file."""

import json
import logging
import tempfile
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

from bench.evaluation.job import Scorer, Scores, main
from bench.shared.worker import Job, read_rows

FILES = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "mmlu": "mmlu/default/_default_template_yaml",
    "wikitext": "wikitext/wikitext.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
}
DESCRIPTION = (
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
"""What a task's configuration says of its own data set; local rows of HellaSwag are processed."""


class _FixedLengths(LogitsProcessor):
    """Ends each row after as many tokens as its reference has, and no sooner."""

    def __init__(self, width: int, lengths: list[int], end: int) -> None:
        self.width, self.lengths, self.end = width, lengths, end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.end] = -torch.inf
        for row, length in enumerate(self.lengths):
            if input_ids.shape[1] - self.width >= length:
                scores[row] = -torch.inf
                scores[row, self.end] = 0
        return scores


class _Model(HFLM):
    """The harness's model, whose answers have the lengths of their references."""

    lengths: dict[tuple[int, ...], int]
    generated: int = 0

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any
    ) -> torch.Tensor:
        mask = kwargs["attention_mask"].bool()
        lengths = [
            self.lengths[tuple(row[kept].tolist())] for row, kept in zip(context, mask, strict=True)
        ]
        self.generated += sum(lengths)
        end = self.tokenizer.eos_token_id
        found: torch.Tensor = self.model.generate(
            input_ids=context,
            attention_mask=kwargs["attention_mask"],
            max_new_tokens=max(lengths) + 1,
            do_sample=False,
            logits_processor=[_FixedLengths(context.shape[1], lengths, end)],
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=end,
            use_cache=True,
        )
        return found


def load(job: Job) -> Scorer:
    logging.disable(logging.WARNING)
    kind = AutoTokenizer if job.dtype == "bfloat16" else PreTrainedTokenizerFast
    tokenizer = kind.from_pretrained(job.model)  # TinyStories's by its own file
    network = AutoModelForCausalLM.from_pretrained(job.model, dtype=job.dtype).to(job.device)
    model = _Model(
        pretrained=network.eval(),
        tokenizer=tokenizer,
        batch_size=job.batch,
        max_length=job.context,
        device=job.device,
    )

    def score(rows: list[dict[str, Any]]) -> Scores:
        model.generated = 0
        config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / FILES[job.task])
        config = {k: v for k, v in config.items() if k not in LEFT_OUT} | {"task": job.task}
        if job.task == "mmlu":
            config["description"] = DESCRIPTION
        if job.task == "gsm8k":
            generation = {"until": ["\0"], "max_gen_toks": 1, "do_sample": False}
            config |= {"doc_to_text": "{{prompt}}", "num_fewshot": 0}
            config["generation_kwargs"] = generation
            model.lengths = {tuple(model.tok_encode(row["prompt"])): row["tokens"] for row in rows}
        samples = _samples(model, config, rows, job)
        if job.task == "gsm8k":
            return Scores([], model.generated)
        if job.task == "wikitext":
            return Scores([[sample["word_perplexity"][0]] for sample in samples], 0)
        return Scores([[found[0] for found in s["filtered_resps"]] for s in samples], 0)

    return score


def _samples(
    model: _Model, config: dict[str, Any], rows: list[dict[str, Any]], job: Job
) -> list[dict[str, Any]]:
    """What the harness keeps of each row, in their order."""
    folder = Path(tempfile.mkdtemp(dir=job.folder))
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": str(folder / "docs.jsonl")}
    if shots := len(read_rows(job.few_shot)):
        files["dev"] = job.few_shot
        config = config | {"fewshot_split": "dev", "num_fewshot": shots}
    config = config | {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "test_split": "test",
    }
    task = ConfigurableTask(config=config)
    out = lm_eval.evaluate(model, {job.task: task}, log_samples=True, bootstrap_iters=0)
    samples: list[dict[str, Any]] = sorted(out["samples"][job.task], key=lambda s: s["doc_id"])
    return samples


if __name__ == "__main__":
    main(load, ("lm_eval", "torch", "transformers"))
