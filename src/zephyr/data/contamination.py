"""Decontamination: finds evaluation questions in training data (contamination, n-gram overlap).

A question matches a record if nearly all of its words are in `n`-grams that one text of the record
also has, and so are all words that distinguish it from others: its numbers, operators, single
letters, and words such as "not". One changed word does not hide a long question, and the same
question with other numbers is a different one. N-grams that more than ten questions share are stop
n-grams ("which of the following is true of"): they are no evidence, and are not required.

A short multiple-choice question is looked for together with its options, or matches if a text of a
record is exactly that question and the right answer is in the record too. If even these are shorter
than `n` words, a text of the record must equal them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zephyr.data.ngrams import (
    WORD_PATTERN,
    HashedTexts,
    Indices,
    hash_ngrams,
    hash_texts,
    hash_words,
    text_indices,
)
from zephyr.records import Chat, Choice, Pair, Passage, Record

MIN_COVERAGE = 0.95
"""Minimum coverage (n-gram overlap): the share of a question's words that must be found."""

MAX_QUESTIONS_PER_NGRAM = 10
"""An n-gram of more questions than this is a stop n-gram, and ignored."""

_STANDALONE_LENGTH_FACTOR = 1.5
"""A multiple-choice question of this many times `n` words is looked for without its options:
"the speed of sound in air depends on" is too short for that."""

_MIN_QUESTION_WORDS = 4
"""Minimum words of a question that is looked for with only its right answer."""

_FILTER_BITS = 24
"""Bits of the hash filter that rules out most n-grams before the index lookup."""


class ContaminationMatch(NamedTuple):
    """A contamination match: the evaluation question in a record, its task, and its coverage."""

    task: str
    question: str
    coverage: float


class _NgramHits(NamedTuple):
    """N-gram index hits: the text, the question, and the position in that question."""

    text_index: Indices
    question_index: Indices
    position: Indices


class _EvalQuestion(NamedTuple):
    """A question to look for; with an `answer`, a whole text that has the answer beside it."""

    task: str
    text: str
    answer: str | None = None


class EvalQuestionIndex:
    """N-gram index of evaluation questions, by which contaminated training records are found."""

    def __init__(self, records_by_task: Iterable[tuple[str, Record]], n: int) -> None:
        """Indexes (name of task, record) pairs by `n`-grams."""
        self.n = n
        questions = [
            item for task, record in records_by_task for item in _eval_questions(task, record, n)
        ]
        text_hashes = hash_texts(
            hash_words(_strip_quiz_markers(item.text) for item in questions)
        ).tolist()
        self._questions_with_answer: dict[int, list[_EvalQuestion]] = {}
        question_by_hash: dict[int, _EvalQuestion] = {}
        for code, item in zip(text_hashes, questions, strict=True):
            if item.answer is None:
                question_by_hash.setdefault(code, item)
            else:
                self._questions_with_answer.setdefault(code, []).append(item)
        self._questions = list(question_by_hash.values())
        texts = hash_words(_strip_quiz_markers(item.text) for item in self._questions)
        self._lengths = np.diff(texts.offsets)
        self._short_questions = {
            code: item for item, code in enumerate(question_by_hash) if 0 < self._lengths[item] < n
        }
        self._build_index(hash_ngrams(texts, n))

    def _build_index(self, ngrams: HashedTexts) -> None:
        """Builds the sorted n-gram index of questions and positions; drops common phrases."""
        question_index = text_indices(ngrams.offsets)
        position = np.arange(len(question_index)) - np.repeat(
            ngrams.offsets[:-1], np.diff(ngrams.offsets)
        )
        order = np.lexsort((position, question_index, ngrams.hashes))
        hashes, question_index, position = (
            ngrams.hashes[order],
            question_index[order],
            position[order],
        )
        is_new_hash = np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)]
        is_new_pair = (
            np.concatenate([[True], question_index[1:] != question_index[:-1]])[
                : len(question_index)
            ]
            | is_new_hash
        )
        group = np.cumsum(is_new_hash) - 1
        is_rare = (
            np.bincount(group, weights=is_new_pair)[group] <= MAX_QUESTIONS_PER_NGRAM
            if len(group)
            else is_new_hash
        )
        self._ngram_hashes, self._ngram_question, self._ngram_position = (
            hashes[is_rare],
            question_index[is_rare],
            position[is_rare],
        )
        self._ngram_filter = np.zeros(1 << _FILTER_BITS, np.bool_)
        self._ngram_filter[self._ngram_hashes >> np.uint64(64 - _FILTER_BITS)] = True
        order = np.lexsort((position[~is_rare], question_index[~is_rare]))
        self._common_positions = position[~is_rare][order]
        self._common_offsets = np.searchsorted(
            question_index[~is_rare][order], np.arange(len(self._questions) + 1)
        )
        covered_counts = [
            self._covered_words(i, self._common_positions_of(i)).sum()
            for i in range(len(self._questions))
        ]
        self._common_word_counts = np.array(covered_counts, dtype=np.int64)

    def _common_positions_of(self, question_index: int) -> Indices:
        """The positions at which common phrases begin in a question."""
        positions: Indices = self._common_positions[
            self._common_offsets[question_index] : self._common_offsets[question_index + 1]
        ]
        return positions

    def _covered_words(self, question_index: int, positions: Indices) -> NDArray[np.bool_]:
        """Mask of the words [words] in the n-grams that begin at `positions` of a question."""
        covered = np.zeros(self._lengths[question_index], np.bool_)
        for position in positions:
            covered[position : position + self.n] = True
        return covered

    def find_matches(self, records: Sequence[Record]) -> list[ContaminationMatch | None]:
        """Finds for each record the evaluation question that covers it best, if any does."""
        if not self._questions:
            return [None] * len(records)
        texts_by_record = [_searched_texts(record) for record in records]
        texts = hash_words(_strip_quiz_markers(text) for group in texts_by_record for text in group)
        record_of = np.repeat(np.arange(len(records)), [len(group) for group in texts_by_record])
        matches: list[ContaminationMatch | None] = [None] * len(records)
        for text, code in enumerate(hash_texts(texts).tolist()):
            if code in self._short_questions:
                question = self._questions[self._short_questions[code]]
                matches[record_of[text]] = ContaminationMatch(question.task, question.text, 1.0)
            for question in self._questions_with_answer.get(code, ()):
                record_text = " ".join(texts_by_record[record_of[text]]).lower()
                if str(question.answer).lower() in record_text:
                    matches[record_of[text]] = ContaminationMatch(question.task, question.text, 1.0)
        for text, question_index, coverage in self._covered_questions(
            self._find_hits(hash_ngrams(texts, self.n))
        ):
            best = matches[record_of[text]]
            if best is None or best.coverage < coverage:
                matches[record_of[text]] = ContaminationMatch(
                    *self._questions[question_index][:2], coverage
                )
        return matches

    def _find_hits(self, ngrams: HashedTexts) -> _NgramHits:
        """Looks n-grams of texts up in the index."""
        candidates = np.flatnonzero(
            self._ngram_filter[ngrams.hashes >> np.uint64(64 - _FILTER_BITS)]
        )
        hashes = ngrams.hashes[candidates]
        first = np.searchsorted(self._ngram_hashes, hashes, side="left")
        counts = np.searchsorted(self._ngram_hashes, hashes, side="right") - first
        text_index = text_indices(ngrams.offsets)[candidates]
        at = np.repeat(first, counts) + (
            np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        )
        return _NgramHits(
            np.repeat(text_index, counts), self._ngram_question[at], self._ngram_position[at]
        )

    def _covered_questions(self, hits: _NgramHits) -> Iterator[tuple[int, int, float]]:
        """Yields texts and the questions that are found in them, with their coverage."""
        if not len(hits.text_index):
            return
        text_index, question_index, position = np.unique(np.stack(hits, axis=1), axis=0).T
        is_new_pair = np.concatenate(
            [
                [True],
                (text_index[1:] != text_index[:-1]) | (question_index[1:] != question_index[:-1]),
            ]
        )
        firsts = np.flatnonzero(is_new_pair)
        new_words = np.where(is_new_pair, self.n, np.minimum(np.diff(position, prepend=0), self.n))
        questions = question_index[firsts]
        max_coverage = (
            np.add.reduceat(new_words, firsts) + self._common_word_counts[questions]
        ) / self._lengths[questions]
        ends = np.append(firsts[1:], len(is_new_pair))
        for at in np.flatnonzero(max_coverage >= MIN_COVERAGE):
            question = int(questions[at])
            positions = np.concatenate(
                [position[firsts[at] : ends[at]], self._common_positions_of(question)]
            )
            covered = self._covered_words(question, positions)
            if covered.mean() >= MIN_COVERAGE and self._lacks_only_filler_words(question, ~covered):
                yield int(text_index[firsts[at]]), question, round(float(covered.mean()), 4)

    def _lacks_only_filler_words(self, question_index: int, is_missing: NDArray[np.bool_]) -> bool:
        """Whether all distinctive words (number, operator, negation) of a question were found."""
        question_words = WORD_PATTERN.findall(
            _strip_quiz_markers(self._questions[question_index].text).lower()
        )
        missing_words = [question_words[i] for i in np.flatnonzero(is_missing)]
        return all(
            len(word) > 1 and word.isalpha() and word not in _DISTINCTIVE_WORDS
            for word in missing_words
        )


_DISTINCTIVE_WORDS = frozenset(
    ("not", "no", "never", "none", "always", "all", "except", "least", "most", "true", "false")
)

_QUIZ_MARKERS = re.compile(
    r"(?m)^\s*(?:\(?[A-Ja-j][).:]\s+|(?:question|options|choices|answer)\s*:[ \t]*)|\([A-J]\) ",
    re.IGNORECASE,
)


def _strip_quiz_markers(text: str) -> str:
    """Strips quiz markers ("A.", "Question:"), which differ from source to source."""
    return _QUIZ_MARKERS.sub("", text)


def _eval_questions(task: str, record: Record, n: int) -> list[_EvalQuestion]:
    """The questions to look for of a record of an evaluation set."""
    match record:
        case Choice():
            length = len(WORD_PATTERN.findall(record.text))
            if length >= _STANDALONE_LENGTH_FACTOR * n:
                return [_EvalQuestion(task, record.text)]
            with_options = [_EvalQuestion(task, "\n".join(record.texts))]
            answer = record.choices[record.answer]
            return with_options + (
                [_EvalQuestion(task, record.text, answer)] if length >= _MIN_QUESTION_WORDS else []
            )
        case Passage():
            return [_EvalQuestion(task, line) for line in record.text.split("\n")]
        case Chat() | Pair():
            return [_EvalQuestion(task, str(record.question))]
    raise AssertionError(record)


def _searched_texts(record: Record) -> Sequence[str]:
    """The texts of a training record in which questions are looked for."""
    return ["\n".join(record.texts)] if isinstance(record, Choice) else record.texts
