"""The folder of an export: new files are complete before the first of them is to be seen there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json, write_json

LIST = "zephyr-export.json"
"""Names the files of an export, so that a later one takes away what it does not replace."""


@contextmanager
def target(folder: Path, *, force: bool) -> Iterator[Path]:
    """An empty folder beside `folder`, whose files come to stand in it if the block ends well.

    With `force` the folder may hold something: files of an earlier export go, all others stay.

    Raises:
        ZephyrError: the folder holds something and `force` is not given, or can't be written to.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise ZephyrError(
            "a file is there already", where=str(folder), todo="give the path of a folder"
        )
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ZephyrError(
            "something is there already",
            where=str(folder),
            todo="give the path of a new folder, or --force: files of the same names are replaced",
        )
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        part.chmod(0o777 & ~_umask())  # mkdtemp's is for its owner alone
        yield part
        files = sorted(str(p.relative_to(part)) for p in part.rglob("*") if p.is_file())
        write_json(part / LIST, {"files": files})
        _move(part, folder)
    except OSError as error:
        raise ZephyrError(
            "the export can't be written",
            where=str(folder),
            found=error,
            todo="give the path of a folder that can be written to, on a disk with enough space",
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _move(part: Path, folder: Path) -> None:
    """Puts the files of `part` in place; a folder that is new or empty is renamed as a whole."""
    if not folder.exists() or not any(folder.iterdir()):
        part.replace(folder)
        return
    made = [*read_json(part / LIST)["files"], LIST]
    before = read_json(folder / LIST)["files"] if (folder / LIST).is_file() else []
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).replace(folder / name)
    for name in set(before) - set(made):
        if (old := folder / name).resolve().is_relative_to(folder.resolve()):
            old.unlink(missing_ok=True)


def _umask() -> int:
    """What this process takes away from the permissions of new files; it can only be set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
