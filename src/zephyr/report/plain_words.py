"""The results in plain words: a sentence for each model, and notes on scores easily misread."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from zephyr.report.results import Cell, ModelRow, Results
from zephyr.report.tables import format_number, round_up_items
from zephyr.runs.store import read_json_lines
from zephyr.stats.significance import binomial_tail

REWARD, POLICY = "reward_accuracy", "policy_accuracy"
LETTER_TASKS = ("mcqa_letter", "mcqa_written")
MIN_LETTER_SHARE = 0.75
"""The share of questions from which on a model is said to pick one letter."""
MAX_TAIL = 0.001
"""How likely so many picks of a letter may be, if it is picked as often as it is right."""


def model_sentences(results: Results) -> list[str]:
    """A sentence for each model that comes from another: where it is better, worse, or neither.

    It tells the verdicts on primary metrics, one a task.
    """
    return [
        sentence
        for row in results.rows
        if row.parent is not None and (sentence := _model_sentence(results, row, row.parent))
    ]


def _model_sentence(results: Results, row: ModelRow, parent: str) -> str:
    tasks: dict[str, list[str]] = {"better": [], "worse": [], "cannot tell": []}
    could_tell: list[tuple[int, str]] = []
    for at in results.primary_indices:
        difference, task = row.cells[at].difference, results.columns[at].task
        if difference is not None and difference.verdict is not None:
            tasks[difference.verdict].append(task)
            if difference.items_needed is not None:
                could_tell.append((round_up_items(difference.items_needed), task))
    verbs = (("better", "better at"), ("worse", "worse at"), ("cannot tell", "cannot tell at"))
    parts = [f"{words} {', '.join(tasks[verdict])}" for verdict, words in verbs if tasks[verdict]]
    if could_tell:
        count, task = min(could_tell)
        parts.append(f"about {count:,} items of {task} could")
    return f"{row.model} against {parent}: {'; '.join(parts)}." if parts else ""


def score_notes(results: Results) -> list[str]:
    """Notes on scores that are easily misread: rewards, and models that pick one letter."""
    return [*_reward_notes(results), *_letter_notes(results)]


def _reward_notes(results: Results) -> Iterator[str]:
    """What reward accuracy compares, where models have references of their own."""
    for task in results.recipe.evaluate.tasks:
        rewards = _cells_of(results, task.key, REWARD)
        references = {model: _reference(cell) for model, cell in rewards.items()}
        if len(set(references.values())) < 2:
            continue
        models = {
            named: [model for model, found in references.items() if found == named]
            for named in references.values()
        }
        against = "; ".join(f"{named} for {', '.join(who)}" for named, who in models.items())
        policies = ", ".join(
            f"{model} {format_number(cell.estimate.value, cell.column.scale)}"
            for model, cell in _cells_of(results, task.key, POLICY).items()
            if cell.estimate is not None
        )
        yield (
            f"{task.key}: {REWARD} compares a model with the one before its training ({against}); "
            "rows with another reference are not to be compared. How often the chosen answer is "
            f"the likelier one, whatever came before ({POLICY}): {policies}."
        )


def _cells_of(results: Results, task: str, metric: str) -> dict[str, Cell]:
    """The cells with a value in a metric of a task, by model."""
    return {
        row.model: cell
        for row in results.rows
        for cell in row.cells
        if (cell.column.task, cell.column.metric) == (task, metric) and cell.estimate is not None
    }


def _reference(cell: Cell) -> str:
    """The model that rewards of a cell are measured against, as its protocol names it."""
    parts = (cell.protocol or "").split(" · ")
    return next((p.removeprefix("against ") for p in parts if p.startswith("against ")), "itself")


def _letter_notes(results: Results) -> Iterator[str]:
    """Models that pick one letter in most questions, more often than it is right."""
    for task in results.recipe.evaluate.tasks:
        if task.name not in LETTER_TASKS:
            continue
        for row in results.rows:
            node = results.nodes.get(f"{row.model}/{task.key}")
            if node is not None and node.state == "finished":
                items = read_json_lines(node.run.artifact / "items.jsonl")
                if found := _one_letter(item["detail"] for item in items):
                    letter, picked, count = found
                    yield (
                        f"{task.key}: {row.model} picks {letter} in {picked} of {count} questions, "
                        "far more often than it is right: its score says little of what it knows."
                    )


def _one_letter(details: Iterable[Any]) -> tuple[str, int, int] | None:
    """The letter that is picked in most questions, how often, and in how many; None if none is."""
    answered = [d for d in details if d["chosen"] is not None]
    if not answered:
        return None
    count = len(answered)
    option, picked = Counter(d["chosen"] for d in answered).most_common(1)[0]
    right = sum(d["answer"] == option for d in answered) / count
    by_chance = sum(1 / len(d["choices"]) for d in answered) / count
    tail = binomial_tail(picked, count, max(right, by_chance))
    if picked < MIN_LETTER_SHARE * count or tail > MAX_TAIL:
        return None
    return chr(ord("A") + option), picked, count
