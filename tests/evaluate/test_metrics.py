"""Hand-derived values, and LLaMA-Factory's metrics written anew from their description."""

import gzip
import json
import math
import random
import re
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from zephyr.evaluate.metrics import _load_jieba, bleu4, rouge
from zephyr.evaluate.numbers import last_number, number_after_mark


def test_bleu_of_equal_texts_is_one() -> None:
    assert bleu4("abcd", "abcd") == 1


def test_bleu_by_hand() -> None:
    """abce for abcd: 3/4, 2/3 and 1/2 of the n-grams match; of one 4-gram none: 1/(2 x 1)."""
    assert bleu4("abcd", "abce") == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)


def test_bleu_is_halved_again_with_each_order_without_a_match() -> None:
    """axcy for abcd: 2/4 match; no pair of 3, no triple of 2, no quadruple of 1 does."""
    expected = (2 / 4 * 1 / (2 * 3) * 1 / (4 * 2) * 1 / (8 * 1)) ** 0.25
    assert bleu4("abcd", "axcy") == pytest.approx(expected)


def test_bleu_counts_a_repeated_character_once() -> None:
    """aaaa for abcd: one a of four is clipped to the one of the reference; then smoothing."""
    expected = (1 / 4 * 1 / (2 * 3) * 1 / (4 * 2) * 1 / (8 * 1)) ** 0.25
    assert bleu4("abcd", "aaaa") == pytest.approx(expected)


def test_bleu_of_a_short_answer_is_reduced() -> None:
    """abcd for abcdefgh: every n-gram matches; brevity e^(1 - 8/4)."""
    assert bleu4("abcdefgh", "abcd") == pytest.approx(math.exp(-1))


@pytest.mark.parametrize(("reference", "answer"), [("abc", ""), ("", "abc"), ("abcd", "wxyz")])
def test_bleu_of_nothing_in_common_is_zero(reference: str, answer: str) -> None:
    assert bleu4(reference, answer) == 0


def test_rouge_by_hand() -> None:
    """Two of three words, one of two pairs, two words in order."""
    scores = rouge("the cat sat", "the cat ran")
    assert scores == pytest.approx((2 / 3, 1 / 2, 2 / 3), abs=1e-6)


def test_rouge_1_and_2_take_sets_and_rouge_l_does_not() -> None:
    """a a a b for a b: the sets of words are equal; pairs aa, ab hold ab; LCS is 2 of 4 and 2."""
    scores = rouge("a b", "a a a b")
    assert scores == pytest.approx((1, 2 * 0.5 * 1 / 1.5, 2 * 0.5 * 1 / 1.5), abs=1e-6)


@pytest.mark.parametrize("blank", ["", " ", "\n\n", " \t\n"])
def test_rouge_of_a_blank_text_is_zero(blank: str) -> None:
    assert rouge("a b", blank) == rouge(blank, "a b") == rouge(blank, blank) == (0, 0, 0)


def test_rouge_takes_long_answers() -> None:
    answer = " ".join(f"word{i % 7}" for i in range(1_200))
    assert rouge(answer, answer) == pytest.approx((1, 1, 1), abs=1e-6)


def test_jieba_neither_trusts_nor_leaves_a_shared_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jieba.cache").write_bytes(b"planted")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _load_jieba.cache_clear()
    assert rouge("one two", "one two") == pytest.approx((1, 1, 1), abs=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["jieba.cache"]
    assert (tmp_path / "jieba.cache").read_bytes() == b"planted"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "marked", "last"),
    [
        ("so 3 + 4 = 7\n#### 7", "7", "7"),
        ("#### 1,234", "1234", "1234"),
        ("#### $18.00.", "18", "18"),
        ("#### -5", "-5", "-5"),
        ("#### -$5", "-5", "-5"),
        ("#### $-5", "-5", "-5"),
        ("####7", "7", "7"),
        ("#### .5", "0.5", "0.5"),
        ("#### 3 and then #### 4 apples", "4", "4"),
        ("#### 3\nThat leaves 9", "3", "9"),
        ("#### x\n5", None, "5"),
        ("#### --5", None, "-5"),
        ("####", None, None),
        ("", None, None),
        ("no number...", None, None),
        ("The answer is 42.", None, "42"),
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs", None, "9"),
        ("from 2-3", None, "3"),
        ("it was (4)-2", None, "2"),
        ("it fell to -2", None, "-2"),
        ("about 1,000,000, I think", None, "1000000"),
    ],
)
def test_numbers(text: str, marked: str | None, last: str | None) -> None:
    assert number_after_mark(text) == (None if marked is None else Decimal(marked))
    assert last_number(text) == (None if last is None else Decimal(last))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 234", "1234"),
        ("12\u00a0345\u00a0678", "12345678"),
        ("1\u2009234.5", "1234.5"),
        ("1\u202f234,5", "1234.5"),
        ("1'234", "1234"),
        ("1’234’567.25", "1234567.25"),
        (r"1{,}234", "1234"),
        (r"$1\,234\,567$", "1234567"),
        (r"3{,}5", "3.5"),
        ("1,23,456", "123456"),
        ("3,5", "3.5"),
        ("12,50 €", "12.50"),
        ("0,125", "0.125"),
        ("1,234", "1234"),
        ("1.234", "1.234"),
        ("1.234,56", "1234.56"),
        ("1.234.567", "1234567"),
        ("1,234.56", "1234.56"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("−$5", "-5"),
        ("€−5", "-5"),
        (r"\$-5", "-5"),
        ("£1,200", "1200"),
        ("20%", "20"),
        (r"20\%", "20"),
        ("1/2", "0.5"),
        ("-3/4", "-0.75"),
        ("2 1/2", "2.5"),
        (r"\frac{3}{4}", "0.75"),
        (r"-\dfrac{3}{4}", "-0.75"),
        (r"2\frac{1}{2}", "2.5"),
        ("**7**", "7"),
        (r"\boxed{7}", "7"),
    ],
)
def test_numbers_as_people_write_them(text: str, value: str) -> None:
    """Alone, within a sentence, after the mark, and in a reference."""
    assert last_number(text) == Decimal(value)
    assert last_number(f"First 9, and then {text}.") == Decimal(value)
    assert number_after_mark(f"First 9.\n#### {text}.\nSo.") == Decimal(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("the years 2019–2024", "2024"),
        ("5−3", "3"),
        ("1, 2, 3", "3"),
        ("1,2,3", "3"),
        ("in 2020 500 came", "500"),
        ("on 1/2/2020", "2020"),
        ("1/0", "0"),
        ("an area of 25 m^2", "25"),
        ("an area of 25 m^{2}", "25"),
        ("6/2 = 3", "3"),
    ],
)
def test_what_is_no_sign_no_group_and_no_fraction(text: str, value: str) -> None:
    assert last_number(text) == Decimal(value)


def test_a_fraction_is_not_taken_for_its_last_digit() -> None:
    assert last_number("3/2") != last_number("1/2")
    assert last_number("2/6") == last_number("1/3")


# -- an oracle: LLaMA-Factory's BLEU-4 and ROUGE, from their description ---------------------------


def _bleu_oracle(label: str, pred: str) -> float:
    factors = []
    misses = 0
    for n in range(1, 5):
        have, want = (
            Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (pred, label)
        )
        matches = sum(min(count, want[gram]) for gram, count in have.items())
        if n == 1 and not matches:
            return 0
        total = max(1, sum(have.values()))
        if not matches:
            misses += 1
        factors.append(matches / total if matches else 1 / (2**misses * total))
    brevity = min(1, math.exp(1 - len(label) / len(pred)))
    return float(brevity * math.prod(factors) ** 0.25)


def _english_words(text: str) -> list[str]:
    """jieba's tokens of English: words and numbers whole, runs of +#&._%- whole, others single."""
    words = []
    for block in re.split(r"([a-zA-Z0-9+#&._%\-]+)", text):
        if re.match(r"[a-zA-Z0-9+#&._%\-]", block):
            words += [w for w in re.split(r"([a-zA-Z0-9]+(?:\.\d+)?%?)", block) if w]
        else:
            words += list(block)
    return words


def _rouge_oracle(label: str, pred: str) -> tuple[float, float, float]:
    def tokens(text: str) -> list[str]:
        joined = re.sub(r"\?(?=[^”’])", "?\n", " ".join(_english_words(text)))
        lines = [line for line in joined.rstrip().split("\n") if line]
        return [token for line in lines for token in line.split() or [""]]

    def f(matches: int, have: int, want: int) -> float:
        p, r = matches / max(1, have), matches / max(1, want)
        return 2 * p * r / (p + r + 1e-8)

    have, want = tokens(pred), tokens(label)
    scores = []
    for n in (1, 2):
        a, b = ({tuple(t[i : i + n]) for i in range(len(t) - n + 1)} for t in (have, want))
        scores.append(f(len(a & b), len(a), len(b)))
    row = [0] * (len(want) + 1)
    for token in have:
        above, row = row, [0]
        for j, other in enumerate(want):
            row.append(above[j] + 1 if token == other else max(row[j], above[j + 1]))
    return scores[0], scores[1], f(row[-1], len(have), len(want))


def _perturb(text: str, rng: random.Random) -> str:
    """Words dropped, swapped and repeated, and the end cut off, as a weak model might write."""
    words = re.split(r"(\s+)", text)
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(words))
        act = rng.choice(("drop", "swap", "repeat", "question"))
        if act == "drop":
            words[at] = ""
        elif act == "swap":
            other = rng.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        else:
            words.insert(at, words[at] if act == "repeat" else "Why?\n")
    return "".join(words)[: rng.randrange(20, len(text) + 20)] or "?"


def test_scores_equal_llama_factorys_on_real_answers(real_data: Path) -> None:
    with gzip.open(real_data / "gsm8k/test.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        labels = [json.loads(line)["answer"] for line in file][::13]
    assert len(labels) > 100
    rng = random.Random(0)
    for label in labels:
        pred = _perturb(label, rng)
        assert bleu4(label, pred) == pytest.approx(_bleu_oracle(label, pred), abs=1e-9)
        assert rouge(label, pred) == pytest.approx(_rouge_oracle(label, pred), abs=1e-9)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_real_gsm8k_answer_has_its_number(real_data: Path, split: str) -> None:
    path = real_data / f"gsm8k/{split}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        answers = [json.loads(line)["answer"] for line in file]
    for answer in answers:
        plain = Decimal(answer.split("#### ")[1].replace(",", ""))
        assert number_after_mark(answer) == last_number(answer) == plain
