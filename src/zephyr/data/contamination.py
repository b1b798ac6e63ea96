"""Questions of tests that stand in training data, found by the runs of words they share.

A question is found in a record where nearly all of its words stand in runs of `n` words that one
text of the record has too, and all that tells it from another: its numbers, operators, single
letters, and words such as "not". A word changed in a long question does not hide it, and the same
question with other numbers is another one. Runs that more than ten questions share are phrases
("which of the following is true of"): they tell nothing, and need not be found.

A short question with options is no question by itself: it is taken together with them, or found
where a text of a record is just that question and the right answer stands in the record too. Where
even these are shorter than a run, a record must hold exactly that text.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zephyr.data.words import WORDS, Places, Runs, owners, runs, whole, words
from zephyr.records import Chat, Choice, Pair, Passage, Record

COVERED = 0.95
"""The share of a question's words that must be found."""

PHRASE = 10
"""Of so many questions a run of words may be part; a run of more is a phrase."""

_SHORT = 1.5
"""So many times a run is a question with options that is told by its own words alone: "the speed of
sound in air depends on" is no question by itself."""

_ASKED = 4
"""Words of the shortest question that is looked for with its right answer alone."""

_TABLE = 24
"""Bits of the table by which most runs are seen to stand in no question."""


class Match(NamedTuple):
    """A question of a test that stands in a record: of which task, and the share of it found."""

    task: str
    question: str
    share: float


class _Hits(NamedTuple):
    """Runs of words that texts and questions share: which text, which question, where in it."""

    owner: Places
    item: Places
    place: Places


class _Item(NamedTuple):
    """What is looked for; with an `answer` it must be a whole text, and the answer be there too."""

    task: str
    text: str
    answer: str | None = None


class Exams:
    """The questions of tests, ready to be looked for."""

    def __init__(self, asked: Iterable[tuple[str, Record]], n: int) -> None:
        """`asked` holds records with the names of their tasks."""
        self.n = n
        every = [item for task, record in asked for item in _items(task, record, n)]
        codes = whole(words(_bare(item.text) for item in every)).tolist()
        self._answered: dict[int, list[_Item]] = {}
        distinct: dict[int, _Item] = {}
        for code, item in zip(codes, every, strict=True):
            if item.answer is None:
                distinct.setdefault(code, item)
            else:
                self._answered.setdefault(code, []).append(item)
        self._items = list(distinct.values())
        texts = words(_bare(item.text) for item in self._items)
        self._lengths = np.diff(texts.bounds)
        self._short = {
            code: item for item, code in enumerate(distinct) if 0 < self._lengths[item] < n
        }
        self._index(runs(texts, n))

    def _index(self, found: Runs) -> None:
        """Sorts runs by hash, with the questions and the places in them; drops phrases."""
        item = owners(found.bounds)
        place = np.arange(len(item)) - np.repeat(found.bounds[:-1], np.diff(found.bounds))
        order = np.lexsort((place, item, found.hashes))
        hashes, item, place = found.hashes[order], item[order], place[order]
        new = np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)]
        other = np.concatenate([[True], item[1:] != item[:-1]])[: len(item)] | new
        group = np.cumsum(new) - 1
        rare = np.bincount(group, weights=other)[group] <= PHRASE if len(group) else new
        self._hashes, self._item, self._place = hashes[rare], item[rare], place[rare]
        self._table = np.zeros(1 << _TABLE, np.bool_)
        self._table[self._hashes >> np.uint64(64 - _TABLE)] = True
        order = np.lexsort((place[~rare], item[~rare]))
        self._phrases = place[~rare][order]
        self._bounds = np.searchsorted(item[~rare][order], np.arange(len(self._items) + 1))
        covered = [self._covered(i, self._phrases_of(i)).sum() for i in range(len(self._items))]
        self._free = np.array(covered, dtype=np.int64)

    def _phrases_of(self, item: int) -> Places:
        """Where phrases begin in a question."""
        places: Places = self._phrases[self._bounds[item] : self._bounds[item + 1]]
        return places

    def _covered(self, item: int, places: Places) -> NDArray[np.bool_]:
        """Which words of a question stand in the runs that begin at `places`."""
        covered = np.zeros(self._lengths[item], np.bool_)
        for place in places:
            covered[place : place + self.n] = True
        return covered

    def find(self, records: Sequence[Record]) -> list[Match | None]:
        """For each record, the question that is found in it in the greatest part, if any is."""
        if not self._items:
            return [None] * len(records)
        pieces = [_pieces(record) for record in records]
        texts = words(_bare(text) for piece in pieces for text in piece)
        record_of = np.repeat(np.arange(len(records)), [len(piece) for piece in pieces])
        found: list[Match | None] = [None] * len(records)
        for text, code in enumerate(whole(texts).tolist()):
            if code in self._short:
                item = self._items[self._short[code]]
                found[record_of[text]] = Match(item.task, item.text, 1.0)
            for item in self._answered.get(code, ()):
                said = " ".join(pieces[record_of[text]]).lower()
                if str(item.answer).lower() in said:
                    found[record_of[text]] = Match(item.task, item.text, 1.0)
        for text, which, share in self._shares(self._hits(runs(texts, self.n))):
            known = found[record_of[text]]
            if known is None or known.share < share:
                found[record_of[text]] = Match(*self._items[which][:2], share)
        return found

    def _hits(self, found: Runs) -> _Hits:
        """Where runs of texts stand in questions."""
        maybe = np.flatnonzero(self._table[found.hashes >> np.uint64(64 - _TABLE)])
        hashes = found.hashes[maybe]
        first = np.searchsorted(self._hashes, hashes, side="left")
        times = np.searchsorted(self._hashes, hashes, side="right") - first
        owner = owners(found.bounds)[maybe]
        at = np.repeat(first, times) + (
            np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        )
        return _Hits(np.repeat(owner, times), self._item[at], self._place[at])

    def _shares(self, hits: _Hits) -> Iterator[tuple[int, int, float]]:
        """Texts and the questions that are found in them, with the share that is."""
        if not len(hits.owner):
            return
        owner, item, place = np.unique(np.stack(hits, axis=1), axis=0).T
        new = np.concatenate([[True], (owner[1:] != owner[:-1]) | (item[1:] != item[:-1])])
        firsts = np.flatnonzero(new)
        steps = np.where(new, self.n, np.minimum(np.diff(place, prepend=0), self.n))
        which = item[firsts]
        most = (np.add.reduceat(steps, firsts) + self._free[which]) / self._lengths[which]
        ends = np.append(firsts[1:], len(new))
        for at in np.flatnonzero(most >= COVERED):
            found = int(which[at])
            places = np.concatenate([place[firsts[at] : ends[at]], self._phrases_of(found)])
            covered = self._covered(found, places)
            if covered.mean() >= COVERED and self._only_words(found, ~covered):
                yield int(owner[firsts[at]]), found, round(float(covered.mean()), 4)

    def _only_words(self, item: int, missing: NDArray[np.bool_]) -> bool:
        """Whether nothing is missing of a question that tells it from another."""
        said = WORDS.findall(_bare(self._items[item].text).lower())
        lost = [said[i] for i in np.flatnonzero(missing)]
        return all(len(word) > 1 and word.isalpha() and word not in _TELLING for word in lost)


_TELLING = frozenset(
    ("not", "no", "never", "none", "always", "all", "except", "least", "most", "true", "false")
)

_FORM = re.compile(
    r"(?m)^\s*(?:\(?[A-Ja-j][).:]\s+|(?:question|options|choices|answer)\s*:[ \t]*)|\([A-J]\) ",
    re.IGNORECASE,
)


def _bare(text: str) -> str:
    """A text without the marks of a quiz, for each source writes them in its own way."""
    return _FORM.sub("", text)


def _items(task: str, record: Record, n: int) -> list[_Item]:
    """What must not be found of a record of a test."""
    match record:
        case Choice():
            length = len(WORDS.findall(record.text))
            if length >= _SHORT * n:
                return [_Item(task, record.text)]
            joined = [_Item(task, "\n".join(record.texts))]
            answer = record.choices[record.answer]
            return joined + ([_Item(task, record.text, answer)] if length >= _ASKED else [])
        case Passage():
            return [_Item(task, line) for line in record.text.split("\n")]
        case Chat() | Pair():
            return [_Item(task, str(record.question))]
    raise AssertionError(record)


def _pieces(record: Record) -> Sequence[str]:
    """The texts of a record in which questions are looked for."""
    return ["\n".join(record.texts)] if isinstance(record, Choice) else record.texts
