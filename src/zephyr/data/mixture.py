"""Builds data mixtures: sampling, deduplication, decontamination, and the train/hold-out split.

Each source is sampled by itself (`sampling`); then near-duplicates are removed over all samples,
those of the later source; then whole groups are held out, so that neither a question nor its
near-duplicate is in both splits.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.duplicates import find_near_duplicates
from zephyr.data.sampling import ExcludedRow, SampledRecord, SourceSample, sample_source
from zephyr.data.sources import OpenedSource
from zephyr.errors import ZephyrError
from zephyr.recipe.data import MixtureSpec
from zephyr.records import Chat, Choice, Pair, Record, content_hash, from_json, to_json
from zephyr.runs.store import read_json_lines, write_json, write_json_lines


class RecordSplit(NamedTuple):
    """The train/hold-out split of a mixture: records to train on, and those held out."""

    train: list[Record]
    holdout: list[Record]


@dataclass(frozen=True)
class BuiltMixture:
    """A built mixture: its train/hold-out split and its manifest.

    `lock_rows` has a row for each record, to compare builds by; `contaminated` and
    `near_duplicates` list the records that were found, each with what it matches, and
    `excluded_rows` all that was read and is not in the mixture, with place and reason.
    """

    split: RecordSplit
    manifest: dict[str, Any]
    lock_rows: list[dict[str, Any]]
    contaminated: list[dict[str, Any]]
    near_duplicates: list[dict[str, Any]]
    excluded_rows: list[ExcludedRow]

    def write(self, folder: Path) -> None:
        """Writes records and hold-out, the manifest, the lock file, and what was excluded."""
        for name, records in zip(RECORD_FILES, self.split, strict=True):
            write_json_lines(folder / name, map(to_json, records))
        write_json_lines(folder / LOCK_FILE, self.lock_rows)
        write_json_lines(folder / "contaminated.jsonl", self.contaminated)
        write_json_lines(folder / "near_duplicates.jsonl", self.near_duplicates)
        write_json_lines(folder / _EXCLUDED_FILE, (row._asdict() for row in self.excluded_rows))
        write_json(folder / "manifest.json", self.manifest)


SMALL_SPLIT = 20
"""Below so many records a training or a hold-out is warned of."""
RECORD_FILES = ("records.jsonl", "holdout.jsonl")
LOCK_FILE = "lock.jsonl"
_EXCLUDED_FILE = "left_out.jsonl"


def load_mixture(folder: Path) -> RecordSplit:
    """Loads the records that `BuiltMixture.write` wrote."""
    train, holdout = ([from_json(row) for row in read_json_lines(folder / f)] for f in RECORD_FILES)
    return RecordSplit(train, holdout)


def load_excluded_rows(folder: Path) -> list[ExcludedRow]:
    """Loads the rows that were left out of a mixture.

    Raises:
        ZephyrError: the mixture was built by a version that did not list them.
    """
    file = folder / _EXCLUDED_FILE
    if not file.is_file():
        raise ZephyrError(
            "an earlier version of Zephyr built this mixture, and listed no rows left out",
            where=str(file),
            todo=f"remove {folder.parent}, and build the mixture again (zephyr data build)",
        )
    return [ExcludedRow(**row) for row in read_json_lines(file)]


def build_mixture(
    mixture: MixtureSpec,
    sources: Sequence[OpenedSource],
    *,
    seed: int,
    question_index: EvalQuestionIndex,
) -> BuiltMixture:
    """Builds a mixture without contamination by the evaluation questions in `question_index`.

    Raises:
        ZephyrError: a source has too many unreadable rows or is listed twice, or nothing is left.
    """
    _check_unique_labels(sources)
    remove = mixture.clean == "remove"
    samples: list[SourceSample] = []
    for spec, source in zip(mixture.sources, sources, strict=True):
        cap = spec.cap or mixture.cap
        samples.append(
            sample_source(source, cap, seed=seed, question_index=question_index, remove=remove)
        )
        samples[-1].read_stats.check_unreadable_share(mixture.unreadable)
    sampled_records = [entry for each in samples for entry in each.records]
    if not sampled_records:
        raise ZephyrError(
            "a mixture is empty",
            found="; ".join(map(_explain_empty, samples)),
            todo="give it a source with rows that are wanted",
        )
    duplicates_of = find_near_duplicates([entry.record for entry in sampled_records], remove=remove)
    kept_records, groups = _group_records(sampled_records, duplicates_of, remove=remove)
    holdout_groups = _choose_holdout_groups(groups, mixture.holdout, seed)
    if len(holdout_groups) == len(set(groups)):
        raise ZephyrError(
            "a mixture holds out all that it has",
            found=f"{len(kept_records)} records of {len(holdout_groups)} questions",
            todo="give it more rows, or a smaller `holdout`: a question is never on both sides",
        )
    sides = ["holdout" if group in holdout_groups else "train" for group in groups]
    order = sorted(
        range(len(kept_records)), key=lambda i: _shuffle_order(kept_records[i].record, seed)
    )
    near_duplicate_pairs = [
        (entry, sampled_records[earlier[0]])
        for entry, earlier in zip(sampled_records, duplicates_of, strict=True)
        if earlier and not _is_exact_duplicate(entry, sampled_records[earlier[0]])
    ]
    manifest = {"seed": seed, "clean": mixture.clean, "ngram": question_index.n} | _source_counts(
        samples, near_duplicate_pairs, zip(kept_records, sides, strict=True)
    )
    split = RecordSplit(
        *(
            [kept_records[i].record for i in order if sides[i] == side]
            for side in ("train", "holdout")
        )
    )
    manifest["content"] = content_hash(*([to_json(record) for record in side] for side in split))
    manifest["unused_columns"] = {
        source.label: _unused_columns(source, sample)
        for source, sample in zip(sources, samples, strict=True)
    }
    manifest["shared_answers"] = count_shared_answers(split)
    return BuiltMixture(
        split,
        manifest,
        [_lock_row(kept_records[i], sides[i]) for i in order],
        [
            _record_reference(entry) | {"task": m.task, "question": m.question, "share": m.coverage}
            for each in samples
            for entry, m in each.contamination_matches
        ],
        [
            _record_reference(entry) | {"repeats": _record_reference(first)}
            for entry, first in near_duplicate_pairs
        ],
        [
            *(row for each in samples for row in each.excluded_rows),
            *(_exclude_near_duplicate(*pair) for pair in near_duplicate_pairs if remove),
        ],
    )


def _check_unique_labels(sources: Iterable[OpenedSource]) -> None:
    """Checks that the labels of the sources of a mixture are unique."""
    labels = Counter(opened.label for opened in sources)
    if duplicates := [label for label, count in labels.items() if count > 1]:
        raise ZephyrError(
            "a source stands twice in a mixture",
            found=", ".join(duplicates),
            todo="remove one, or give one a `name` of its own",
        )


def _explain_empty(sample: SourceSample) -> str:
    """Explains why a source gave no record, by the counts of its rows."""
    stats = sample.read_stats
    reasons = [f"{count} x {why}" for why, count in stats.skip_reasons.most_common(5)]
    if sample.contamination_matches:
        reasons.append(f"{len(sample.contamination_matches)} x a question of a test")
    return ", ".join((f"{stats.label}: {stats.item_count} rows", *reasons))


def _is_exact_duplicate(first: SampledRecord, second: SampledRecord) -> bool:
    """Whether two records of one source are the same (counted as an exact duplicate)."""
    return first.record.id == second.record.id and first.record.source == second.record.source


def _group_records(
    sampled_records: Sequence[SampledRecord],
    duplicates_of: Sequence[Sequence[int]],
    *,
    remove: bool,
) -> tuple[list[SampledRecord], list[str]]:
    """The records that are kept, and the group of each (a group must not cross the split).

    A group is one question; if near-duplicates are kept, their questions form one group.
    """
    parents: dict[str, str] = {}

    def find_root(group: str) -> str:
        while group in parents:
            group = parents[group]
        return group

    kept_records = []
    for sampled_record, earlier in zip(sampled_records, duplicates_of, strict=True):
        if remove and earlier:
            continue
        kept_records.append(sampled_record)
        for index in earlier:
            own_root, earlier_root = (
                find_root(sampled_record.record.group),
                find_root(sampled_records[index].record.group),
            )
            if own_root != earlier_root:
                parents[own_root] = earlier_root
    return kept_records, [find_root(entry.record.group) for entry in kept_records]


def holdout_size(records: int, share: float) -> int:
    """The size of a hold-out: a share of the records, rounded up."""
    return math.ceil(round(share * records, 6))


def _choose_holdout_groups(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """Chooses whole hold-out groups in an order that the seed shuffles, up to a share.

    A group that would exceed the share is skipped, unless none fits.
    """
    remaining = holdout_size(len(groups), share)
    sizes = Counter(groups)
    holdout_groups: set[str] = set()
    for group in sorted(sizes, key=lambda group: (_shuffle_key(seed, "holdout", group), group)):
        if remaining <= 0:
            break
        if sizes[group] <= remaining:
            holdout_groups.add(group)
            remaining -= sizes[group]
    if share and not holdout_groups:
        holdout_groups.add(
            min(sizes, key=lambda group: (sizes[group], _shuffle_key(seed, "holdout", group)))
        )
    return holdout_groups


def _source_counts(
    samples: Sequence[SourceSample],
    near_duplicate_pairs: Sequence[tuple[SampledRecord, SampledRecord]],
    kept_records: Iterable[tuple[SampledRecord, str]],
) -> dict[str, Any]:
    """Row counts of each source by outcome, and their totals (for the manifest)."""
    near_duplicate_counts = Counter(
        sampled_record.record.source for sampled_record, _ in near_duplicate_pairs
    )
    sources: dict[str, dict[str, Any]] = {}
    for sample in samples:
        stats = sample.read_stats
        sources[stats.label] = {
            "seen": stats.item_count + sample.capped_count,
            "unreadable": dict(stats.unreadable_reasons),
            "left_out": dict(stats.skip_reasons),
            "duplicates": sample.duplicate_count,
            "contaminated": len(sample.contamination_matches),
            "near_duplicates": near_duplicate_counts[stats.label],
            "capped": sample.capped_count,
            "kept": 0,
            "held_out": 0,
            "characters": 0,
        }
    for entry, side in kept_records:
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


def _unused_columns(source: OpenedSource, sample: SourceSample) -> dict[str, int | None]:
    """The columns that were not read: how many rows have a value there, None if not loaded."""
    counts: dict[str, int | None] = dict.fromkeys(source.unloaded_columns)
    return dict(sorted((counts | sample.read_stats.unused_columns).items()))


def _exclude_near_duplicate(entry: SampledRecord, first: SampledRecord) -> ExcludedRow:
    reason = f"it is like row {first.row_id} of {first.record.source}"
    return ExcludedRow(entry.record.source, entry.row_id, entry.location, "near_duplicates", reason)


def size_notes(split: RecordSplit, name: str) -> list[str]:
    """Warnings of a training or hold-out of fewer than `SMALL_SPLIT` records."""
    notes = []
    if len(split.train) < SMALL_SPLIT:
        notes.append(
            f"only {len(split.train)} records to train on: with fewer than {SMALL_SPLIT} a model "
            "learns them by heart, and little else"
        )
    if 0 < len(split.holdout) < SMALL_SPLIT:
        notes.append(
            f"only {len(split.holdout)} records are held out: with fewer than {SMALL_SPLIT} their "
            f"scores say little (data.{name}.holdout)"
        )
    return notes


def count_shared_answers(split: RecordSplit) -> dict[str, Any]:
    """Counts the hold-out records whose answers stand in training too, in other records.

    Answers are compared without case and whitespace. `records` are those with one such answer or
    more, of `holdout` records; `answers` has the count of each role, and for pairs also of
    answers that are chosen on one side of the split and rejected on the other.
    """
    trained: dict[str, set[str]] = {}
    for record in split.train:
        for role, answer in _answers(record):
            trained.setdefault(role, set()).add(answer)
    answers: Counter[str] = Counter()
    records = 0
    for record in split.holdout:
        roles = {
            role if role == trained_role else "chosen and rejected"
            for role, answer in _answers(record)
            for trained_role, known in trained.items()
            if answer in known
        }
        answers.update(roles)
        records += bool(roles)
    return {
        "holdout": len(split.holdout),
        "records": records,
        "answers": dict(sorted(answers.items())),
    }


def _answers(record: Record) -> list[tuple[str, str]]:
    """The (role, answer) of the answers of a record, case and whitespace normalized."""
    match record:
        case Chat():
            answers = [("answer", m.content) for m in record.messages if m.role == "assistant"]
        case Pair():
            answers = [("chosen", record.chosen), ("rejected", record.rejected)]
        case Choice():
            answers = [("answer", record.choices[record.answer])]
        case _:
            answers = []
    return [(role, " ".join(answer.split()).casefold()) for role, answer in answers]


def _shuffle_order(record: Record, seed: int) -> tuple[bytes, str]:
    """The sort key of a record in the shuffled mixture."""
    return _shuffle_key(seed, "order", f"{record.source} {record.id}"), record.id


def _shuffle_key(seed: int, purpose: str, key: str) -> bytes:
    """A pseudo-random sort key by seed, purpose and key."""
    text = f"{seed}\x1f{purpose}\x1f{key}".encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=12).digest()


def _record_reference(sampled_record: SampledRecord) -> dict[str, str]:
    return {
        "source": sampled_record.record.source,
        "row": sampled_record.row_id,
        "id": sampled_record.record.id,
    }


def _lock_row(sampled_record: SampledRecord, side: str) -> dict[str, str]:
    return _record_reference(sampled_record) | {"side": side}
