"""Mixtures: min(cap, size) of each source whatever stands beside it, and an account of the rest."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr import recipe
from zephyr.data import mixture
from zephyr.data.mixture import Drawn, draw, load
from zephyr.data.sources import Reading
from zephyr.errors import ZephyrError
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record, from_json, to_json


def chats(source: str, count: int, *, asked: int = 10**9, first: int = 0) -> list[Record]:
    """Records that differ, about `asked` questions."""
    return [
        Chat(source, (Message("user", f"{n % asked}?"), Message("assistant", f"{n}.")))
        for n in range(first, first + count)
    ]


def reading(label: str, records: list[Record], **counts: Any) -> Reading:
    return Reading(label, rows=len(records), records=records, **counts)


def spec(labels: list[str], caps: dict[str, int] | None = None, **settings: Any) -> recipe.Mixture:
    caps = caps or {}
    listed = tuple(recipe.Source(name=name, cap=caps.get(name)) for name in labels)
    return recipe.Mixture(kind="chat", sources=listed, **settings)


def drawn(readings: list[Reading], seed: int = 1, **settings: Any) -> Drawn:
    return draw(spec([r.label for r in readings], **settings), readings, seed=seed)


def ids(got: Drawn, source: str) -> set[str]:
    return {r.id for side in got.split for r in side if r.source == source}


SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1)


@given(SIZES, st.integers(1, 40), st.integers(1, 40))
def test_each_source_gives_the_lesser_of_its_cap_and_its_size(
    sizes: dict[str, int], cap: int, own: int
) -> None:
    """A source's own cap stands before the mixture's."""
    first, *_ = sizes
    got = drawn(
        [reading(n, chats(n, size)) for n, size in sizes.items()], cap=cap, caps={first: own}
    )
    expected = {n: min(own if n == first else cap, size) for n, size in sizes.items()}
    assert Counter(r.source for r in got.split.train) == expected
    assert len({r.id for r in got.split.train if r.source == first}) == expected[first]


@given(st.permutations("abcd"), st.integers(0, 3), st.integers(1, 12), st.integers(0, 5))
def test_a_draw_does_not_depend_on_the_sources_beside_it(
    order: list[str], beside: int, cap: int, seed: int
) -> None:
    """Nor on the order of its own rows."""
    readings = {name: reading(name, chats(name, 12)) for name in order}
    alone = drawn([reading("a", chats("a", 12)[::-1])], seed, cap=cap)
    chosen = [name for name in order if name == "a" or name in "bcd"[:beside]]
    assert ids(drawn([readings[n] for n in chosen], seed, cap=cap), "a") == ids(alone, "a")


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5))
def test_a_larger_cap_takes_all_that_a_smaller_takes(small: int, more: int, seed: int) -> None:
    readings = [reading("a", chats("a", 40))]
    few, many = (ids(drawn(readings, seed, cap=c), "a") for c in (small, small + more))
    assert few <= many
    assert len(many) - len(few) == min(40, small + more) - min(40, small)


@given(SIZES, st.floats(0, 0.6), st.integers(2, 9), st.integers(0, 9))
def test_no_question_stands_on_both_sides(
    sizes: dict[str, int], share: float, asked: int, seed: int
) -> None:
    """The same questions are in all sources; as many groups are held out as the share needs."""
    readings = [reading(n, chats(n, size, asked=asked)) for n, size in sizes.items()]
    try:
        train, holdout = drawn(readings, seed, holdout=share).split
    except ZephyrError as error:
        assert error.problem == "a mixture holds out all that it has"  # noqa: PT017  # or all's well
        return
    total = sum(sizes.values())
    assert len(train) + len(holdout) == total
    assert not {r.group for r in train} & {r.group for r in holdout}
    groups = Counter(r.group for r in holdout)
    assert len(holdout) >= share * total
    assert len(holdout) - max(groups.values(), default=0) < max(share * total, 1)


@given(st.integers(0, 9), st.integers(1, 60))
def test_questions_are_held_out_in_an_order_that_no_other_source_changes(
    seed: int, beside: int
) -> None:
    a, b = reading("a", chats("a", 50)), reading("b", chats("b", beside, first=50))
    held = [
        {r.group for r in drawn(readings, seed, holdout=0.2).split.holdout if r.source == "a"}
        for readings in ([a], [a, b])
    ]
    assert len(held[0]) == 10
    assert held[0] <= held[1] or held[1] <= held[0]


def test_duplicates_are_counted_and_taken_once() -> None:
    """Within a source; between sources each keeps its own, and the same side of the hold-out."""
    a = reading("a", chats("a", 5) + chats("a", 3))
    b = reading("b", chats("b", 5))
    got = drawn([a, b], holdout=0.3)
    account = got.manifest["sources"]
    assert (account["a"]["duplicates"], account["a"]["kept"]) == (3, 5)
    assert (account["b"]["duplicates"], account["b"]["kept"]) == (0, 5)
    assert len(got.split.holdout) == 4
    assert Counter(r.id for r in got.split.holdout) == {r.id: 2 for r in got.split.holdout}


@given(
    st.integers(0, 4), st.integers(0, 9), st.integers(0, 9), st.integers(1, 60), st.integers(1, 60)
)
def test_the_account_adds_up(unreadable: int, out: int, twice: int, size: int, cap: int) -> None:
    """Where a row gives one record: seen = unreadable + left out + duplicates + capped + kept."""
    records = chats("a", size) + chats("a", min(twice, size))
    got = Reading(
        "a",
        rows=len(records) + unreadable + out,
        records=records,
        unreadable=Counter({"bad": unreadable} if unreadable else {}),
        left_out=Counter({"wrong": out // 2, "same": out - out // 2}),
        first_bad={"bad": "a.jsonl:3"} if unreadable else {},
    )
    manifest = drawn([got, reading("b", chats("b", 7))], cap=cap, unreadable=0.99).manifest
    for row in manifest["sources"].values():
        lost = sum(row["unreadable"].values()) + sum(row["left_out"].values())
        assert row["seen"] == lost + row["duplicates"] + row["capped"] + row["kept"]
    totals = manifest["totals"]
    assert totals["seen"] == len(records) + unreadable + out + 7
    assert (totals["unreadable"], totals["left_out"]) == (unreadable, out)
    assert totals["duplicates"] == min(twice, size)
    assert totals["kept"] == min(cap, size) + min(cap, 7)


def test_a_manifest_by_hand() -> None:
    records = [
        Chat("a", (Message("user", "Why?"), Message("assistant", "So."))),
        Chat("a", (Message("user", "Who?"), Message("assistant", "Me."))),
    ]
    got = Reading("a", 4, records, Counter({"x": 1}), Counter({"y": 1}), {"x": "a.jsonl:3"})
    assert drawn([got], seed=7, holdout=0.5, unreadable=0.25).manifest == {
        "seed": 7,
        "sources": {
            "a": {
                "seen": 4,
                "unreadable": {"x": 1},
                "left_out": {"y": 1},
                "duplicates": 0,
                "capped": 0,
                "kept": 2,
                "characters": 4 + 3 + 4 + 3,
                "held_out": 1,
            }
        },
        "totals": {
            "seen": 4,
            "duplicates": 0,
            "capped": 0,
            "kept": 2,
            "held_out": 1,
            "characters": 14,
            "unreadable": 1,
            "left_out": 1,
        },
    }


def test_the_draw_is_pinned() -> None:
    """A change of these is a change of every mixture: raise the stage's version with it."""
    got = drawn([reading("a", chats("a", 9)), reading("b", chats("b", 9))], 42, cap=4, holdout=0.25)
    said = [" ".join(r.source + r.texts[1] for r in side) for side in got.split]
    assert said == ["b4. a6. b1. a4. b7. a5.", "b8. a2."]


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
    got = drawn([reading("a", chats("a", 20) + EVERY_KIND[:2])], holdout=0.3)
    got.write(tmp_path)
    assert load(tmp_path) == got.split
    assert {p.name for p in tmp_path.iterdir()} == {
        "records.jsonl",
        "holdout.jsonl",
        "manifest.json",
    }
    again = tmp_path / "again"
    again.mkdir()
    drawn([reading("a", EVERY_KIND[:2] + chats("a", 20)[::-1])], holdout=0.3).write(again)
    for name in mixture.FILES:
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def unreadable(bad: int, rows: int) -> Reading:
    records = chats("a", rows - bad)
    reasons = Counter({"column 'answer' is missing": bad - 1, "not valid JSON": 1})
    places = {"column 'answer' is missing": "a.jsonl:7", "not valid JSON": "a.jsonl:9"}
    return Reading("a", rows, records, reasons, first_bad=places)


def test_too_many_unreadable_rows_are_refused_with_the_first_place() -> None:
    drawn([unreadable(5, 100)])
    with pytest.raises(ZephyrError) as caught:
        drawn([unreadable(6, 100)])
    assert str(caught.value).splitlines() == [
        "too many rows of source 'a' can't be read",
        "  where:   a.jsonl:7",
        "  found:   6 of 100 rows: 5 x column 'answer' is missing, 1 x not valid JSON",
        "  allowed: a share of 0.05 (`unreadable`)",
        "  to do:   mend the rows, map their names with `columns`, or raise `unreadable`",
    ]
    drawn([unreadable(6, 100)], unreadable=0.06)
    with pytest.raises(ZephyrError, match="too many rows of source 'a' can't be read"):
        drawn([unreadable(3, 3)], unreadable=0.999)


def test_an_empty_mixture_is_refused_with_what_became_of_its_rows() -> None:
    wrong = Reading("a", 3, left_out=Counter({"the answer is marked as wrong": 3}))
    with pytest.raises(ZephyrError) as caught:
        drawn([wrong, Reading("b")])
    assert str(caught.value).splitlines() == [
        "a mixture is empty",
        "  found:   a: 3 rows, 3 x the answer is marked as wrong; b: 0 rows",
        "  to do:   give it a source with rows that are wanted",
    ]


def test_a_mixture_that_holds_out_everything_is_refused() -> None:
    """One question asked six times is on one side."""
    with pytest.raises(ZephyrError) as caught:
        drawn([reading("a", chats("a", 6, asked=1))], holdout=0.05)
    assert str(caught.value).splitlines() == [
        "a mixture holds out all that it has",
        "  found:   6 records of 1 questions",
        "  to do:   give it more rows, or a smaller `holdout`: a question is never on both sides",
    ]
    assert len(drawn([reading("a", chats("a", 6, asked=1))]).split.train) == 6


def test_a_source_that_stands_twice_is_refused() -> None:
    with pytest.raises(ZephyrError, match=r"stands twice in a mixture\n  found:   a\n"):
        drawn([reading("a", chats("a", 2)), reading("a", chats("a", 2))])
