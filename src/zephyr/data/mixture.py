"""Mixtures: what is taken of each source, what is held out, and an account of all the rest.

Each source is drawn by itself (`draw`); then near-duplicates among all that was drawn are looked
for, of which the later source loses; then whole groups are held out, so that neither a question nor
its near-duplicate stands on both sides.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.data.contamination import Exams
from zephyr.data.draw import Entry, Taken, take
from zephyr.data.duplicates import near_duplicates
from zephyr.data.sources import Opened
from zephyr.errors import ZephyrError
from zephyr.recipe.data import MixtureSpec
from zephyr.records import Record, content_hash, from_json, to_json
from zephyr.runs.store import read_json_lines, write_json, write_json_lines


class Split(NamedTuple):
    """Records to train on, and those held out."""

    train: list[Record]
    holdout: list[Record]


@dataclass(frozen=True)
class Drawn:
    """A mixture that has been drawn, with its account.

    `lock` has a row for each record, by which another draw can be compared; `contaminated` and
    `near_duplicates` say what was found of these, and in what.
    """

    split: Split
    manifest: dict[str, Any]
    lock: list[dict[str, Any]]
    contaminated: list[dict[str, Any]]
    near_duplicates: list[dict[str, Any]]

    def write(self, folder: Path) -> None:
        """Writes records and hold-out, the manifest, the lock file, and what was found."""
        for name, records in zip(FILES, self.split, strict=True):
            write_json_lines(folder / name, map(to_json, records))
        write_json_lines(folder / LOCK, self.lock)
        write_json_lines(folder / "contaminated.jsonl", self.contaminated)
        write_json_lines(folder / "near_duplicates.jsonl", self.near_duplicates)
        write_json(folder / "manifest.json", self.manifest)


FILES = ("records.jsonl", "holdout.jsonl")
LOCK = "lock.jsonl"


def load(folder: Path) -> Split:
    """What `Drawn.write` wrote."""
    train, holdout = ([from_json(row) for row in read_json_lines(folder / f)] for f in FILES)
    return Split(train, holdout)


def draw(mixture: MixtureSpec, sources: Sequence[Opened], *, seed: int, exams: Exams) -> Drawn:
    """Draws a mixture from its sources; `exams` are the questions that must not stand in it.

    Raises:
        ZephyrError: a source has too many unreadable rows, stands twice, or nothing is left.
    """
    _refuse_twice(sources)
    remove = mixture.clean == "remove"
    taken: list[Taken] = []
    for spec, opened in zip(mixture.sources, sources, strict=True):
        cap = spec.cap or mixture.cap
        taken.append(take(opened, cap, seed=seed, exams=exams, remove=remove))
        taken[-1].tally.refuse_unreadable(mixture.unreadable)
    drawn = [entry for each in taken for entry in each.entries]
    if not drawn:
        raise ZephyrError(
            "a mixture is empty",
            found="; ".join(map(_nothing, taken)),
            todo="give it a source with rows that are wanted",
        )
    repeated = near_duplicates([entry.record for entry in drawn], remove=remove)
    kept, groups = _groups(drawn, repeated, remove=remove)
    held = _hold_out(groups, mixture.holdout, seed)
    if len(held) == len(set(groups)):
        raise ZephyrError(
            "a mixture holds out all that it has",
            found=f"{len(kept)} records of {len(held)} questions",
            todo="give it more rows, or a smaller `holdout`: a question is never on both sides",
        )
    sides = ["holdout" if group in held else "train" for group in groups]
    order = sorted(range(len(kept)), key=lambda i: _place(kept[i].record, seed))
    near = [
        (entry, drawn[earlier[0]])
        for entry, earlier in zip(drawn, repeated, strict=True)
        if earlier and not _same(entry, drawn[earlier[0]])
    ]
    manifest = {"seed": seed, "clean": mixture.clean, "ngram": exams.n} | _account(
        taken, near, zip(kept, sides, strict=True)
    )
    split = Split(
        *([kept[i].record for i in order if sides[i] == side] for side in ("train", "holdout"))
    )
    manifest["content"] = content_hash(*([to_json(record) for record in side] for side in split))
    return Drawn(
        split,
        manifest,
        [_locked(kept[i], sides[i]) for i in order],
        [
            _named(entry) | {"task": m.task, "question": m.question, "share": m.share}
            for each in taken
            for entry, m in each.contaminated
        ],
        [_named(entry) | {"repeats": _named(first)} for entry, first in near],
    )


def _refuse_twice(sources: Iterable[Opened]) -> None:
    labels = Counter(opened.label for opened in sources)
    if twice := [label for label, count in labels.items() if count > 1]:
        raise ZephyrError(
            "a source stands twice in a mixture",
            found=", ".join(twice),
            todo="remove one, or give one a `name` of its own",
        )


def _nothing(taken: Taken) -> str:
    """What became of the rows of a source that gave no record."""
    tally = taken.tally
    reasons = [f"{count} x {why}" for why, count in tally.left_out.most_common(5)]
    if taken.contaminated:
        reasons.append(f"{len(taken.contaminated)} x a question of a test")
    return ", ".join((f"{tally.label}: {tally.seen} rows", *reasons))


def _same(one: Entry, other: Entry) -> bool:
    """Whether one source holds a record twice: that is counted as a duplicate."""
    return one.record.id == other.record.id and one.record.source == other.record.source


def _groups(
    drawn: Sequence[Entry], repeated: Sequence[Sequence[int]], *, remove: bool
) -> tuple[list[Entry], list[str]]:
    """The entries that stay, and for each the group that must stand on one side.

    A group is one question; where near-duplicates stay, their questions are one group too.
    """
    joined: dict[str, str] = {}

    def root(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    kept = []
    for entry, earlier in zip(drawn, repeated, strict=True):
        if remove and earlier:
            continue
        kept.append(entry)
        for place in earlier:
            one, other = root(entry.record.group), root(drawn[place].record.group)
            if one != other:
                joined[one] = other
    return kept, [root(entry.record.group) for entry in kept]


def held_out(records: int, share: float) -> int:
    """How many records a share of them is, rounded up."""
    return math.ceil(round(share * records, 6))


def _hold_out(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """Whole groups, in an order that the seed shuffles, until the share, rounded up, is reached.

    A group that would exceed it is passed over, unless none fits.
    """
    wanted = held_out(len(groups), share)
    sizes = Counter(groups)
    held: set[str] = set()
    for group in sorted(sizes, key=lambda group: (_rank(seed, "holdout", group), group)):
        if wanted <= 0:
            break
        if sizes[group] <= wanted:
            held.add(group)
            wanted -= sizes[group]
    if share and not held:
        held.add(min(sizes, key=lambda group: (sizes[group], _rank(seed, "holdout", group))))
    return held


def _account(
    taken: Sequence[Taken],
    near: Sequence[tuple[Entry, Entry]],
    kept: Iterable[tuple[Entry, str]],
) -> dict[str, Any]:
    """The counts of each source, and their sums."""
    repeated = Counter(entry.record.source for entry, _ in near)
    sources: dict[str, dict[str, Any]] = {}
    for each in taken:
        tally = each.tally
        sources[tally.label] = {
            "seen": tally.seen + each.capped,
            "unreadable": dict(tally.unreadable),
            "left_out": dict(tally.left_out),
            "duplicates": each.duplicates,
            "contaminated": len(each.contaminated),
            "near_duplicates": repeated[tally.label],
            "capped": each.capped,
            "kept": 0,
            "held_out": 0,
            "characters": 0,
        }
    for entry, side in kept:
        row = sources[entry.record.source]
        row["kept"] += 1
        row["held_out"] += side == "holdout"
        row["characters"] += sum(map(len, entry.record.texts))
    totals: dict[str, int] = {}
    for row in sources.values():
        for key, value in row.items():
            count = sum(value.values()) if isinstance(value, dict) else value
            totals[key] = totals.get(key, 0) + count
    return {"sources": sources, "totals": totals}


def _place(record: Record, seed: int) -> tuple[bytes, str]:
    """Where a record stands in the shuffled mixture."""
    return _rank(seed, "order", f"{record.source} {record.id}"), record.id


def _rank(seed: int, what: str, key: str) -> bytes:
    text = f"{seed}\x1f{what}\x1f{key}".encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=12).digest()


def _named(entry: Entry) -> dict[str, str]:
    return {"source": entry.record.source, "row": entry.row, "id": entry.record.id}


def _locked(entry: Entry, side: str) -> dict[str, str]:
    return _named(entry) | {"side": side}
