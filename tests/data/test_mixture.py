"""Mixtures: min(cap, size) of each source whatever stands beside it, and an account of the rest."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.opened import BAD, UNWANTED, chats, drawn, ids, opened
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.duplicates import find_near_duplicates
from zephyr.data.mixture import RECORD_FILES, load_mixture
from zephyr.data.sources import OpenedSource
from zephyr.errors import ZephyrError
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record, from_json, to_json

EVERYTHING = "a mixture holds out all that it has"
SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1)


def source(name: str, size: int) -> OpenedSource:
    """A source that has no record in common with one of another letter."""
    return opened(name, chats(name, size, first=1_000 * ord(name)))


@given(SIZES, st.integers(1, 40), st.integers(1, 40))
def test_each_source_gives_the_lesser_of_its_cap_and_its_size(
    sizes: dict[str, int], cap: int, own: int
) -> None:
    """A source's own cap stands before the mixture's."""
    first, *_ = sizes
    got = drawn([source(n, size) for n, size in sizes.items()], cap=cap, caps={first: own})
    expected = {n: min(own if n == first else cap, size) for n, size in sizes.items()}
    assert Counter(r.source for r in got.split.train) == expected
    assert len({r.id for r in got.split.train if r.source == first}) == expected[first]


@given(st.permutations("abcd"), st.integers(0, 3), st.integers(1, 12), st.integers(0, 5))
def test_a_draw_does_not_depend_on_the_sources_beside_it(
    order: list[str], beside: int, cap: int, seed: int
) -> None:
    alone = drawn([source("a", 12)], seed, cap=cap)
    chosen = [name for name in order if name == "a" or name in "bcd"[:beside]]
    assert ids(drawn([source(n, 12) for n in chosen], seed, cap=cap), "a") == ids(alone, "a")


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_a_larger_cap_takes_all_that_a_smaller_takes(
    small: int, more: int, seed: int, refused: bool
) -> None:
    """Also where rows are refused, and the next take their places."""
    rows: list[Record | str] = [*chats("a", 40)]
    if refused:
        rows[::3] = [BAD] * 14
        rows[1::5] = [rows[2]] * 8
    sources = [opened("a", rows)]
    few, many = (
        ids(drawn(sources, seed, cap=c, unreadable=0.9), "a") for c in (small, small + more)
    )
    assert few <= many
    there = len({r.id for r in rows if not isinstance(r, str)})
    assert (len(few), len(many)) == (min(there, small), min(there, small + more))


@given(SIZES, st.floats(0, 0.6), st.integers(2, 9), st.integers(0, 9), st.booleans())
def test_no_question_stands_on_both_sides(
    sizes: dict[str, int], share: float, asked: int, seed: int, remove: bool
) -> None:
    """The same questions are in all sources; no more is held out than the share needs."""
    sources = [opened(n, chats(n, size, asked=asked)) for n, size in sizes.items()]
    clean = "remove" if remove else "report"
    try:
        train, holdout = drawn(sources, seed, holdout=share, clean=clean).split
    except ZephyrError as error:
        assert error.problem == EVERYTHING  # noqa: PT017  # or all's well
        return
    total = len(train) + len(holdout)
    assert total == (max(sizes.values()) if remove else sum(sizes.values()))
    assert not {r.group for r in train} & {r.group for r in holdout}
    groups = Counter(r.group for r in holdout)
    assert bool(holdout) == (share > 0)
    assert len(holdout) < share * total + 1 or len(groups) == 1


@pytest.mark.parametrize(
    ("share", "records", "held"),
    [(0.05, 102, 6), (0.05, 100, 5), (0.05, 101, 6), (0.2, 5, 1), (0.0, 9, 0)],
)
def test_the_hold_out_is_rounded_up(share: float, records: int, held: int) -> None:
    """0.05 x 102,030 is 5,102 in the seed; 0.05 x 100 is 5, whatever floating point says."""
    assert len(drawn([opened("a", chats("a", records))], holdout=share).split.holdout) == held


@given(st.integers(0, 9), st.integers(1, 60))
def test_questions_are_held_out_in_an_order_that_no_other_source_changes(
    seed: int, beside: int
) -> None:
    held = [
        {r.group for r in drawn(sources, seed, holdout=0.2).split.holdout if r.source == "a"}
        for sources in ([source("a", 50)], [source("a", 50), source("b", beside)])
    ]
    assert len(held[0]) == 10
    assert held[0] <= held[1] or held[1] <= held[0]


def test_duplicates_are_counted_and_taken_once() -> None:
    """Within a source the next row takes the place; the later of two sources loses."""
    sources = [opened("a", chats("a", 5) + chats("a", 3)), opened("b", chats("b", 7))]
    got = drawn(sources, cap=5)
    account = got.manifest["sources"]
    assert (account["a"]["duplicates"], account["a"]["kept"]) == (8 - 5 - account["a"]["capped"], 5)
    assert account["b"]["near_duplicates"] == len(
        ids(drawn(sources[1:], cap=5), "b") & ids(got, "a")
    )
    assert account["b"]["kept"] == 5 - account["b"]["near_duplicates"]
    for row in got.near_duplicates:
        assert (row["source"], row["repeats"]["source"], row["id"]) == (
            "b",
            "a",
            row["repeats"]["id"],
        )


def test_what_is_only_reported_stays() -> None:
    exams = EvalQuestionIndex([("quiz", chats("q", 1)[0])], 8)
    sources = [opened("a", chats("a", 5) + chats("a", 3)), opened("b", chats("b", 7))]
    got = drawn(sources, clean="report", exams=exams)
    account = got.manifest["sources"]
    assert (account["a"]["duplicates"], account["a"]["kept"]) == (3, 8)
    assert (account["b"]["duplicates"], account["b"]["kept"]) == (0, 7)
    assert (account["a"]["near_duplicates"], account["b"]["near_duplicates"]) == (0, 5)
    assert (account["a"]["contaminated"], account["b"]["contaminated"]) == (2, 1)
    assert [row["task"] for row in got.contaminated] == ["quiz"] * 3
    assert drawn(sources, exams=exams).manifest["totals"]["contaminated"] == 2


def test_a_question_is_the_same_whatever_its_blanks_and_its_case() -> None:
    rows = [
        Chat("a", (Message("user", asked), Message("assistant", f"{n} {m}")))
        for n in range(40)
        for m, asked in enumerate((f"What is  {n}?", f"what is {n}? ", f"WHAT IS {n}?"))
    ]
    got = drawn([opened("a", rows)], holdout=0.3)
    held = {r.texts[0].split()[-1] for r in got.split.holdout}
    assert len(got.split.holdout) == 36
    assert not held & {r.texts[0].split()[-1] for r in got.split.train}


@pytest.mark.parametrize("clean", ["remove", "report"])
def test_no_near_duplicate_of_the_hold_out_is_trained_on(clean: str) -> None:
    """Chains too: each passage is like its neighbours, and not like those beyond."""
    words = [f"{a}{b}{c}" for a in "bcdfghklmn" for b in "aeiou" for c in "prstvwxz"]
    rows = [Passage("a", " ".join(words[at : at + 90])) for at in range(0, 300, 8)]
    try:
        train, holdout = drawn([opened("a", rows, "passage")], clean=clean, holdout=0.2).split
    except ZephyrError as error:
        assert (clean, error.problem) == ("report", EVERYTHING)  # noqa: PT017  # or all's well
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
    got = drawn([opened("a", both)], clean="report", holdout=0.3)
    assert got.manifest["totals"]["near_duplicates"] == 60
    held = Counter(r.texts[0].split()[0] for r in got.split.holdout)
    assert len(held) == 18
    assert set(held.values()) == {2}


@given(
    st.integers(0, 4), st.integers(0, 9), st.integers(0, 9), st.integers(1, 60), st.integers(1, 60)
)
def test_the_account_adds_up(unreadable: int, out: int, twice: int, size: int, cap: int) -> None:
    rows = [
        *chats("a", size),
        *chats("a", min(twice, size)),
        *[BAD] * unreadable,
        *[UNWANTED] * out,
    ]
    sources = [opened("a", rows), source("b", 7)]
    manifest = drawn(sources, cap=cap, unreadable=0.99).manifest
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
    got = drawn([opened("a", [*records, BAD, UNWANTED])], seed=7, holdout=0.5, unreadable=0.25)
    assert {key: value for key, value in got.manifest.items() if key != "content"} == {
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
    }


def test_rows_of_several_records_are_drawn_record_by_record() -> None:
    """A cap of 10 among 40 pairs of 4 questions takes of all questions; rows are told by part."""
    rows = [[*chats("a", 10, first=10 * n, asked=1)] for n in range(4)]
    got = drawn([opened("a", rows)], cap=10)
    questions = {row["row"].split(".")[0] for row in got.lock_rows}
    assert (len(got.lock_rows), questions) == (10, {"1", "2", "3", "4"})
    assert all(int(part or 0) < 10 for row in got.lock_rows for part in row["row"].split(".")[1:])
    assert got.manifest["totals"]["seen"] == 40
    assert got.manifest["totals"]["capped"] == 30


def test_the_draw_is_pinned() -> None:
    """A change of these is a change of every mixture: raise the stage's version with it."""
    got = drawn(
        [opened("a", chats("a", 9)), opened("b", chats("b", 9, first=9))], 42, cap=4, holdout=0.25
    )
    said = [" ".join(r.source + r.texts[1] for r in side) for side in got.split]
    assert said == ["a1. a2. b17. a6. b16. a3.", "b14. b15."]
    assert [row["row"] for row in got.lock_rows] == ["6", "2", "3", "9", "7", "8", "7", "4"]


EVERY_KIND: list[Record] = [
    *chats("a", 1),
    Chat("a", (Message("system", "s"), Message("user", "\u2028😀"), Message("assistant", "\x00"))),
    Pair("b", (Message("user", "q"),), "c", "r", "truth"),
    Choice("c", "t", ("x", "y"), 1, "physics"),
    Passage("d", " = Title = \r\n"),
]


@pytest.mark.parametrize("record", EVERY_KIND)
def test_a_record_is_the_same_after_a_round_trip(record: Record) -> None:
    back = from_json(to_json(record))
    assert back == record
    assert (back.id, back.group) == (record.id, record.group)


def test_a_mixture_is_the_same_after_a_round_trip(tmp_path: Path) -> None:
    rows = chats("a", 20, first=1) + EVERY_KIND[:2]
    got = drawn([opened("a", rows)], holdout=0.3)
    got.write(tmp_path)
    assert load_mixture(tmp_path) == got.split
    names = {
        *RECORD_FILES,
        "manifest.json",
        "lock.jsonl",
        "contaminated.jsonl",
        "near_duplicates.jsonl",
    }
    assert {p.name for p in tmp_path.iterdir()} == names
    again = tmp_path / "again"
    again.mkdir()
    drawn([opened("a", rows)], holdout=0.3).write(again)
    for name in names:
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_too_many_unreadable_rows_are_refused_with_the_first_place() -> None:
    def unreadable(bad: int, rows: int) -> list[OpenedSource]:
        return [opened("a", [*[BAD] * bad, *chats("a", rows - bad)])]

    drawn(unreadable(5, 100))
    with pytest.raises(ZephyrError) as caught:
        drawn(unreadable(6, 100))
    where, *rest = str(caught.value).splitlines()[1:]
    assert where.startswith("  where:   a.jsonl:")
    assert rest == [
        "  found:   6 of 100 rows: 6 x it is bad",
        "  allowed: a share of 0.05 (`unreadable`)",
        "  to do:   mend the rows, map their names with `columns`, or raise `unreadable`",
    ]
    drawn(unreadable(6, 100), unreadable=0.06)
    with pytest.raises(ZephyrError, match="too many rows of source 'a' can't be read"):
        drawn(unreadable(3, 3), unreadable=0.999)


def test_an_empty_mixture_is_refused_with_what_became_of_its_rows() -> None:
    with pytest.raises(ZephyrError) as caught:
        drawn([opened("a", [UNWANTED] * 3), opened("b", [])])
    assert str(caught.value).splitlines() == [
        "a mixture is empty",
        "  found:   a: 3 rows, 3 x nobody wants it; b: 0 rows",
        "  to do:   give it a source with rows that are wanted",
    ]


def test_a_mixture_that_holds_out_everything_is_refused() -> None:
    """One question asked six times is on one side."""
    with pytest.raises(ZephyrError) as caught:
        drawn([opened("a", chats("a", 6, asked=1))], holdout=0.05)
    assert str(caught.value).splitlines() == [
        "a mixture holds out all that it has",
        "  found:   6 records of 1 questions",
        "  to do:   give it more rows, or a smaller `holdout`: a question is never on both sides",
    ]
    assert len(drawn([opened("a", chats("a", 6, asked=1))]).split.train) == 6


def test_a_source_that_stands_twice_is_refused() -> None:
    with pytest.raises(ZephyrError, match=r"stands twice in a mixture\n  found:   a\n"):
        drawn([opened("a", chats("a", 2)), opened("a", chats("a", 2))])
