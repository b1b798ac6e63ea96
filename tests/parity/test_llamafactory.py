"""BLEU-4 and ROUGE are LLaMA-Factory's, whose own code made the stored values."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.parity.imperfect import imperfect
from tests.parity.make_llamafactory import NAMES, OWN, ROWS, STORED, digest, own, real
from zephyr.evaluate.metrics import bleu4, rouge

ROUNDED = 0.5e-4 + 1e-9
"""What rounding to four digits can make of a score times 100."""


def check(name: str, right: list[str], rows: int) -> None:
    stored: dict[str, Any] = json.loads(STORED.read_text())[name]
    written = imperfect(right)
    assert digest(right + written) == stored["texts"], "run make_llamafactory again"
    assert len(right) == rows
    theirs = [stored["scores"][kind] for kind in NAMES]
    greatest = 0.0
    for at, (reference, answer) in enumerate(zip(right, written, strict=True)):
        ours = (bleu4(reference, answer), *rouge(reference, answer))
        gaps = [abs(100 * a - b[at]) for a, b in zip(ours, theirs, strict=True)]
        assert max(gaps) <= ROUNDED, (answer, gaps)
        greatest = max(greatest, *gaps)
    print(f"{name}: {rows} answers, greatest difference {greatest:.3g} points of 100")
    for values in theirs:
        middling = [5 < value < 95 for value in values]
        assert sum(middling) > rows / 2, "the test would not see a difference"


def test_answers_of_our_own() -> None:
    check("own", own(), OWN)


def test_real_answers(real_data: Path) -> None:
    check("real", real(real_data / "gsm8k/test.jsonl.gz"), ROWS)


@pytest.mark.parametrize("count", [1, 8, 17])
def test_imperfect_answers_are_the_same_everywhere(count: int) -> None:
    right = [f"{at} + 1 = {at + 1}. So it is.\n#### {at + 1}" for at in range(count)]
    assert imperfect(right) == imperfect(right)
    assert len(imperfect(right)) == count
