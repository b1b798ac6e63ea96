"""Zephyr worker: its tasks on a model, as an evaluation runs them."""

from pathlib import Path
from typing import Any

from bench.evaluation.job import Scorer, Scores, main
from bench.shared.worker import Job, read_rows
from zephyr.evaluate.scoring import run_task
from zephyr.model.example import to_token_ids
from zephyr.model.load import Lineage, load_model, silence_libraries
from zephyr.model.precision import Dtype
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice, Passage, Record

TASKS = {"hellaswag": "hellaswag", "mmlu": "mcqa_letter", "wikitext": "wikitext2_pages"}
TOKEN_BUDGET = 4096


def load(job: Job) -> Scorer:
    silence_libraries()
    dtype: Dtype = "bfloat16" if job.dtype == "bfloat16" else "float32"
    model = load_model(Lineage(job.model), Path("/"), token_budget=TOKEN_BUDGET, dtype=dtype)
    model.context_length = job.context
    shown = list(map(_record, read_rows(job.few_shot)))

    def rank(rows: list[dict[str, Any]]) -> Scores:
        task, records = TaskSpec(name=TASKS[job.task], shots=len(shown)), list(map(_record, rows))
        items = run_task(
            task, records, model, split_label="bench", few_shot_examples=shown, seed=0
        ).items
        if job.task == "wikitext":
            return Scores([[-item["scores"]["word_perplexity"]] for item in items], 0)
        return Scores([item["detail"]["logprobs"] for item in items], 0)

    def generate(rows: list[dict[str, Any]]) -> Scores:
        model.template.stop_token_ids = frozenset({-1})  # each row goes on to its own length
        prompts = [to_token_ids(model.tokenizer(row["prompt"])["input_ids"]) for row in rows]
        answers = model.generate(prompts, max_new_tokens=[row["tokens"] for row in rows])
        return Scores([], sum(len(answer.ids) for answer in answers))

    return generate if job.task == "gsm8k" else rank


def _record(row: dict[str, Any]) -> Record:
    if "page" in row:
        return Passage("bench", row["page"])
    text, label = row.get("query") or row["question"], row.get("label", row.get("answer"))
    return Choice("bench", text, tuple(row["choices"]), label, row.get("subject", ""))


if __name__ == "__main__":
    main(load, ("torch", "transformers"))
