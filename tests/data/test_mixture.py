"""Mixtures: min(cap, size) of each source whatever stands beside it, and an account of the rest."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.in_memory_sources import (
    SKIPPED,
    UNREADABLE,
    make_chats,
    make_mixture,
    make_source,
    record_ids,
)
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.duplicates import find_near_duplicates
from zephyr.data.mixture import (
    RECORD_FILES,
    RecordSplit,
    count_shared_answers,
    load_excluded_rows,
    load_mixture,
    size_notes,
)
from zephyr.data.sources import OpenedSource
from zephyr.errors import ZephyrError
from zephyr.records import (
    Chat,
    Choice,
    Message,
    Pair,
    Passage,
    Record,
    content_hash,
    from_json,
    to_json,
)

ALL_HELD_OUT = "a mixture holds out all that it has"
SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1)


def make_distinct_source(name: str, size: int) -> OpenedSource:
    """A source that has no record in common with one of another letter."""
    return make_source(name, make_chats(name, size, first=1_000 * ord(name)))


@given(SIZES, st.integers(1, 40), st.integers(1, 40))
def test_each_source_gives_the_lesser_of_its_cap_and_its_size(
    sizes: dict[str, int], cap: int, own: int
) -> None:
    """A source's own cap stands before the mixture's."""
    first, *_ = sizes
    mixture = make_mixture(
        [make_distinct_source(n, size) for n, size in sizes.items()], cap=cap, caps={first: own}
    )
    expected = {n: min(own if n == first else cap, size) for n, size in sizes.items()}
    assert Counter(r.source for r in mixture.split.train) == expected
    assert len({r.id for r in mixture.split.train if r.source == first}) == expected[first]


@given(st.permutations("abcd"), st.integers(0, 3), st.integers(1, 12), st.integers(0, 5))
def test_a_draw_does_not_depend_on_the_sources_beside_it(
    order: list[str], beside: int, cap: int, seed: int
) -> None:
    alone = make_mixture([make_distinct_source("a", 12)], seed, cap=cap)
    chosen = [name for name in order if name == "a" or name in "bcd"[:beside]]
    assert record_ids(
        make_mixture([make_distinct_source(n, 12) for n in chosen], seed, cap=cap), "a"
    ) == record_ids(alone, "a")


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_a_larger_cap_takes_all_that_a_smaller_takes(
    small: int, more: int, seed: int, with_unreadable: bool
) -> None:
    """Also where rows are refused, and the next take their places."""
    rows: list[Record | str] = [*make_chats("a", 40)]
    if with_unreadable:
        rows[::3] = [UNREADABLE] * 14
        rows[1::5] = [rows[2]] * 8
    sources = [make_source("a", rows)]
    few, many = (
        record_ids(make_mixture(sources, seed, cap=c, unreadable=0.9), "a")
        for c in (small, small + more)
    )
    assert few <= many
    num_distinct = len({r.id for r in rows if not isinstance(r, str)})
    assert (len(few), len(many)) == (min(num_distinct, small), min(num_distinct, small + more))


@given(SIZES, st.floats(0, 0.6), st.integers(2, 9), st.integers(0, 9), st.booleans())
def test_no_question_stands_on_both_sides(
    sizes: dict[str, int], share: float, num_questions: int, seed: int, remove: bool
) -> None:
    """The same questions are in all sources; no more is held out than the share needs."""
    sources = [
        make_source(n, make_chats(n, size, num_questions=num_questions))
        for n, size in sizes.items()
    ]
    clean = "remove" if remove else "report"
    try:
        train, holdout = make_mixture(sources, seed, holdout=share, clean=clean).split
    except ZephyrError as error:
        assert error.problem == ALL_HELD_OUT  # noqa: PT017  # or all's well
        return
    total = len(train) + len(holdout)
    assert total == (max(sizes.values()) if remove else sum(sizes.values()))
    assert not {r.group for r in train} & {r.group for r in holdout}
    groups = Counter(r.group for r in holdout)
    assert bool(holdout) == (share > 0)
    assert len(holdout) < share * total + 1 or len(groups) == 1


@pytest.mark.parametrize(
    ("share", "records", "num_holdout"),
    [(0.05, 102, 6), (0.05, 100, 5), (0.05, 101, 6), (0.2, 5, 1), (0.0, 9, 0)],
)
def test_the_hold_out_is_rounded_up(share: float, records: int, num_holdout: int) -> None:
    """0.05 x 102,030 is 5,102 in the seed; 0.05 x 100 is 5, whatever floating point says."""
    assert (
        len(make_mixture([make_source("a", make_chats("a", records))], holdout=share).split.holdout)
        == num_holdout
    )


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(1, 60))
def test_questions_are_held_out_in_an_order_that_no_other_source_changes(
    seed: int, beside: int
) -> None:
    holdout_groups = [
        {r.group for r in make_mixture(sources, seed, holdout=0.2).split.holdout if r.source == "a"}
        for sources in (
            [make_distinct_source("a", 50)],
            [make_distinct_source("a", 50), make_distinct_source("b", beside)],
        )
    ]
    assert len(holdout_groups[0]) == 10
    assert holdout_groups[0] <= holdout_groups[1] or holdout_groups[1] <= holdout_groups[0]


def test_duplicates_are_counted_and_taken_once() -> None:
    """Within a source the next row takes the place; the later of two sources loses."""
    sources = [
        make_source("a", make_chats("a", 5) + make_chats("a", 3)),
        make_source("b", make_chats("b", 7)),
    ]
    mixture = make_mixture(sources, cap=5)
    account = mixture.manifest["sources"]
    assert (account["a"]["duplicates"], account["a"]["kept"]) == (8 - 5 - account["a"]["capped"], 5)
    assert account["b"]["near_duplicates"] == len(
        record_ids(make_mixture(sources[1:], cap=5), "b") & record_ids(mixture, "a")
    )
    assert account["b"]["kept"] == 5 - account["b"]["near_duplicates"]
    for row in mixture.near_duplicates:
        assert (row["source"], row["repeats"]["source"], row["id"]) == (
            "b",
            "a",
            row["repeats"]["id"],
        )


def test_what_is_only_reported_stays() -> None:
    question_index = EvalQuestionIndex([("quiz", make_chats("q", 1)[0])], 8)
    sources = [
        make_source("a", make_chats("a", 5) + make_chats("a", 3)),
        make_source("b", make_chats("b", 7)),
    ]
    mixture = make_mixture(sources, clean="report", question_index=question_index)
    account = mixture.manifest["sources"]
    assert (account["a"]["duplicates"], account["a"]["kept"]) == (3, 8)
    assert (account["b"]["duplicates"], account["b"]["kept"]) == (0, 7)
    assert (account["a"]["near_duplicates"], account["b"]["near_duplicates"]) == (0, 5)
    assert (account["a"]["contaminated"], account["b"]["contaminated"]) == (2, 1)
    assert [row["task"] for row in mixture.contaminated] == ["quiz"] * 3
    assert (
        make_mixture(sources, question_index=question_index).manifest["totals"]["contaminated"] == 2
    )


def test_a_question_is_the_same_whatever_its_blanks_and_its_case() -> None:
    rows = [
        Chat("a", (Message("user", question), Message("assistant", f"{n} {m}")))
        for n in range(40)
        for m, question in enumerate((f"What is  {n}?", f"what is {n}? ", f"WHAT IS {n}?"))
    ]
    mixture = make_mixture([make_source("a", rows)], holdout=0.3)
    holdout_questions = {r.texts[0].split()[-1] for r in mixture.split.holdout}
    assert len(mixture.split.holdout) == 36
    assert not holdout_questions & {r.texts[0].split()[-1] for r in mixture.split.train}


@pytest.mark.parametrize("clean", ["remove", "report"])
def test_no_near_duplicate_of_the_hold_out_is_trained_on(clean: str) -> None:
    """Chains too: each passage is like its neighbours, and not like those beyond."""
    words = [f"{a}{b}{c}" for a in "bcdfghklmn" for b in "aeiou" for c in "prstvwxz"]
    rows = [Passage("a", " ".join(words[at : at + 90])) for at in range(0, 300, 8)]
    try:
        train, holdout = make_mixture(
            [make_source("a", rows, "passage")], clean=clean, holdout=0.2
        ).split
    except ZephyrError as error:
        assert (clean, error.problem) == ("report", ALL_HELD_OUT)  # noqa: PT017  # or all's well
        return
    for one in holdout:
        for other in train:
            assert find_near_duplicates([one, other], remove=True) == [[], []]


def test_near_duplicates_stand_on_one_side() -> None:
    """Where they are only reported: two questions that differ by a word are one group."""
    words = [" ".join(f"w{n}x{i}" for i in range(40)) for n in range(60)]
    both = [
        Chat("a", (Message("user", f"{n} {words[n]} {end}"), Message("assistant", words[n])))
        for n in range(60)
        for end in ("please", "now")
    ]
    mixture = make_mixture([make_source("a", both)], clean="report", holdout=0.3)
    assert mixture.manifest["totals"]["near_duplicates"] == 60
    holdout_questions = Counter(r.texts[0].split()[0] for r in mixture.split.holdout)
    assert len(holdout_questions) == 18
    assert set(holdout_questions.values()) == {2}


@given(
    st.integers(0, 4), st.integers(0, 9), st.integers(0, 9), st.integers(1, 60), st.integers(1, 60)
)
def test_the_account_adds_up(unreadable: int, out: int, twice: int, size: int, cap: int) -> None:
    rows = [
        *make_chats("a", size),
        *make_chats("a", min(twice, size)),
        *[UNREADABLE] * unreadable,
        *[SKIPPED] * out,
    ]
    sources = [make_source("a", rows), make_distinct_source("b", 7)]
    manifest = make_mixture(sources, cap=cap, unreadable=0.99).manifest
    for row in manifest["sources"].values():
        lost = sum(row["unreadable"].values()) + sum(row["left_out"].values())
        lost += row["duplicates"] + row["contaminated"] + row["near_duplicates"]
        assert row["seen"] == lost + row["capped"] + row["kept"]
    totals = manifest["totals"]
    assert totals["seen"] == len(rows) + 7
    assert totals["kept"] == min(cap, size) + min(cap, 7)
    if cap >= len(rows):
        assert (totals["unreadable"], totals["left_out"]) == (unreadable, out)
        assert totals["duplicates"] == min(twice, size)


def test_a_manifest_by_hand() -> None:
    records = [
        Chat("a", (Message("user", "Why?"), Message("assistant", "So."))),
        Chat("a", (Message("user", "Who?"), Message("assistant", "Me."))),
    ]
    mixture = make_mixture(
        [make_source("a", [*records, UNREADABLE, SKIPPED])], seed=7, holdout=0.5, unreadable=0.25
    )
    assert {key: value for key, value in mixture.manifest.items() if key != "content"} == {
        "seed": 7,
        "clean": "remove",
        "ngram": 8,
        "sources": {
            "a": {
                "seen": 4,
                "unreadable": {"it is bad": 1},
                "left_out": {"nobody wants it": 1},
                "duplicates": 0,
                "contaminated": 0,
                "near_duplicates": 0,
                "capped": 0,
                "kept": 2,
                "held_out": 1,
                "characters": 4 + 3 + 4 + 3,
            }
        },
        "totals": {
            "seen": 4,
            "unreadable": 1,
            "left_out": 1,
            "duplicates": 0,
            "contaminated": 0,
            "near_duplicates": 0,
            "capped": 0,
            "kept": 2,
            "held_out": 1,
            "characters": 14,
        },
        "unused_columns": {"a": {}},
        "shared_answers": {"holdout": 1, "records": 0, "answers": {}},
    }


def test_what_is_left_out_is_listed_with_place_and_reason(tmp_path: Path) -> None:
    """As many rows as the account counts, for each outcome."""
    question_index = EvalQuestionIndex([("quiz", make_chats("q", 1)[0])], 8)
    rows: list[Record | str] = [*make_chats("a", 12), *make_chats("a", 3), UNREADABLE, SKIPPED]
    sources = [make_source("a", rows), make_source("b", make_chats("b", 7))]
    mixture = make_mixture(sources, question_index=question_index, unreadable=0.1)
    mixture.write(tmp_path)
    excluded = load_excluded_rows(tmp_path)
    totals = mixture.manifest["totals"]
    outcomes = ("unreadable", "left_out", "duplicates", "contaminated", "near_duplicates")
    assert Counter(row.outcome for row in excluded) == {o: totals[o] for o in outcomes}
    assert all(totals[outcome] for outcome in outcomes)
    assert [(*row[:4], row.reason) for row in excluded if row.outcome in outcomes[:2]] in (
        [
            ("a", "16", "a.jsonl:16", "unreadable", "it is bad"),
            ("a", "17", "a.jsonl:17", "left_out", "nobody wants it"),
        ],
        [
            ("a", "17", "a.jsonl:17", "left_out", "nobody wants it"),
            ("a", "16", "a.jsonl:16", "unreadable", "it is bad"),
        ],
    )
    assert {row.location for row in excluded} == {f"{r.source}.jsonl:{r.row}" for r in excluded}
    kept = {(row["source"], row["row"]) for row in mixture.lock_rows}
    assert not kept & {(row.source, row.row) for row in excluded}
    (tmp_path / "left_out.jsonl").unlink()
    with pytest.raises(ZephyrError, match="an earlier version of Zephyr built this mixture"):
        load_excluded_rows(tmp_path)


def test_what_is_only_reported_is_not_listed_as_left_out() -> None:
    sources = [make_source("a", make_chats("a", 5) * 2), make_source("b", make_chats("b", 5))]
    assert make_mixture(sources, clean="report").excluded_rows == []
    assert len(make_mixture(sources).excluded_rows) == 10


def make_pair(question: str, chosen: str, rejected: str) -> Pair:
    return Pair("a", (Message("user", question),), chosen, rejected)


def test_answers_on_both_sides_are_counted_without_case_and_blanks() -> None:
    split = RecordSplit(
        train=[make_pair("1", "Yes.", "No."), make_pair("2", "A  cat", "A dog")],
        holdout=[
            make_pair("3", "yes. ", "Never."),
            make_pair("4", "a cat", "a\tDOG"),
            make_pair("5", "No.", "Maybe."),
            make_pair("6", "Yes", "No"),
        ],
    )
    assert count_shared_answers(split) == {
        "holdout": 4,
        "records": 3,
        "answers": {"chosen": 2, "rejected": 1, "chosen and rejected": 1},
    }
    chats = make_chats("a", 4)
    again = Chat("a", (Message("user", "Other?"), Message("assistant", "0.")))
    assert count_shared_answers(RecordSplit(chats, [again])) == {
        "holdout": 1,
        "records": 1,
        "answers": {"answer": 1},
    }
    passages = RecordSplit([Passage("a", "x")], [Passage("a", "x")])
    assert count_shared_answers(passages)["records"] == 0


def test_the_content_of_a_mixture_is_that_of_its_records_alone() -> None:
    """What learns from a mixture is made again where this hash changes."""
    records = make_chats("a", 9)
    contents = {
        make_mixture([make_source("a", rows)], unreadable=0.5).manifest["content"]
        for rows in (records, [*records, SKIPPED, UNREADABLE])
    }
    split = make_mixture([make_source("a", records)]).split
    assert contents == {content_hash(*([to_json(r) for r in side] for side in split))}


def test_rows_of_several_records_are_sampled_record_by_record() -> None:
    """A cap of 10 among 40 pairs of 4 questions takes of all questions; rows have part numbers."""
    rows = [[*make_chats("a", 10, first=10 * n, num_questions=1)] for n in range(4)]
    mixture = make_mixture([make_source("a", rows)], cap=10)
    questions = {row["row"].split(".")[0] for row in mixture.lock_rows}
    assert (len(mixture.lock_rows), questions) == (10, {"1", "2", "3", "4"})
    assert all(
        int(part or 0) < 10 for row in mixture.lock_rows for part in row["row"].split(".")[1:]
    )
    assert mixture.manifest["totals"]["seen"] == 40
    assert mixture.manifest["totals"]["capped"] == 30


def test_the_draw_is_pinned() -> None:
    """A change of these is a change of every mixture: raise the stage's version with it."""
    mixture = make_mixture(
        [make_source("a", make_chats("a", 9)), make_source("b", make_chats("b", 9, first=9))],
        42,
        cap=4,
        holdout=0.25,
    )
    texts = [" ".join(r.source + r.texts[1] for r in side) for side in mixture.split]
    assert texts == ["a1. a2. b17. a6. b16. a3.", "b14. b15."]
    assert [row["row"] for row in mixture.lock_rows] == ["6", "2", "3", "9", "7", "8", "7", "4"]


EVERY_KIND: list[Record] = [
    *make_chats("a", 1),
    Chat("a", (Message("system", "s"), Message("user", "\u2028😀"), Message("assistant", "\x00"))),
    Pair("b", (Message("user", "q"),), "c", "r", "truth"),
    Choice("c", "t", ("x", "y"), 1, "physics"),
    Passage("d", " = Title = \r\n"),
]


@pytest.mark.parametrize("record", EVERY_KIND)
def test_a_record_is_the_same_after_a_round_trip(record: Record) -> None:
    parsed = from_json(to_json(record))
    assert parsed == record
    assert (parsed.id, parsed.group) == (record.id, record.group)


def test_a_mixture_is_the_same_after_a_round_trip(tmp_path: Path) -> None:
    rows = make_chats("a", 20, first=1) + EVERY_KIND[:2]
    mixture = make_mixture([make_source("a", rows)], holdout=0.3)
    mixture.write(tmp_path)
    assert load_mixture(tmp_path) == mixture.split
    names = {
        *RECORD_FILES,
        "manifest.json",
        "lock.jsonl",
        "contaminated.jsonl",
        "near_duplicates.jsonl",
        "left_out.jsonl",
    }
    assert {p.name for p in tmp_path.iterdir()} == names
    again = tmp_path / "again"
    again.mkdir()
    make_mixture([make_source("a", rows)], holdout=0.3).write(again)
    for name in names:
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_too_many_unreadable_rows_are_refused_with_the_first_location() -> None:
    def unreadable(bad: int, rows: int) -> list[OpenedSource]:
        return [make_source("a", [*[UNREADABLE] * bad, *make_chats("a", rows - bad)])]

    make_mixture(unreadable(5, 100))
    with pytest.raises(ZephyrError) as caught:
        make_mixture(unreadable(6, 100))
    where, *rest = str(caught.value).splitlines()[1:]
    assert where.startswith("  where:   a.jsonl:")
    assert rest == [
        "  found:   6 of 100 rows: 6 x it is bad",
        "  allowed: a share of 0.05 (`unreadable`)",
        "  to do:   mend the rows, map their names with `columns`, or raise `unreadable`",
    ]
    make_mixture(unreadable(6, 100), unreadable=0.06)
    with pytest.raises(ZephyrError, match="too many rows of source 'a' can't be read"):
        make_mixture(unreadable(3, 3), unreadable=0.999)


def test_an_empty_mixture_is_refused_with_what_became_of_its_rows() -> None:
    with pytest.raises(ZephyrError) as caught:
        make_mixture([make_source("a", [SKIPPED] * 3), make_source("b", [])])
    assert str(caught.value).splitlines() == [
        "a mixture is empty",
        "  found:   a: 3 rows, 3 x nobody wants it; b: 0 rows",
        "  to do:   give it a source with rows that are wanted",
    ]


def test_a_mixture_that_holds_out_everything_is_refused() -> None:
    """One question asked six times is on one side."""
    with pytest.raises(ZephyrError) as caught:
        make_mixture([make_source("a", make_chats("a", 6, num_questions=1))], holdout=0.05)
    assert str(caught.value).splitlines() == [
        "a mixture holds out all that it has",
        "  found:   6 records of 1 questions",
        "  to do:   give it more rows, or a smaller `holdout`: a question is never on both sides",
    ]
    assert (
        len(make_mixture([make_source("a", make_chats("a", 6, num_questions=1))]).split.train) == 6
    )


def test_a_source_that_stands_twice_is_refused() -> None:
    with pytest.raises(ZephyrError, match=r"stands twice in a mixture\n  found:   a\n"):
        make_mixture([make_source("a", make_chats("a", 2)), make_source("a", make_chats("a", 2))])


def test_few_records_are_warned_of() -> None:
    chats = [Chat("s", (Message("user", f"{n}"), Message("assistant", "a"))) for n in range(40)]
    assert size_notes(RecordSplit(chats[:20], chats[20:]), "sft") == []
    assert size_notes(RecordSplit(chats[:20], []), "sft") == []
    few, held_out = size_notes(RecordSplit(chats[:19], chats[:3]), "sft")
    assert few.startswith("only 19 records to train on")
    assert held_out.startswith("only 3 records are held out")
    assert held_out.endswith("(data.sft.holdout)")
