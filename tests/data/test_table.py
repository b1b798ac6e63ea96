"""The table of sources: each row is held to its sample rows, and their counts to known totals."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from docs.generate import sources as page
from tests.data.sample_rows import SAMPLE_ROWS, SKIP_REASONS, Row
from zephyr.data.column_formats import detect_format
from zephyr.data.licences import licence_warnings
from zephyr.data.readers.parsing import (
    CONVERSATION_COLUMNS,
    RowReader,
    SkippedRecord,
    UnreadableRowError,
)
from zephyr.data.table import SOURCES, HubLocation, RegisteredSource
from zephyr.recipe.data import SourceSpec
from zephyr.records import RECORD_KINDS, Chat, Choice, Pair, Record

for_each_source = pytest.mark.parametrize(
    "source", SOURCES.values(), ids=lambda source: source.name
)


def read_or_reasons(reader: RowReader, row: Mapping[str, Any]) -> list[Record | str]:
    """Records, and the reasons of what is left out."""
    try:
        return [str(part) if isinstance(part, SkippedRecord) else part for part in reader(row, "s")]
    except SkippedRecord as error:
        return [str(error)]


def sample_outcomes(source: RegisteredSource) -> list[Record | str]:
    """What comes of the examples of a source."""
    found: list[Record | str] = []
    for row in SAMPLE_ROWS[source.name]:
        found += read_or_reasons(detect_format(row, source.kind, source, "here").reader, row)
    return found


def sample_records(name: str) -> list[Record]:
    return [part for part in sample_outcomes(SOURCES[name]) if isinstance(part, Record)]


def readable_rows(source: RegisteredSource) -> Iterator[Row]:
    """The examples that are in the source's own columns and give a record."""
    for row in SAMPLE_ROWS[source.name]:
        if row.keys() >= set(source.columns):
            found = read_or_reasons(source.reader, row)
            if any(isinstance(part, Record) for part in found):
                yield row


def test_names_and_kinds() -> None:
    assert len(SOURCES) == 35
    assert SOURCES.keys() == SAMPLE_ROWS.keys()
    assert {source.kind for source in SOURCES.values()} == set(RECORD_KINDS)
    for name, source in SOURCES.items():
        assert SourceSpec(name=name).name == source.name == name


@for_each_source
def test_examples_are_records_of_its_kind_or_left_out_with_a_reason(
    source: RegisteredSource,
) -> None:
    found = sample_outcomes(source)
    assert {part.kind for part in found if isinstance(part, Record)} == {source.kind}
    skip_reasons = Counter(part for part in found if isinstance(part, str))
    assert dict(skip_reasons) == SKIP_REASONS.get(source.name, {})
    assert (sum(isinstance(part, Record) for part in found) > 3) == source.has_many_records


@for_each_source
def test_its_columns_are_needed_and_no_others(source: RegisteredSource) -> None:
    rows = list(readable_rows(source))
    assert rows
    for row in rows:
        found = read_or_reasons(source.reader, row)
        known = {*source.columns, *source.optional_columns}
        assert read_or_reasons(source.reader, {c: v for c, v in row.items() if c in known}) == found
        for column in source.columns:
            with pytest.raises(UnreadableRowError):
                list(source.reader({c: v for c, v in row.items() if c != column}, "s"))


@for_each_source
def test_optional_columns_may_be_missing_and_are_looked_at(source: RegisteredSource) -> None:
    accessed: set[str] = set()

    class RecordingRow(dict[str, Any]):
        def __getitem__(self, column: str) -> Any:
            accessed.add(column)
            return super().__getitem__(column)

        def __contains__(self, column: object) -> bool:
            accessed.add(str(column))
            return super().__contains__(column)

        def get(self, column: str, default: Any = None) -> Any:
            accessed.add(column)
            return super().get(column, default)

    for row in readable_rows(source):
        assert read_or_reasons(source.reader, {column: row[column] for column in source.columns})
        read_or_reasons(source.reader, RecordingRow(row))
    known = {*source.columns, *source.optional_columns}
    beside = {*CONVERSATION_COLUMNS, "kto_tag"} - known
    assert accessed - beside == known, "`OpenedSource` shows a reader no others"


@for_each_source
def test_its_facts_agree(source: RegisteredSource) -> None:
    assert {source.train_split, source.eval_split} - {None} <= source.splits.keys()
    assert source.train_split or source.eval_split
    assert source.train_split != source.eval_split
    assert all(count is None or count > 0 for count in source.splits.values())
    assert (source.aspect != "unspecified") == (source.kind == "pair")
    facts = {"rows", "licence", "gated", "config", "files"}
    assert source.uncertain.keys() <= facts, "facts that have a name"
    assert set(source.uncertain.values()) <= {"recalled", "inferred"}
    if source.hub is not None:
        assert all(source.hub.pattern(split).count("{") == 0 for split in source.splits)


@for_each_source
def test_the_page_of_sources_says_it(source: RegisteredSource) -> None:
    [line] = [line for line in page().splitlines() if line.startswith(f"| {source.name} |")]
    assert ", ".join(source.columns) in line
    assert source.licence in line
    assert ("gated |" in line) == source.gated
    for split, count in source.splits.items():
        assert split in line
        assert count is None or f" {count:,}" in line
    for fact, doubt in source.uncertain.items():
        assert f"{fact} {doubt}" in line
    if source.hub is not None:
        assert f"[{source.hub.id}]({source.hub.card_url}) {source.hub.config or ''}".strip() in line
        assert ("unpinned" in line) != source.hub.is_pinned


def test_where_files_lie() -> None:
    assert {hub.is_pinned for s in SOURCES.values() if (hub := s.hub)} == {False}
    assert HubLocation("a/b", revision="0123456789abcdef" * 2 + "01234567").is_pinned
    assert not HubLocation("a/b", revision="0123456").is_pinned
    hubs = {name: source.hub for name, source in SOURCES.items()}
    assert hubs["epfl"] is hubs["primer"] is None
    patterns = {
        ("goat", "train"): "default/train/*.parquet",
        ("khan_academy", "train"): "khanacademy/train/*.parquet",
        ("arc_easy", "test"): "ARC-Easy/test/*.parquet",
        ("mmlu", "auxiliary_train"): "all/auxiliary_train/*.parquet",
        ("shp_askphysics", "validation"): "askphysics/validation.json",
    }
    for (name, split), expected in patterns.items():
        hub = hubs[name]
        assert hub is not None
        assert hub.pattern(split) == expected
        assert hub.card_url == f"https://huggingface.co/datasets/{hub.id}"
    assert hubs["wiki_qa"] == hubs["wiki_qa_all"], "the same files, read otherwise"


# -- what is odd in some of them ------------------------------------------------------------------


def test_every_answer_of_wiki_qa_is_read_where_that_is_asked_for() -> None:
    """As the seed did: LLaMA-Factory's catalogue knows nothing of the label."""
    right, every = sample_records("wiki_qa"), sample_records("wiki_qa_all")
    assert len(right) == 2
    assert [r.content for r in every if r.content in [good.content for good in right]]
    assert len(every) == 3


def test_answers_of_multiple_choice_are_indices_whatever_their_labels() -> None:
    answers = {
        name: [r.answer for r in sample_records(name) if isinstance(r, Choice)]
        for name in ("arc_challenge", "arc_easy", "mmlu", "hellaswag")
    }
    assert answers == {
        "arc_challenge": [1, 1, 3],
        "arc_easy": [1, 0, 2],
        "mmlu": [1, 0, 2],
        "hellaswag": [0, 1, 0],
    }
    assert [len(r.choices) for r in sample_records("arc_challenge") if isinstance(r, Choice)] == [
        4,
        3,
        5,
    ]


def test_conversations_keep_their_turns_and_pairs_their_system_messages() -> None:
    assert [len(r.messages) for r in sample_records("lima") if isinstance(r, Chat)] == [2, 4, 2]
    for name, turns in {
        "orca_dpo_pairs": [1, 2, 2],
        "truthy_dpo": [2, 1, 1],
        "dpo_mix_zero_math_untoxic": [1, 3, 2],
    }.items():
        assert [len(r.prompt) for r in sample_records(name) if isinstance(r, Pair)] == turns


def test_what_students_gave_twice_is_left_for_the_mixture() -> None:
    found = sample_records("epfl")
    assert len(found) == 4
    assert len({r.id for r in found}) == 3


# -- mixture sizes --------------------------------------------------------------------------------

D_S_SOURCES = (
    *("khan_academy", "math_college", "arxiv_math", "code_assistant", "metamathqa"),
    *("magicoder", "goat", "lima", "open_platypus", "math_instruct"),
)
D_L_SOURCES = ("open_platypus", "math_instruct", "wiki_qa_all", "lima", "code_alpaca")


def num_rows(name: str, cap: int | None = None, unknown: int = 0) -> int:
    """How many rows a mixture has of a source."""
    source = SOURCES[name]
    count = source.splits[str(source.train_split)]
    rows = unknown if count is None else count
    return rows if cap is None else min(rows, cap)


def test_the_seeds_mixtures_have_the_sizes_that_it_printed() -> None:
    assert sum(num_rows(name, 12_000) for name in D_S_SOURCES) == 102_030
    assert sum(num_rows(name) for name in D_L_SOURCES) == 328_377
    assert sum(num_rows(name, 20_000) for name in D_L_SOURCES) == 81_030
    own = "votes"  # a class of the user's own
    pairs = [name for name, source in SOURCES.items() if source.kind == "pair" and name != own]
    assert len(pairs) == 12
    caps = dict.fromkeys(pairs, 1_000) | {"epfl": 1_500}
    assert sum(num_rows(name, cap, unknown=1_000) for name, cap in caps.items()) == 12_500
    assert sum(map(num_rows, ("arc_challenge", "arc_easy", "mmlu"))) == 103_212


# -- licences -------------------------------------------------------------------------------------


def test_open_licences_need_no_warning() -> None:
    silent = {name for name, source in SOURCES.items() if not licence_warnings(source)}
    plain = {"MIT", "Apache-2.0", "CC-BY-4.0"}
    assert silent == {name for name, source in SOURCES.items() if source.licence in plain}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "lima",
            [
                "commercial use is not allowed",
                "what is made of it may only be passed on under the same licence",
                "everybody has to accept its terms at https://huggingface.co/datasets/GAIR/lima",
            ],
        ),
        ("math_college", ["no licence is known, so no permission is"]),
        ("exp_dpo_3", ["no licence is known, so no permission is"]),
        ("metamathqa", ["it has terms of its own, which may forbid training on it"]),
        ("wiki_qa", ["it has terms of its own, which may forbid training on it"]),
        (
            "shp_askphysics",
            [
                "no licence is known, so no permission is",
                "it has terms of its own, which may forbid training on it",
            ],
        ),
        (
            "epfl",
            [
                "no licence is known, so no permission is",
                "it must not be passed on, nor anything that quotes it",
            ],
        ),
        ("orca_dpo_pairs", ["commercial use is not allowed"]),
        (
            "open_platypus",
            ["its rows have different licences, some of which may forbid commercial use"],
        ),
        ("wikitext2", ["what is made of it may only be passed on under the same licence"]),
    ],
)
def test_warnings(name: str, expected: list[str]) -> None:
    source = SOURCES[name]
    assert licence_warnings(source) == tuple(expected)
    assert licence_warnings(
        RegisteredSource("s", source.kind, source.reader, (), {}, licence="CC-BY-ND-4.0")
    )
