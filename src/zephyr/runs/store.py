"""The artifact store: run folders named by fingerprint, written atomically, with a lock.

    <store>/objects/<fingerprint>/         a finished run; never written to again
    <store>/objects/<fingerprint>.part/    an unfinished run: being written, killed, or failed
    <store>/<recipe>/nodes.json            which run is which node of a recipe

A fingerprint is a hash of all that a run depends on. A run is finished by writing `DONE` with the
sizes of its files, then renaming its folder. A killed one keeps the suffix `.part`, so it is never
taken for finished.
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
    """Writes a file atomically: a reader or a crash sees the old content or the new."""
    temporary_path = path.with_name(path.name + ".tmp")
    content = data.encode() if isinstance(data, str) else data
    with explain_disk_errors(path), temporary_path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary_path.replace(path)
    fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Fsyncs a file, or a folder's entries, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> list[Any]:
    """Reads a JSON Lines file (JSONL); lines end in `\n` alone. No file: no values."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes a JSON Lines file (JSONL) atomically, which `read_json_lines` reads."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Context manager that turns a full or read-only disk into a helpful `ZephyrError`."""
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
    """A run: its folder in the store, finished or being written."""

    path: Path

    @property
    def is_finished(self) -> bool:
        return (self.path / DONE).exists() and self.path.suffix != ".part"

    @property
    def integrity_error(self) -> str | None:
        """Integrity error: which file is missing or not of its recorded size, if any."""
        try:
            sizes: dict[str, int] = self.read(DONE)["bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{DONE} can't be read"
        for name, size in sizes.items():
            path = self.path / name
            if not path.is_file():
                return f"{name} is missing"
            if (actual_size := path.stat().st_size) != size:
                return f"{name} has {actual_size:,} of {size:,} bytes"
        return None

    @property
    def artifact(self) -> Path:
        """The artifact folder: the output of the run."""
        return self.path / "artifact"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`; a broken line, as the last may be, is skipped."""
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
        """The error message of a failed run; None otherwise."""
        path = self.path / FAILED
        return path.read_text(encoding="utf-8") if path.exists() else None

    def read(self, name: str) -> Any:
        """Reads one of its JSON files."""
        return read_json(self.path / name)


class Store:
    """The artifact store: the folder of all runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _finished_path(self, fingerprint: str) -> Path:
        return self.root / "objects" / fingerprint

    def find(self, fingerprint: str) -> Run:
        """Finds the run with a fingerprint: the finished one, else the unfinished one's path."""
        finished = Run(self._finished_path(fingerprint))
        return finished if finished.is_finished else Run(self._unfinished_path(fingerprint))

    def _unfinished_path(self, fingerprint: str) -> Path:
        return self._finished_path(fingerprint).with_suffix(".part")

    def begin(self, fingerprint: str, spec: dict[str, Any]) -> Run:
        """Begins (or resumes) a run: makes its unfinished folder, where earlier files are kept."""
        run = Run(self._unfinished_path(fingerprint))
        with explain_disk_errors(run.path):
            shutil.rmtree(self._finished_path(fingerprint), ignore_errors=True)
            run.artifact.mkdir(parents=True, exist_ok=True)
            (run.path / FAILED).unlink(missing_ok=True)
            write_json(run.path / "spec.json", spec)
        return run

    def finish(self, run: Run) -> Run:
        """Marks a run finished: writes `DONE`, fsyncs, renames its folder."""
        contents = sorted(run.path.rglob("*"))
        for path in contents:
            fsync_path(path)
        sizes = {str(p.relative_to(run.path)): p.stat().st_size for p in contents if p.is_file()}
        write_json(run.path / DONE, {"bytes": sizes})
        finished = Run(run.path.with_suffix(""))
        run.path.replace(finished.path)
        fsync_path(finished.path.parent)
        return finished

    def fail(self, run: Run, reason: str) -> None:
        """Marks a run failed: writes the reason into its folder."""
        write_atomically(run.path / FAILED, reason)

    def recipe_folder(self, recipe: str) -> Path:
        """The folder of a recipe, which holds `nodes.json` and its report."""
        return self.root / recipe

    def read_nodes(self, recipe: str) -> dict[str, Any] | None:
        """Reads `nodes.json` of a recipe; None if the recipe has never been run in this store.

        Raises:
            ZephyrError: the file can't be read, or holds something else.
        """
        path = self.recipe_folder(recipe) / "nodes.json"
        if not path.exists():
            return None
        try:
            recorded: dict[str, Any] = read_json(path)
            if not {"recipe", "spec", "nodes"} <= recorded.keys():
                raise ValueError(path)
        except (ValueError, AttributeError):
            raise ZephyrError(
                "the list of a recipe's runs can't be read",
                where=str(path),
                todo=f"remove it, then zephyr run {recipe}: finished runs are kept",
            ) from None
        return recorded

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the store's lock, so that no other process runs stages in it.

        Raises:
            ZephyrError: another process holds the lock.
        """
        from filelock import FileLock, Timeout

        with explain_disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            holder_path = self.root / "lock.json"
            lock = FileLock(self.root / ".lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                pid = read_json(holder_path)["pid"] if holder_path.exists() else "unknown"
                raise ZephyrError(
                    "another process is running in this store",
                    where=str(self.root),
                    found=f"process {pid}",
                    todo="wait until it ends, stop it, or set ZEPHYR_RUNS to another folder",
                ) from None
        try:
            write_json(holder_path, {"pid": os.getpid()})
            yield
        finally:
            holder_path.unlink(missing_ok=True)
            lock.release()
