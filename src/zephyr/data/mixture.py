"""Mixtures: what is taken of each source, what is held out, and an account of all the rest.

The draw of a source depends on (seed, source, record) alone: adding, removing or reordering other
sources leaves it as it was, and a larger cap takes a superset. A hold-out keeps together what has
one group, so that no question stands on both sides.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zephyr import recipe
from zephyr.data.sources import Reading
from zephyr.errors import ZephyrError
from zephyr.records import Record, from_json, to_json
from zephyr.store import read_json_lines, write_atomically, write_json


class Split(NamedTuple):
    """Records to train on, and those held out."""

    train: list[Record]
    holdout: list[Record]


@dataclass(frozen=True)
class Drawn:
    """A mixture that has been drawn, with its account."""

    split: Split
    manifest: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Writes records.jsonl, holdout.jsonl and manifest.json."""
        for name, records in zip(FILES, self.split, strict=True):
            write_atomically(folder / name, "".join(_line(r) for r in records))
        write_json(folder / "manifest.json", self.manifest)


FILES = ("records.jsonl", "holdout.jsonl")


def load(folder: Path) -> Split:
    """What `Drawn.write` wrote."""
    train, holdout = ([from_json(row) for row in read_json_lines(folder / f)] for f in FILES)
    return Split(train, holdout)


def draw(mixture: recipe.Mixture, readings: Sequence[Reading], *, seed: int) -> Drawn:
    """Draws a mixture from what was read of its sources.

    Raises:
        ZephyrError: a source has too many unreadable rows, stands twice, or nothing is left.
    """
    labels = [reading.label for reading in readings]
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise ZephyrError(
            "a source stands twice in a mixture",
            found=", ".join(twice),
            todo="remove one, or give one a `name` of its own",
        )
    account: dict[str, dict[str, Any]] = {}
    kept: list[Record] = []
    for source, reading in zip(mixture.sources, readings, strict=True):
        refuse_unreadable(reading, mixture.unreadable)
        taken, row = _take(reading, source.cap or mixture.cap, seed)
        kept += taken
        account[reading.label] = row
    if not kept:
        raise ZephyrError(
            "a mixture is empty",
            found="; ".join(_nothing(reading) for reading in readings),
            todo="give it a source with rows that are wanted",
        )
    split = _hold_out(kept, mixture.holdout, seed)
    if not split.train:
        raise ZephyrError(
            "a mixture holds out all that it has",
            found=f"{len(kept)} records of {len({r.group for r in kept})} questions",
            todo="give it more rows, or a smaller `holdout`: a question is never on both sides",
        )
    for label, row in account.items():
        row["held_out"] = sum(r.source == label for r in split.holdout)
    keys = ("seen", "duplicates", "capped", "kept", "held_out", "characters")
    totals: dict[str, Any] = {key: sum(row[key] for row in account.values()) for key in keys}
    for key in ("unreadable", "left_out"):
        totals[key] = sum(sum(row[key].values()) for row in account.values())
    return Drawn(split, {"seed": seed, "sources": account, "totals": totals})


def _nothing(reading: Reading) -> str:
    """What became of the rows of a source that gave no record."""
    reasons = [f"{count} x {why}" for why, count in reading.left_out.most_common(5)]
    return ", ".join((f"{reading.label}: {reading.rows} rows", *reasons))


def refuse_unreadable(reading: Reading, allowed: float) -> None:
    """Refuses a source of which more than the allowed share can't be read, or nothing at all."""
    bad = sum(reading.unreadable.values())
    if bad > allowed * max(reading.rows, 1) or (bad and not reading.records):
        reasons = ", ".join(f"{count} x {why}" for why, count in reading.unreadable.most_common(5))
        raise ZephyrError(
            f"too many rows of source {reading.label!r} can't be read",
            where=next(iter(reading.first_bad.values())),
            found=f"{bad} of {reading.rows} rows: {reasons}",
            allowed=f"a share of {allowed:g} (`unreadable`)",
            todo="mend the rows, map their names with `columns`, or raise `unreadable`",
        )


def _take(reading: Reading, cap: int | None, seed: int) -> tuple[list[Record], dict[str, Any]]:
    """The first `cap` distinct records of a source by rank, and the source's account."""
    distinct = {record.id: record for record in reading.records}
    ranked = sorted(
        distinct, key=lambda record_id: (_rank(seed, reading.label, record_id), record_id)
    )
    taken = [distinct[record_id] for record_id in ranked[:cap]]
    return taken, {
        "seen": reading.rows,
        "unreadable": dict(reading.unreadable),
        "left_out": dict(reading.left_out),
        "duplicates": len(reading.records) - len(distinct),
        "capped": len(distinct) - len(taken),
        "kept": len(taken),
        "characters": sum(len(text) for record in taken for text in record.texts),
    }


def _hold_out(records: Sequence[Record], share: float, seed: int) -> Split:
    """Splits off whole groups, in an order that the seed shuffles, until the share is reached."""
    wanted = math.ceil(share * len(records))
    sizes = Counter(record.group for record in records)
    held: set[str] = set()
    count = 0
    for group in sorted(sizes, key=lambda group: (_rank(seed, "holdout", group), group)):
        if count >= wanted:
            break
        held.add(group)
        count += sizes[group]
    order = sorted(records, key=lambda r: (_rank(seed, "order", f"{r.source} {r.id}"), r.id))
    return Split([r for r in order if r.group not in held], [r for r in order if r.group in held])


def _rank(seed: int, what: str, key: str) -> bytes:
    text = f"{seed}\x1f{what}\x1f{key}".encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=12).digest()


def _line(record: Record) -> str:
    return json.dumps(to_json(record), ensure_ascii=False) + "\n"
