"""Files of the Hugging Face hub: asked for, brought here, and remembered exactly.

A snapshot is files of one commit. They lie in the hub's own cache, so that nothing is fetched that
another tool has fetched, and the other way round; what was brought is remembered beside it:

    <HF_HUB_CACHE>/datasets--org--name/blobs/<etag>                 a content
    <HF_HUB_CACHE>/datasets--org--name/snapshots/<commit>/<path>    a link to it
    <ZEPHYR_CACHE>/hub/datasets--org--name-<hash>.json              what `fetch` last brought

The transfer is our own: `hf_hub_download` needs 65 to 393 s to give up on a server that hangs,
begins a broken download anew in the next process, and takes wrong bytes of the right size.
"""

import errno
import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from zephyr.data.cache import cache_home, cache_root, content_sha256
from zephyr.data.hub_client import COMMIT, ETAG, Client, File, Passing, Unreachable, Wanted
from zephyr.errors import ZephyrError
from zephyr.runs.store import full_disk_explained, read_json, write_json

__all__ = [
    "File",
    "Snapshot",
    "Unreachable",
    "Wanted",
    "ask",
    "fetch",
    "missing",
    "paths",
    "remembered",
]

PARTIAL = re.compile(r"([^/]+)/partial-([^/]+)/(\d+\.parquet)")

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit, sorted by path."""

    commit: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def ask(wanted: Wanted, where: str) -> Snapshot:
    """What the hub holds of the files that are wanted; none is fetched.

    Raises:
        ZephyrError: the hub can't be asked, or has no file, or only a part, for a pattern.
    """
    hub = Client(wanted, where)
    pinned = COMMIT.fullmatch(wanted.revision)
    commit = wanted.revision if pinned else hub.commit()
    return Snapshot(commit, _chosen(wanted, hub.files(commit), where))


def remembered(wanted: Wanted) -> Snapshot | None:
    """What `fetch` last brought, if all of it is still here; the network is not asked.

    Raises:
        ZephyrError: a link leads out of the cache.
    """
    try:
        value = read_json(_memory(wanted))
        snapshot = Snapshot(value["commit"], tuple(File(**file) for file in value["files"]))
    except (OSError, ValueError, KeyError, TypeError):  # it is a cache: what is broken is not there
        return None
    pairs = zip(snapshot.files, paths(wanted, snapshot), strict=True)
    return snapshot if all(_size(path) == file.size for file, path in pairs) else None


def paths(wanted: Wanted, snapshot: Snapshot) -> list[Path]:
    """Where the files of a fetched snapshot lie, in their order.

    Raises:
        ZephyrError: a link leads out of the cache.
    """
    return [_link(wanted, snapshot.commit, file.path) for file in snapshot.files]


def missing(wanted: Wanted, snapshot: Snapshot) -> int:
    """How many bytes `fetch` has still to bring."""
    contents = {file.etag: file for file in snapshot.files}.values()
    return sum(
        file.size - min(file.size, _size(_part(wanted, file)) or 0)
        for file in contents
        if _here(wanted, snapshot.commit, file) is None
    )


def fetch(
    wanted: Wanted, snapshot: Snapshot, where: str, progress: Progress = lambda n: None
) -> Snapshot:
    """Brings all files of a snapshot, checks and remembers them, and fills in each SHA-256.

    `progress` is told how many bytes have come, and a negative number where some were thrown away.
    A file that is here is not fetched again, and one that is here in part from where it ends.

    Raises:
        ZephyrError: a file can't be brought, or not as the hub says that it is.
    """
    known = remembered(wanted)
    if known is not None and paths(wanted, known) == paths(wanted, snapshot):
        return known
    hub = Client(wanted, where)
    with _written(_folder(wanted), "HF_HOME"), _alone(wanted, where):
        files = [_brought(hub, snapshot.commit, file, progress) for file in snapshot.files]
    fetched = Snapshot(snapshot.commit, tuple(files))
    memory = _memory(wanted)
    with _written(memory.parent, "ZEPHYR_CACHE"):
        rows = [file._asdict() for file in files]
        write_json(memory, {**asdict(wanted), "commit": fetched.commit, "files": rows})
    return fetched


# -- which files ----------------------------------------------------------------------------------


def _chosen(wanted: Wanted, files: list[File], where: str) -> tuple[File, ...]:
    """The files that match, sorted; all but optional patterns must match, and nothing in part."""
    chosen = set()
    for pattern in (*wanted.patterns, *wanted.optional):
        if parts := [file for file in files if _is_part(pattern, file.path)]:
            raise ZephyrError(
                "the hub has converted only the beginning of this data set to Parquet",
                where=where,
                found=f"{wanted.repo}: {parts[0].path.rpartition('/')[0]}, {len(parts)} files",
                todo=f"name its own files by `files:`, as {wanted.page}/tree/main lists them",
            )
        matching = [file for file in files if _matches(pattern, file.path)]
        if not matching and pattern not in wanted.optional:
            raise ZephyrError(
                f"no file of this {wanted.noun} matches a pattern",
                where=where,
                found=f"{pattern!r} in {wanted.repo}, revision {wanted.revision}",
                nearest=_near(pattern, [file.path for file in files]),
                todo="name files that are there: "
                f"{wanted.page}/tree/{quote(wanted.revision, safe='')}",
            )
        chosen.update(matching)
    for file in chosen:
        _refuse_path(file.path)
    return tuple(sorted(chosen))


def _matches(pattern: str, path: str) -> bool:
    parts, names = pattern.split("/"), path.split("/")
    return len(parts) == len(names) and all(map(fnmatch.fnmatchcase, names, parts))


def _is_part(pattern: str, path: str) -> bool:
    """Whether a path is of a part of a split, where the pattern asks for a split.

    Of a large data set the hub converts the first gigabytes, to `config/partial-split/`.
    """
    match = PARTIAL.fullmatch(path)
    if match is None or "partial-" in pattern:
        return False
    return _matches(pattern, path) or _matches(pattern, "/".join(match.groups()))


def _near(pattern: str, names: Iterable[str]) -> str:
    """A few names that are spelt most like the pattern, one of each folder and ending."""
    examples: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        examples.setdefault((str(path.parent), path.suffix), name)
    close = get_close_matches(pattern, examples.values(), n=5, cutoff=0)
    return ", ".join(close) or "(it holds no files)"


# -- where they lie -------------------------------------------------------------------------------


def _hub_cache() -> Path:
    """The hub's cache, by the rules of its client, which reads the environment only once."""
    environ = os.environ
    home = environ.get("HF_HOME") or str(cache_home() / "huggingface")
    folder = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(folder)).expanduser()


def _name(wanted: Wanted) -> str:
    return f"{wanted.kind}s--{wanted.repo.replace('/', '--')}"


def _folder(wanted: Wanted) -> Path:
    return _hub_cache() / _name(wanted)


def _memory(wanted: Wanted) -> Path:
    what = json.dumps([wanted.patterns, wanted.optional, wanted.revision])
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    return cache_root() / "hub" / f"{_name(wanted)}-{digest}.json"


def _link(wanted: Wanted, commit: str, path: str) -> Path:
    _refuse_path(path)
    if not COMMIT.fullmatch(commit):
        raise ZephyrError("this is not a commit", found=repr(commit))
    return _inside(_folder(wanted) / "snapshots" / commit / path)


def _blob(wanted: Wanted, file: File) -> Path:
    if not ETAG.fullmatch(file.etag):
        raise ZephyrError("this is not the hub's name for a content", found=repr(file.etag))
    return _inside(_folder(wanted) / "blobs" / file.etag)


def _part(wanted: Wanted, file: File) -> Path:
    """The file that a content is written to until it is whole."""
    blob = _blob(wanted, file)
    return _inside(blob.with_name(f"{blob.name}.zephyr.incomplete"))


def _refuse_path(path: str) -> None:
    """Refuses a path told by a server that is not plainly one within a folder."""
    if {"", ".", ".."} & set(path.split("/")) or re.search(r"[\\\x00-\x1f\x7f]", path):
        raise ZephyrError("the hub names a file by a path that is not safe", found=repr(path))


def _inside(path: Path) -> Path:
    """The path as it is, once it is sure that no link leads out of the hub's cache."""
    real = path.resolve()
    if not real.is_relative_to(_hub_cache().resolve()):
        raise ZephyrError(
            "a link leads out of the hub's cache",
            where=str(path),
            found=str(real),
            todo="remove the link, or move the whole cache and set HF_HOME to where it is",
        )
    return path


def _size(path: Path) -> int | None:
    """The bytes of a file, or None where there is none, or none that we may see."""
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else None
    return None


def _here(wanted: Wanted, commit: str, file: File) -> Path | None:
    """Where a content lies that has the size of a file, whoever has fetched it."""
    places = (_link(wanted, commit, file.path), _blob(wanted, file))
    return next((path for path in places if _size(path) == file.size), None)


# -- bringing them --------------------------------------------------------------------------------


def _brought(hub: Client, commit: str, file: File, progress: Progress) -> File:
    """A file with its content in place and checked."""
    link, blob = _link(hub.wanted, commit, file.path), _blob(hub.wanted, file)
    here = _here(hub.wanted, commit, file)
    sha256 = _checked(here, file) if here is not None else ""
    if here is not None and not sha256:
        link.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        progress(-file.size)
    if not sha256:
        sha256 = _downloaded(hub, commit, file, progress)
    if _size(link) != file.size:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError:  # not every file system has links
            blob.replace(link)
    return file._replace(sha256=sha256)


def _downloaded(hub: Client, commit: str, file: File, progress: Progress) -> str:
    """Brings a content to its place, and gives its SHA-256."""
    from huggingface_hub import hf_hub_url

    wanted = hub.wanted
    address = hf_hub_url(
        wanted.repo, file.path, repo_type=wanted.kind, revision=commit, endpoint=hub.endpoint
    )
    part = _part(wanted, file)
    part.parent.mkdir(parents=True, exist_ok=True)

    def attempt() -> str:
        _stream(hub, address, file, part, progress)
        size = _size(part) or 0
        if size < file.size:
            found = f"{file.path}: {size:,} of {file.size:,} bytes"
            raise Passing("the hub sends a file only in part", found)
        sha256 = _checked(part, file) if size == file.size else ""
        if not sha256:
            part.unlink()
            progress(-size)
            raise Passing(
                "the hub sends a file with a wrong content",
                file.path,
                "look for what changes it on its way: a mirror (HF_ENDPOINT) or a proxy",
            )
        return sha256

    sha256 = hub.patiently(attempt, lambda: _size(part) or 0)
    part.replace(_blob(wanted, file))
    return sha256


def _stream(hub: Client, address: str, file: File, part: Path, progress: Progress) -> None:
    """Appends to a part what it lacks, and little more if the server sends too much."""
    with part.open("ab") as written:
        if written.tell() == file.size:
            return
        with hub.get(address, file.path, start=written.tell()) as response:
            if response.status_code != 206:  # the whole file comes, whatever was asked for
                progress(-written.tell())
                written.truncate(written.seek(0))
            for data in response.iter_bytes():
                written.write(data)
                progress(len(data))
                if written.tell() > file.size:
                    break
        written.flush()
        os.fsync(written.fileno())


def _checked(path: Path, file: File) -> str:
    """SHA-256 of a content, or "" if it is not the one that the hub names."""
    sha256 = content_sha256(path)
    if len(file.etag) == len(sha256):
        return sha256 if sha256 == file.etag else ""
    start = b"blob %d\0" % file.size
    with path.open("rb") as content:
        git = hashlib.file_digest(content, lambda: hashlib.sha1(start, usedforsecurity=False))
    return sha256 if git.hexdigest() == file.etag else ""


@contextmanager
def _written(folder: Path, variable: str) -> Iterator[None]:
    """Makes a folder to write in, and says which variable names another where that fails."""
    try:
        with full_disk_explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            yield
    except ZephyrError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            todo = f"set {variable} to a folder that can be"
            raise ZephyrError(error.problem, where=str(folder), todo=todo) from cause
        raise


@contextmanager
def _alone(wanted: Wanted, where: str) -> Iterator[None]:
    """Keeps every other process from writing the same parts."""
    from filelock import FileLock, Timeout

    locks = _hub_cache() / ".locks" / _name(wanted)
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / "zephyr.lock", blocking=False):
            yield
    except Timeout:
        raise ZephyrError(
            "another process is fetching from this repository",
            where=where,
            found=wanted.repo,
            todo="wait until it ends, then run this again",
        ) from None
