"""The store: finished or not, whole files, one process at a time, a full disk."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from zephyr.errors import ZephyrError
from zephyr.runs import store as store_module
from zephyr.runs.store import Store, write_atomically, write_json


def test_a_run_is_there_only_when_it_is_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.begin("abc", {"kind": "tune"})
    (run.artifact / "weights").write_bytes(b"12345")
    assert not store.find("abc").is_finished
    finished = store.finish(run)
    assert store.find("abc").is_finished
    assert finished.read("DONE")["bytes"]["artifact/weights"] == 5
    assert finished.read("spec.json") == {"kind": "tune"}


def test_a_half_written_run_is_taken_up_again_and_never_for_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.begin("abc", {})
    (run.artifact / "half").write_text("x")
    write_json(run.path / "DONE", {})  # killed after DONE, before the folder had its name
    assert not store.find("abc").is_finished
    assert (store.begin("abc", {}).artifact / "half").exists()


def test_a_failure_is_kept_until_the_next_try(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail(store.begin("abc", {}), "no memory")
    assert store.find("abc").failure == "no memory"
    store.begin("abc", {})
    assert store.find("abc").failure is None


def test_a_second_process_learns_who_holds_the_store(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from zephyr.errors import ZephyrError
from zephyr.runs.store import Store
try:
    with Store(Path({str(tmp_path)!r})).lock():
        print("entered")
except ZephyrError as error:
    print(error)
"""
    with Store(tmp_path).lock():
        inside = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    after = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "another process is running in this store" in inside.stdout
    assert f"process {os.getpid()}" in inside.stdout
    assert after.stdout == "entered\n"


def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.json"
    write_atomically(path, "old")

    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(ZephyrError, match=r"the disk is full(.|\n)*free some space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_lines_end_in_newline_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x\u2028y"}\n{"a": "z"}\n', encoding="utf-8")
    rows: list[Any] = store_module.read_json_lines(path)
    assert [r["a"] for r in rows] == ["x\u2028y", "z"]
