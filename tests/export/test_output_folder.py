"""The folder of an export: whole or not there, and nothing of others' lost."""

from pathlib import Path

import pytest

from zephyr.errors import ZephyrError
from zephyr.export.output_folder import MANIFEST_NAME, output_folder


def write_export(folder: Path, force: bool = False, **files: str) -> None:
    with output_folder(folder, force=force) as part:
        for name, text in files.items():
            (part / name).write_text(text)


def file_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_files_are_to_be_seen_when_all_are_there(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with output_folder(out, force=False) as part:
        assert part.parent == out.parent
        (part / "a").write_text("1")
        assert not out.exists()
    assert file_names(out) == ["a", MANIFEST_NAME]
    assert file_names(out.parent) == ["out"]
    assert out.stat().st_mode & 0o777 == (out.parent.stat().st_mode & 0o777)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with output_folder(tmp_path / "out", force=False) as part:
            (part / "a").write_text("1")
            raise ZephyrError("no")

    with pytest.raises(ZephyrError, match="no"):
        fail()
    assert file_names(tmp_path) == []


def test_an_empty_folder_is_taken_and_a_used_one_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_export(out, a="1")
    with pytest.raises(ZephyrError, match="something is there already"):
        write_export(out, a="2")
    assert (out / "a").read_text() == "1"


def test_force_replaces_the_files_of_an_export_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_export(out, a="1", b="1")
    (out / "mine").write_text("kept")
    write_export(out, force=True, a="2", c="2")
    assert file_names(out) == ["a", "c", "mine", MANIFEST_NAME]
    assert (out / "a").read_text() == "2"
    assert file_names(tmp_path) == ["out"]


def test_a_list_that_was_changed_takes_nothing_outside(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    out = tmp_path / "out"
    write_export(out, a="1")
    (out / MANIFEST_NAME).write_text('{"files": ["../other"]}')
    write_export(out, force=True, b="1")
    assert other.read_text() == "kept"


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(ZephyrError, match="a file is there already"):
        write_export(file, force=True)
    with pytest.raises(ZephyrError, match="can't be written"):
        write_export(file / "below")
    assert file_names(tmp_path) == ["file"]
