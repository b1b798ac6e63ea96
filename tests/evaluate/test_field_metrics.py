"""The field's own scores of an answer: sacreBLEU, rouge-score and lm-eval as oracles."""

import gzip
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.parity.corruption import corrupt_answers
from zephyr.evaluate.metrics import (
    SACREBLEU_SIGNATURE,
    flexible_match,
    google_rouge,
    sacrebleu,
    strict_match,
)
from zephyr.evaluate.tasks import get_task

TEXTS = [
    "Ada has 12 pens and buys 30. 12 + 30 = 42. Ada gives 5. 42 - 5 = 37.\n#### 37",
    "There are 6 boxes of 7 nuts. 6 x 7 = 42. Ben brings 8 more. 42 + 8 = 50.\n#### 50",
    "A book has 90 pages. Cleo reads 20 and 15. 20 + 15 = 35. 90 - 35 = 55.\n#### 55",
    "Dan pays $1,250.50 in all: $1,200 + $50.50.\n#### 1,250.50",
]
PAIRS = list(zip(TEXTS, corrupt_answers(TEXTS), strict=True))


def read_real_pairs(folder: Path) -> list[tuple[str, str]]:
    with gzip.open(folder / "gsm8k/test.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        answers = [json.loads(line)["answer"] for line in file][:300]
    return list(zip(answers, corrupt_answers(answers), strict=True))


def check_against_libraries(pairs: list[tuple[str, str]]) -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_bleu

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for reference, answer in pairs:
        assert sacrebleu(reference, answer) == sentence_bleu(answer, [reference]).score / 100
        theirs = scorer.score(reference, answer)
        ours = google_rouge(reference, answer)
        assert ours is not None
        assert ours._asdict() == {name: score.fmeasure for name, score in theirs.items()}


def test_sacrebleu_and_rouge_score_are_theirs() -> None:
    check_against_libraries(PAIRS)


def test_sacrebleu_and_rouge_score_are_theirs_on_real_answers(real_data: Path) -> None:
    check_against_libraries(read_real_pairs(real_data))


def test_the_signature_says_how() -> None:
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)
    scorer.sentence_score("a", ["a"])
    assert str(scorer.get_signature()).rpartition("|version:")[0] == SACREBLEU_SIGNATURE
    assert SACREBLEU_SIGNATURE in str(
        [metric.protocol_label for metric in get_task("gsm8k").metrics]
    )


def test_sacrebleu_by_hand() -> None:
    """Four of five words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 quadruples; orders 1 to 2."""
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert sacrebleu("a b c d e", "a b c d f") == pytest.approx(expected)
    assert sacrebleu("a b", "a b") == pytest.approx(1)
    assert sacrebleu("a b", "") == 0


def test_google_rouge_by_hand() -> None:
    """Two of three words, one of two pairs, two words in order; case and signs don't count."""
    assert google_rouge("the cat sat", "The cat, ran!") == pytest.approx((2 / 3, 1 / 2, 2 / 3))
    assert google_rouge("the cats", "the cat") == pytest.approx((1 / 2, 0, 1 / 2))
    assert google_rouge("a", "") == (0, 0, 0)


RUSSIAN, ARABIC, HINDI = "Ответ равен 5 метрам", "الجواب هو 5 أمتار", "उत्तर 5 मीटर है"
CHINESE, JAPANESE, THAI = "答案是五米长的绳子", "答えは五メートルです", "คำตอบคือห้าเมตร"


@pytest.mark.parametrize("text", [RUSSIAN, ARABIC, HINDI, CHINESE, JAPANESE, THAI])
def test_rouge_score_has_no_value_in_scripts_that_it_drops(text: str) -> None:
    """An answer that equals its reference would have 0 where no digit stands in it."""
    assert google_rouge(text, text) is None
    assert google_rouge("five metres", text) == (0, 0, 0)


@pytest.mark.parametrize("text", ["Größe: fünf Meter", "déjà vu à Orléans", "5", "Ω is a unit"])
def test_rouge_score_has_a_value_where_most_letters_are_latin(text: str) -> None:
    scores = google_rouge(text, text)
    assert scores is not None
    assert scores.rouge1 == 1


def test_sacrebleu_has_no_value_in_scripts_without_blanks() -> None:
    for text in (CHINESE, JAPANESE, THAI):
        assert sacrebleu(text, text) is None
    for text in (RUSSIAN, ARABIC, HINDI):
        assert sacrebleu(text, text) == pytest.approx(1)


MATCH_CASES = [
    ("so\n#### 18", "#### 18", True, True),
    ("so\n#### 18", "#### 18 and #### 19", True, False),
    ("so\n#### 18", "####18", False, True),
    ("so\n#### 18", "#### 18.00", False, False),
    ("so\n#### 18", "#### $18", False, True),
    ("so\n#### 18", "#### 18.", True, True),
    ("so\n#### 18", "It is $18.", False, True),
    ("so\n#### 18", "It is 18, so...", False, False),
    ("so\n#### 18", "It is 18 eggs", False, True),
    ("so\n#### 5", "It is 5", False, True),
    ("so\n#### 5", "It is 5.\n", False, True),
    ("so\n#### -5", "#### -5", True, True),
    ("so\n#### -5", "7-5", False, True),
    ("so\n#### 5", "7-5", False, False),
    ("so\n#### 1,234", "#### 1234", True, True),
    ("so\n#### 1,234", "1,2,3,4", False, True),
    ("so\n#### 18", "", False, False),
    ("so\n#### 18", "#### ", False, False),
    ("so\n#### 18", "#### x\n18", False, True),
    ("so\n#### 18", "#### -,.", False, False),
    ("no mark", "[invalid]", False, False),
    ("[invalid]", "no number", True, True),
]


@pytest.mark.parametrize(("reference", "answer", "strict", "flexible"), MATCH_CASES)
def test_matches_as_lm_eval_has_them(
    reference: str, answer: str, strict: bool, flexible: bool
) -> None:
    assert strict_match(reference, answer) == strict
    assert flexible_match(reference, answer) == flexible


def test_matches_are_lm_evals_on_answers_by_hand() -> None:
    check_matches([row[:2] for row in MATCH_CASES])


def test_matches_are_lm_evals_on_corrupted_answers() -> None:
    check_matches(PAIRS)


def test_matches_are_lm_evals_on_real_answers(real_data: Path) -> None:
    check_matches(read_real_pairs(real_data))


def test_matches_are_lm_evals_on_any_text() -> None:
    rng = random.Random(0)
    pieces = [
        "#### ",
        "####",
        "-",
        "$",
        ".",
        ",",
        "5",
        "42",
        "1,234",
        " ",
        "\n",
        "x",
        "..",
        "[",
        "²",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(9))) for _ in range(600)]
    check_matches([(f"#### {rng.choice((5, 42, 1234))}", text) for text in texts])


def check_matches(pairs: list[tuple[str, str]]) -> None:
    """Compares with the filters and the metric of the task file of the lm-eval that is here."""
    matches, metric = load_lm_eval_task()
    for name, ours in (("strict-match", strict_match), ("flexible-extract", flexible_match)):
        for reference, answer in pairs:
            [[extracted]] = matches[name].apply([[answer]], [{}])
            theirs = metric(predictions=[extracted], references=[reference])["exact_match"]
            assert ours(reference, answer) == theirs, (name, reference, answer)


def load_lm_eval_task() -> tuple[dict[str, Any], Any]:
    """The filters of its task by name, and its metric with that task's settings."""
    pytest.importorskip("lm_eval", reason="the oracle is an optional extra")
    import lm_eval
    import yaml
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    file = Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml"
    task = yaml.safe_load(file.read_text())
    [settings] = task["metric_list"]
    keys = ("ignore_case", "ignore_punctuation", "regexes_to_ignore")
    filters = {}
    for row in task["filter_list"]:
        first, second = row["filter"]
        assert (first.pop("function"), second["function"]) == ("regex", "take_first")
        filters[row["name"]] = RegexFilter(**first)
    return filters, partial(exact_match_fn, **{key: settings[key] for key in keys})
