"""Zephyr: its tasks, asked of a model as an evaluation does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.contenders.exam import Answers, Exam, main
from bench.contenders.job import read_rows
from zephyr.evaluate.scoring import run_task
from zephyr.model.example import to_token_ids
from zephyr.model.load import Lineage, load_model, silence_libraries
from zephyr.model.precision import Dtype
from zephyr.recipe.evaluation import TaskSpec
from zephyr.records import Choice, Passage, Record

TASKS = {"hellaswag": "hellaswag", "mmlu": "mcqa_letter", "wikitext": "wikitext2_pages"}
TOKEN_BUDGET = 4096


def ask(exam: Exam) -> Callable[[list[dict[str, Any]]], Answers]:
    silence_libraries()
    dtype: Dtype = "bfloat16" if exam.dtype == "bfloat16" else "float32"
    model = load_model(Lineage(exam.model), Path("/"), token_budget=TOKEN_BUDGET, dtype=dtype)
    model.context_length = exam.context
    shown = [_record(row) for row in read_rows(exam.shown)] if exam.shown else []

    def rank(rows: list[dict[str, Any]]) -> Answers:
        records = [_record(row) for row in rows]
        task = TaskSpec(name=TASKS[exam.work], shots=len(shown))
        items = run_task(
            task, records, model, split_label="bench", few_shot_examples=shown, seed=0
        ).items
        if exam.work == "wikitext":
            return Answers([[-i["scores"]["word_perplexity"]] for i in items], 0)
        return Answers([i["detail"]["logprobs"] for i in items], 0)

    def write(rows: list[dict[str, Any]]) -> Answers:
        model.template.stop_token_ids = frozenset({-1})  # each row goes on to its own length
        prompts = [to_token_ids(model.tokenizer(row["prompt"])["input_ids"]) for row in rows]
        made = model.generate(prompts, max_new_tokens=[row["tokens"] for row in rows])
        return Answers([[] for _ in made], sum(len(answer.ids) for answer in made))

    return write if exam.work == "gsm8k" else rank


def _record(row: dict[str, Any]) -> Record:
    if "page" in row:
        return Passage("bench", row["page"])
    options = tuple(row["choices"])
    text = row.get("query") or row["question"]
    return Choice(
        "bench", text, options, row.get("label", row.get("answer")), row.get("subject", "")
    )


if __name__ == "__main__":
    main(ask, ("torch", "transformers"))
