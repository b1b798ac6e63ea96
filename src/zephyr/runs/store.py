"""Where runs live: folders named by the fingerprint of all that went into them.

    <store>/objects/<fingerprint>/         a finished run; never written to again
    <store>/objects/<fingerprint>.part/    a run that is being written, was killed, or failed
    <store>/<recipe>/nodes.json            which run is which node of a recipe

A run is finished by writing `DONE` with the sizes of its files, then renaming its folder. What
was killed half way keeps the suffix `.part`, so it is never taken for finished.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zephyr.errors import ZephyrError

DONE = "DONE"
FAILED = "FAILED"


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, and a crash keeps one."""
    temporary = path.with_name(path.name + ".tmp")
    raw = data.encode() if isinstance(data, str) else data
    with full_disk_explained(path), temporary.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names of what lies in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> list[Any]:
    """The values of a file with one JSON value a line; lines end in `\\n` alone."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes a file with one JSON value a line, which `read_json_lines` reads."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Turns a full disk, or one that can't be written to, into a `ZephyrError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ZephyrError(
                "the disk is full",
                where=str(path),
                todo="free some space and run the same command again: finished stages are kept",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ZephyrError(
                "this place can't be written to",
                where=str(path),
                todo="set ZEPHYR_RUNS to a folder that can be",
            ) from error
        raise


@dataclass(frozen=True)
class Run:
    """The folder of one run, finished or being written."""

    path: Path

    @property
    def finished(self) -> bool:
        return (self.path / DONE).exists() and self.path.suffix != ".part"

    @property
    def flaw(self) -> str | None:
        """Which of its files is not of the size that it had when the run was finished, if any."""
        try:
            sizes: dict[str, int] = self.read(DONE)["bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{DONE} can't be read"
        for name, size in sizes.items():
            path = self.path / name
            if not path.is_file():
                return f"{name} is missing"
            if (found := path.stat().st_size) != size:
                return f"{name} has {found:,} of {size:,} bytes"
        return None

    @property
    def artifact(self) -> Path:
        """What the run made."""
        return self.path / "artifact"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows logged while it ran; a line that is not whole, as the last may be, is none."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        rows = []
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError):
                rows.append(json.loads(line))
        return rows

    @property
    def failure(self) -> str | None:
        """Why it failed, if it did."""
        path = self.path / FAILED
        return path.read_text(encoding="utf-8") if path.exists() else None

    def read(self, name: str) -> Any:
        """The JSON value of one of its files."""
        return read_json(self.path / name)


class Store:
    """The folder that holds all runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, fingerprint: str) -> Path:
        return self.root / "objects" / fingerprint

    def find(self, fingerprint: str) -> Run:
        """The run with this fingerprint: the finished one, else the place of the unfinished."""
        finished = Run(self._path(fingerprint))
        return finished if finished.finished else Run(self._part(fingerprint))

    def _part(self, fingerprint: str) -> Path:
        return self._path(fingerprint).with_suffix(".part")

    def begin(self, fingerprint: str, spec: dict[str, Any]) -> Run:
        """The place in which to write a run; what an earlier try left there is kept."""
        run = Run(self._part(fingerprint))
        with full_disk_explained(run.path):
            shutil.rmtree(self._path(fingerprint), ignore_errors=True)
            run.artifact.mkdir(parents=True, exist_ok=True)
            (run.path / FAILED).unlink(missing_ok=True)
            write_json(run.path / "spec.json", spec)
        return run

    def finish(self, run: Run) -> Run:
        """Declares a run complete, for good."""
        inside = sorted(run.path.rglob("*"))
        for path in inside:
            sync(path)
        sizes = {str(p.relative_to(run.path)): p.stat().st_size for p in inside if p.is_file()}
        write_json(run.path / DONE, {"bytes": sizes})
        finished = Run(run.path.with_suffix(""))
        run.path.replace(finished.path)
        sync(finished.path.parent)
        return finished

    def fail(self, run: Run, reason: str) -> None:
        """Keeps the reason for which a run could not be made beside what it left."""
        write_atomically(run.path / FAILED, reason)

    def recipe_folder(self, recipe: str) -> Path:
        return self.root / recipe

    def nodes(self, recipe: str) -> dict[str, Any] | None:
        """What `nodes.json` of a recipe says, or None if the recipe has never been run here.

        Raises:
            ZephyrError: the file is no such thing.
        """
        path = self.recipe_folder(recipe) / "nodes.json"
        if not path.exists():
            return None
        try:
            known: dict[str, Any] = read_json(path)
            if not {"recipe", "spec", "nodes"} <= known.keys():
                raise ValueError(path)
        except (ValueError, AttributeError):
            raise ZephyrError(
                "the list of a recipe's runs can't be read",
                where=str(path),
                todo=f"remove it, then zephyr run {recipe}: finished runs are kept",
            ) from None
        return known

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps every other process from running stages in this store.

        Raises:
            ZephyrError: another process holds the lock.
        """
        from filelock import FileLock, Timeout

        with full_disk_explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            holder = self.root / "lock.json"
            lock = FileLock(self.root / ".lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                pid = read_json(holder)["pid"] if holder.exists() else "unknown"
                raise ZephyrError(
                    "another process is running in this store",
                    where=str(self.root),
                    found=f"process {pid}",
                    todo="wait until it ends, stop it, or set ZEPHYR_RUNS to another folder",
                ) from None
        try:
            write_json(holder, {"pid": os.getpid()})
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()
