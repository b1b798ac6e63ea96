"""Hashes of large files are remembered, and never beyond a change."""

import os
from pathlib import Path

import pytest

from zephyr.data import cache
from zephyr.data.cache import cache_root, content_sha256

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "cache"))


def write_file(path: Path, data: bytes, age: float = 60) -> Path:
    path.write_bytes(data)
    mtime = path.stat().st_mtime - age
    os.utime(path, (mtime, mtime))
    return path


def test_a_hash_is_of_the_bytes(tmp_path: Path) -> None:
    """SHA-256 of "abc", as FIPS 180-2 gives it."""
    assert content_sha256(write_file(tmp_path / "r.txt", b"abc")) == SHA256_OF_ABC
    assert not cache_root().exists()


@pytest.fixture
def hashed_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed; all count as large, and as left alone."""
    paths: list[Path] = []
    original_sha256 = cache._sha256

    def spy(path: Path) -> str:
        paths.append(path)
        return original_sha256(path)

    monkeypatch.setattr(cache, "_sha256", spy)
    monkeypatch.setattr(cache, "LARGE_FILE_BYTES", 0)
    monkeypatch.setattr(cache, "CLOCK_GRANULARITY", -1)
    return paths


def test_a_large_file_is_hashed_once(tmp_path: Path, hashed_paths: list[Path]) -> None:
    path = write_file(tmp_path / "r.txt", b"abc")
    assert [content_sha256(path) for _ in range(3)] == [SHA256_OF_ABC] * 3
    assert hashed_paths == [path]


def test_a_changed_file_is_hashed_again(tmp_path: Path, hashed_paths: list[Path]) -> None:
    """Also where its size and its time of change are what they were."""
    path = write_file(tmp_path / "r.txt", b"abc")
    content_sha256(path)
    before = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_sha256(path) != SHA256_OF_ABC
    (tmp_path / "other").write_bytes(b"abc")
    (tmp_path / "other").replace(path)
    assert content_sha256(path) == SHA256_OF_ABC
    assert len(hashed_paths) == 3


def test_a_file_that_has_just_been_written_is_not_remembered(
    tmp_path: Path, hashed_paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CLOCK_GRANULARITY", 5.0)
    path = write_file(tmp_path / "r.txt", b"abc", age=0)
    content_sha256(path)
    content_sha256(path)
    assert len(hashed_paths) == 2


def test_a_cache_that_cannot_be_written_is_no_hindrance(
    tmp_path: Path, hashed_paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "file"))
    assert content_sha256(write_file(tmp_path / "r.txt", b"abc")) == SHA256_OF_ABC


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("ZEPHYR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "zephyr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "zephyr"
