"""Atomic output folder of an export: files are staged, and moved into place when complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zephyr.errors import ZephyrError
from zephyr.runs.store import read_json, write_json

MANIFEST_NAME = "zephyr-export.json"
"""Manifest of the files of an export, so that a later export can remove stale ones."""


@contextmanager
def output_folder(folder: Path, *, force: bool) -> Iterator[Path]:
    """Context of an atomic export: yields a staging folder, whose files then move to `folder`.

    With `force` the folder need not be empty: files of an earlier export are removed, others kept.

    Raises:
        ZephyrError: the folder is not empty without `force`, or can't be written to.
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
    staging = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent)
        )
        staging.chmod(0o777 & ~_umask())  # mkdtemp's default is owner-only
        yield staging
        files = sorted(str(p.relative_to(staging)) for p in staging.rglob("*") if p.is_file())
        write_json(staging / MANIFEST_NAME, {"files": files})
        _move_files(staging, folder)
    except OSError as error:
        raise ZephyrError(
            "the export can't be written",
            where=str(folder),
            found=error,
            todo="give the path of a folder that can be written to, on a disk with enough space",
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _move_files(staging: Path, folder: Path) -> None:
    """Moves the staged files into place; a folder that is new or empty is renamed as a whole."""
    if not folder.exists() or not any(folder.iterdir()):
        staging.replace(folder)
        return
    new_files = [*read_json(staging / MANIFEST_NAME)["files"], MANIFEST_NAME]
    previous_files = (
        read_json(folder / MANIFEST_NAME)["files"] if (folder / MANIFEST_NAME).is_file() else []
    )
    for name in new_files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(folder / name)
    for name in set(previous_files) - set(new_files):
        if (old := folder / name).resolve().is_relative_to(folder.resolve()):
            old.unlink(missing_ok=True)


def _umask() -> int:
    """This process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
