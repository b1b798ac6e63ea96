"""Near-duplicates: nearly the same question with nearly the same answers, by exact counts."""

import threading
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr.data import duplicates
from zephyr.data.duplicates import JACCARD_THRESHOLD, SHINGLE_WORDS, find_near_duplicates
from zephyr.data.ngrams import WORD_OR_SIGN_PATTERN, WORD_PATTERN, hash_ngrams, hash_words
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record

VOCABULARY = [f"{a}{b}{c}" for a in "bcdfghklmn" for b in "aeiou" for c in "prstvwxz"]
TEXT = " ".join(VOCABULARY[:60])


def make_chat(question: str, answer: str) -> Chat:
    return Chat("s", (Message("user", question), Message("assistant", answer)))


def duplicates_of(*records: Record) -> list[int | None]:
    """The first record that each one repeats, where those that do so are removed."""
    found = find_near_duplicates(records, remove=True)
    assert all(len(earlier) <= 1 for earlier in found)
    return [earlier[0] if earlier else None for earlier in found]


def test_a_word_more_is_a_near_duplicate_and_the_later_loses() -> None:
    first, later = make_chat(TEXT, f"{TEXT} so"), make_chat(f"{TEXT} please", f"{TEXT} so")
    assert duplicates_of(first, later, make_chat("Who?", TEXT)) == [None, 0, None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make_chat(TEXT, "It is 4."), make_chat(TEXT, "It is 5.")),
        (make_chat("-12 + 5", "-7"), make_chat("12 - 5", "7")),
        (make_chat("What is x?", "A"), make_chat("What is x?", "B")),
        (make_chat("What is x?", "So."), make_chat("What is y?", "So.")),
        (
            Pair("s", (Message("user", TEXT),), "a", "b"),
            Pair("s", (Message("user", TEXT),), "b", "a"),
        ),
        (
            Pair("s", (Message("user", TEXT),), "a", "b"),
            Pair("s", (Message("user", TEXT),), "a", "c"),
        ),
        (Choice("s", TEXT, ("a", "b"), 0), Choice("s", TEXT, ("a", "c"), 0)),
        (make_chat(TEXT, TEXT), Passage("s", TEXT)),
        (make_chat("∀", "∃"), make_chat("∃", "∀")),
    ],
)
def test_another_answer_or_sign_is_another_record(one: Record, other: Record) -> None:
    assert duplicates_of(one, other) == [None, None]


def test_case_and_blanks_make_no_difference() -> None:
    assert duplicates_of(make_chat("Why  not?", "So."), make_chat("why\nNOT?", "so.")) == [None, 0]
    assert duplicates_of() == []


def test_only_what_stays_is_compared_with() -> None:
    """b repeats a and goes; c is like b, but not like a: it stays."""
    chain = [Passage("s", " ".join(VOCABULARY[count:100])) for count in (0, 15, 30)]
    assert duplicates_of(*chain) == [None, 0, None]


def test_what_is_only_reported_is_joined_along_chains() -> None:
    chain = [Passage("s", " ".join(VOCABULARY[count:100])) for count in (0, 15, 30, 30)]
    assert find_near_duplicates([*chain, Passage("s", TEXT)], remove=False) == [
        [],
        [0],
        [1],
        [1],
        [],
    ]


def test_a_short_answer_tells_little() -> None:
    """Other questions about one long text, answered with a letter, are others."""
    text = " ".join(VOCABULARY[:300])
    questions = ("Who goes away at last?", "What does she find there?", "Why is it so late?")
    quizzes = [make_chat(f"{text} {question}", "B") for question in questions]
    assert duplicates_of(*quizzes) == [None, None, None]
    assert duplicates_of(quizzes[0], make_chat(f"{text} Who goes off at last?", "B")) == [None, 0]
    long = [
        make_chat(f"{text} {question}", " ".join(VOCABULARY[300:400])) for question in questions
    ]
    assert duplicates_of(*long) == [None, 0, 0]


def test_other_numbers_are_another_record() -> None:
    question, answer = " ".join(VOCABULARY[:40]), " ".join(VOCABULARY[40:80])
    assert (
        duplicates_of(
            make_chat(f"{question} 30 km", answer), make_chat(f"{question} 36 km", answer)
        )
        == [None] * 2
    )


def test_many_rows_of_one_pattern_are_distinguished_quickly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long instruction and short answers: none is compared with all before it."""
    compared_pairs = []

    def spy(self: object, one: int, other: int) -> bool:
        compared_pairs.append((one, other))
        return False

    monkeypatch.setattr(duplicates._ShingleSets, "are_near_duplicates", spy)
    find_near_duplicates([make_chat(f"{TEXT} {n}", str(n)) for n in range(3_000)], remove=True)
    assert len(compared_pairs) < 3_000


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the sets of shingles, written out."""
    sets = []
    for text in (one, other):
        words = WORD_OR_SIGN_PATTERN.findall(text.lower())
        sets.append(
            {tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)}
        )
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("changed", range(6))
def test_alike_is_decided_by_the_similarity(changed: int) -> None:
    """Of 100 passages and their copies with words changed, just those that are alike are found."""
    random = Random(changed)
    originals, copies = [], []
    for _ in range(100):
        words = ["".join(random.choices("abcdefghij", k=8)) for _ in range(80)]
        originals.append(" ".join(words))
        for at in random.sample(range(80), changed):
            words[at] = "".join(random.choices("klmnop", k=8))
        copies.append(" ".join(words))
    found = duplicates_of(*(Passage("s", text) for text in (*originals, *copies)))
    assert found[:100] == [None] * 100
    alike = [similarity(a, b) >= JACCARD_THRESHOLD for a, b in zip(originals, copies, strict=True)]
    missed = sum(a != (f is not None) for a, f in zip(alike, found[100:], strict=True))
    assert missed <= 1  # a band meets with a probability of 0.998 at the very edge
    assert all(f in (None, n) for n, f in enumerate(found[100:]))


@given(st.lists(st.text("ab1, .", max_size=12), max_size=6), st.integers(1, 4))
def test_ngrams_are_those_of_each_text(texts: list[str], n: int) -> None:
    """Equal n-grams have equal hashes, others others, and none goes beyond its text."""
    for pattern in (WORD_PATTERN, WORD_OR_SIGN_PATTERN):
        found = hash_ngrams(hash_words(texts, pattern), n)
        by_hand = []
        for text in texts:
            words = pattern.findall(text)
            by_hand.append([tuple(words[i : i + n]) for i in range(len(words) - n + 1)])
        assert np.diff(found.offsets).tolist() == list(map(len, by_hand))
        flat = [ngram for each in by_hand for ngram in each]
        assert len(set(found.hashes.tolist())) == len(set(flat))
        assert len(dict(zip(found.hashes.tolist(), flat, strict=True))) == len(set(flat))


def test_hashes_are_the_same_in_every_process() -> None:
    assert hash_ngrams(hash_words(["Two words here"]), 2).hashes.tolist() == [
        12357865972306872373,
        11335622722555578668,
    ]


def test_no_thread_is_left_behind() -> None:
    """A worker that is forked after a draw would else wait for ever for its own."""
    before = threading.active_count(), len(list(Path("/proc/self/task").glob("*")))
    find_near_duplicates([Passage("s", f"{TEXT} {VOCABULARY[n]}") for n in range(400)], remove=True)
    assert (threading.active_count(), len(list(Path("/proc/self/task").glob("*")))) == before
