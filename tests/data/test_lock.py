"""Lock files: what two draws have in common, and what not."""

from pathlib import Path

import pytest

from tests.data.in_memory_sources import make_chats, make_mixture, make_source
from zephyr.data.lock import compare_locks, count_by_source, read_lock
from zephyr.errors import ZephyrError


def lock_row(source: str, number: int, record_id: str = "x", side: str = "train") -> dict[str, str]:
    return {"source": source, "row": str(number), "id": record_id, "side": side}


def test_every_kind_of_difference_by_hand() -> None:
    first = [
        lock_row("a", 1),
        lock_row("a", 2),
        lock_row("a", 3),
        lock_row("b", 1),
        lock_row("b", 2),
    ]
    second = [
        lock_row("a", 1),
        lock_row("a", 2, "y"),
        lock_row("a", 3, side="holdout"),
        lock_row("b", 2),
        lock_row("c", 9),
    ]
    found = compare_locks(first, second)
    assert found.unchanged == 2
    assert found.changed_content == [("a", "2")]
    assert found.changed_side == [("a", "3")]
    assert found.only_first == [("b", "1")]
    assert found.only_second == [("c", "9")]
    assert not found.is_reordered
    assert not found.is_empty
    assert count_by_source(found.only_first + found.changed_content) == {"b": 1, "a": 1}


def test_order_alone_is_a_difference_too() -> None:
    rows = [lock_row("a", 1), lock_row("a", 2)]
    assert compare_locks(rows, rows).is_empty
    reordered = compare_locks(rows, rows[::-1])
    assert reordered.is_reordered
    assert not reordered.is_empty


def test_a_draw_equals_itself_and_differs_by_its_seed(tmp_path: Path) -> None:
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        (tmp_path / name).mkdir()
        make_mixture([make_source("s", make_chats("s", 50))], seed, cap=10, holdout=0.2).write(
            tmp_path / name
        )
    first, again, other = (read_lock(tmp_path / name) for name in "abc")
    assert compare_locks(first, again).is_empty
    assert compare_locks(first, read_lock(tmp_path / "b" / "lock.jsonl")).is_empty
    found = compare_locks(first, other)
    assert found.unchanged + len(found.changed_side) + len(found.only_first) == 10
    assert len(found.only_first) == len(found.only_second) > 0


def test_what_is_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"source": "a"}\n')
    (tmp_path / "broken.jsonl").write_text("{\n")
    for name, problem in (
        ("nothing", "there is no lock file"),
        ("other.jsonl", "this is no lock file"),
        ("broken.jsonl", "this is no lock file"),
    ):
        with pytest.raises(ZephyrError, match=problem):
            read_lock(tmp_path / name)
