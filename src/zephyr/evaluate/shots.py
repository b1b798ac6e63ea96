"""Worked examples: what stands before a question, and which examples of a pool are shown.

Of the pool those of the question's own subject are taken (of its source where it names none), `k`
of them drawn by the recipe's seed and kept in the pool's order, so that five of MMLU's five are
those of lm-evaluation-harness. A question is never its own example.
"""

from collections.abc import Callable, Sequence

from zephyr.errors import ZephyrError
from zephyr.evaluate.asking import Settings, sample
from zephyr.records import Choice

GAP = "\n\n"
"""What stands after each example."""


class Pool:
    """The examples of a task, by what they are about."""

    def __init__(self, settings: Settings) -> None:
        self.k, self.seed = settings.task.shots or 0, settings.seed
        self.where = f"evaluate.tasks.{settings.task.key}.shots"
        self._by_topic: dict[tuple[str, str], list[Choice]] = {}
        for record in settings.examples:
            assert isinstance(record, Choice), "examples are of the kind that the task asks"
            for topic in {(record.source, record.subject), ("", record.subject)}:
                self._by_topic.setdefault(topic, []).append(record)

    def of(self, record: Choice) -> list[Choice]:
        """The examples that are shown before a question.

        Raises:
            ZephyrError: there are too few.
        """
        if not self.k:
            return []
        near = self._by_topic.get((record.source, record.subject))
        about = near or self._by_topic.get(("", record.subject), [])
        pool = [example for example in about if example.group != record.group]
        if len(pool) < self.k:
            topic = f"subject {record.subject!r}" if record.subject else f"source {record.source}"
            raise ZephyrError(
                f"there are too few worked examples for {topic}",
                where=self.where,
                found=f"{len(pool)} examples, shots: {self.k}",
                todo="lower `shots`, or give more under `examples:`",
            )
        return sample(pool, self.k, self.seed, lambda example: example.id)


def before(
    shown: Sequence[Choice], ask: Callable[[Choice], str], answer: Callable[[Choice], str]
) -> str:
    """The examples, each with its right answer after a blank."""
    return "".join(f"{ask(example)} {answer(example)}{GAP}" for example in shown)


def said(settings: Settings) -> str:
    """How many examples are shown, as a part of the protocol."""
    return f"{settings.task.shots or 0}-shot"
