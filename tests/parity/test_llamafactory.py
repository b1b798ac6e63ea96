"""BLEU-4 and ROUGE are LLaMA-Factory's, whose own code made the stored values."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.parity.corruption import corrupt_answers
from tests.parity.make_llamafactory import (
    METRIC_NAMES,
    NUM_EMBEDDED,
    NUM_REAL,
    STORED,
    embedded_answers,
    read_real_answers,
    texts_digest,
)
from zephyr.evaluate.metrics import bleu4, rouge

ROUNDING_TOLERANCE = 0.5e-4 + 1e-9
"""What rounding to four digits can make of a score times 100."""


def check_scores(name: str, references: list[str], rows: int) -> None:
    stored: dict[str, Any] = json.loads(STORED.read_text())[name]
    answers = corrupt_answers(references)
    assert texts_digest(references + answers) == stored["texts"], "run make_llamafactory again"
    assert len(references) == rows
    theirs = [stored["scores"][kind] for kind in METRIC_NAMES]
    max_difference = 0.0
    for at, (reference, answer) in enumerate(zip(references, answers, strict=True)):
        ours = (bleu4(reference, answer), *rouge(reference, answer))
        differences = [abs(100 * a - b[at]) for a, b in zip(ours, theirs, strict=True)]
        assert max(differences) <= ROUNDING_TOLERANCE, (answer, differences)
        max_difference = max(max_difference, *differences)
    print(f"{name}: {rows} answers, greatest difference {max_difference:.3g} points of 100")
    for values in theirs:
        is_middling = [5 < value < 95 for value in values]
        assert sum(is_middling) > rows / 2, "the test would not see a difference"


def test_embedded_answers() -> None:
    check_scores("own", embedded_answers(), NUM_EMBEDDED)


def test_real_answers(real_data: Path) -> None:
    check_scores("real", read_real_answers(real_data / "gsm8k/test.jsonl.gz"), NUM_REAL)


@pytest.mark.parametrize("count", [1, 8, 17])
def test_corrupted_answers_are_the_same_everywhere(count: int) -> None:
    answers = [f"{at} + 1 = {at + 1}. So it is.\n#### {at + 1}" for at in range(count)]
    assert corrupt_answers(answers) == corrupt_answers(answers)
    assert len(corrupt_answers(answers)) == count
