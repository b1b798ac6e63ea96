"""Lock files: what two draws have in common, and what not."""

from pathlib import Path

import pytest

from tests.data.opened import chats, drawn, opened
from zephyr.data.lock import compare_locks, count_by_source, read_lock
from zephyr.errors import ZephyrError


def row(source: str, number: int, mark: str = "x", side: str = "train") -> dict[str, str]:
    return {"source": source, "row": str(number), "id": mark, "side": side}


def test_every_kind_of_difference_by_hand() -> None:
    first = [row("a", 1), row("a", 2), row("a", 3), row("b", 1), row("b", 2)]
    second = [row("a", 1), row("a", 2, "y"), row("a", 3, side="holdout"), row("b", 2), row("c", 9)]
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
    rows = [row("a", 1), row("a", 2)]
    assert compare_locks(rows, rows).is_empty
    turned = compare_locks(rows, rows[::-1])
    assert turned.is_reordered
    assert not turned.is_empty


def test_a_draw_equals_itself_and_differs_by_its_seed(tmp_path: Path) -> None:
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        (tmp_path / name).mkdir()
        drawn([opened("s", chats("s", 50))], seed, cap=10, holdout=0.2).write(tmp_path / name)
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
