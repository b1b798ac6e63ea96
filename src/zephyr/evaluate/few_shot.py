"""Few-shot examples: selects them for a question, and renders them into the prompt.

From the pool, `shots` examples of the question's subject (or of its source, if it has no subject)
are sampled with the recipe's seed, and kept in the pool's order: for MMLU with its five examples
these are those of lm-evaluation-harness. A question is never its own example.
"""

from collections.abc import Callable, Sequence

from zephyr.errors import ZephyrError
from zephyr.evaluate.interface import EvalSettings, sample
from zephyr.records import Choice

EXAMPLE_SEPARATOR = "\n\n"
"""The separator after each few-shot example."""


class FewShotPool:
    """The few-shot examples of a task, by source and subject."""

    def __init__(self, settings: EvalSettings) -> None:
        self.shots, self.seed = settings.task.shots or 0, settings.seed
        self.where = f"evaluate.tasks.{settings.task.key}.shots"
        self._by_topic: dict[tuple[str, str], list[Choice]] = {}
        for record in settings.few_shot_examples:
            assert isinstance(record, Choice), "examples are of the kind that the task asks"
            for topic in {(record.source, record.subject), ("", record.subject)}:
                self._by_topic.setdefault(topic, []).append(record)

    def select_examples(self, record: Choice) -> list[Choice]:
        """Selects the few-shot examples for a question.

        Raises:
            ZephyrError: there are too few.
        """
        if not self.shots:
            return []
        same_source = self._by_topic.get((record.source, record.subject))
        same_topic = same_source or self._by_topic.get(("", record.subject), [])
        candidates = [example for example in same_topic if example.group != record.group]
        if len(candidates) < self.shots:
            topic = f"subject {record.subject!r}" if record.subject else f"source {record.source}"
            raise ZephyrError(
                f"there are too few worked examples for {topic}",
                where=self.where,
                found=f"{len(candidates)} examples, shots: {self.shots}",
                todo="lower `shots`, or give more under `examples:`",
            )
        return sample(candidates, self.shots, self.seed, lambda example: example.id)


def render_examples(
    examples: Sequence[Choice],
    render_question: Callable[[Choice], str],
    render_answer: Callable[[Choice], str],
) -> str:
    """Renders the few-shot examples, each with its right answer after a space."""
    return "".join(
        f"{render_question(example)} {render_answer(example)}{EXAMPLE_SEPARATOR}"
        for example in examples
    )


def shots_label(settings: EvalSettings) -> str:
    """The number of few-shot examples, as a part of the protocol ("5-shot")."""
    return f"{settings.task.shots or 0}-shot"
