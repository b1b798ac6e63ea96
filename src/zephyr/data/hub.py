"""Downloads data sets and models from the Hugging Face hub: snapshots, cached and verified.

A snapshot is a set of files at one commit. They are stored in the hub's own cache, which is shared
with other tools; a record of each downloaded snapshot is stored in Zephyr's cache:

    <HF_HUB_CACHE>/datasets--org--name/blobs/<etag>                 the content of a file
    <HF_HUB_CACHE>/datasets--org--name/snapshots/<commit>/<path>    a link to it
    <ZEPHYR_CACHE>/hub/datasets--org--name-<hash>.json              the last downloaded snapshot

The transfer is our own: `hf_hub_download` needs 65 to 393 s to give up on a server that hangs,
restarts a broken download in the next process, and accepts wrong bytes of the right size.
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
from zephyr.data.hub_client import (
    COMMIT_PATTERN,
    ETAG_PATTERN,
    HubClient,
    HubFile,
    HubQuery,
    HubUnreachableError,
    NotOnHubError,
    TransientHubError,
)
from zephyr.errors import ZephyrError
from zephyr.runs.store import explain_disk_errors, read_json, write_json

__all__ = [
    "HubFile",
    "HubQuery",
    "HubUnreachableError",
    "NotOnHubError",
    "Snapshot",
    "cached_snapshot",
    "download_snapshot",
    "missing_bytes",
    "resolve_snapshot",
    "snapshot_paths",
]

PARTIAL_SPLIT_PATTERN = re.compile(r"([^/]+)/partial-([^/]+)/(\d+\.parquet)")

ProgressCallback = Callable[[int], None]


@dataclass(frozen=True)
class Snapshot:
    """Files of a hub repository at one commit, sorted by path."""

    commit: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def resolve_snapshot(query: HubQuery, where: str) -> Snapshot:
    """Resolves a query to a snapshot (commit and matching files), without downloading it.

    Raises:
        ZephyrError: the hub can't be reached, or has no file, or only a part, for a pattern.
    """
    client = HubClient(query, where)
    pinned = COMMIT_PATTERN.fullmatch(query.revision)
    commit = query.revision if pinned else client.resolve_commit()
    return Snapshot(commit, _match_files(query, client.list_files(commit), where))


def cached_snapshot(query: HubQuery) -> Snapshot | None:
    """The last downloaded snapshot, if all of it is still in the cache; without network.

    Raises:
        ZephyrError: a link leads out of the cache.
    """
    try:
        value = read_json(_snapshot_record_path(query))
        snapshot = Snapshot(value["commit"], tuple(HubFile(**file) for file in value["files"]))
    except (OSError, ValueError, KeyError, TypeError):  # a broken cache entry counts as missing
        return None
    pairs = zip(snapshot.files, snapshot_paths(query, snapshot), strict=True)
    return snapshot if all(_file_size(path) == file.size for file, path in pairs) else None


def snapshot_paths(query: HubQuery, snapshot: Snapshot) -> list[Path]:
    """The local paths of the files of a fetched snapshot, in their order.

    Raises:
        ZephyrError: a link leads out of the cache.
    """
    return [_snapshot_path(query, snapshot.commit, file.path) for file in snapshot.files]


def missing_bytes(query: HubQuery, snapshot: Snapshot) -> int:
    """How many bytes of a snapshot are still to be downloaded."""
    files_by_content = {file.etag: file for file in snapshot.files}.values()
    return sum(
        file.size - min(file.size, _file_size(_partial_path(query, file)) or 0)
        for file in files_by_content
        if _cached_path(query, snapshot.commit, file) is None
    )


def download_snapshot(
    query: HubQuery, snapshot: Snapshot, where: str, progress: ProgressCallback = lambda n: None
) -> Snapshot:
    """Downloads, verifies and caches all files of a snapshot; fills in the SHA-256 of each.

    `progress` is called with the number of bytes received, negative where some were discarded.
    A cached file is not downloaded again, and a partial download is resumed.

    Raises:
        ZephyrError: a file can't be downloaded, or its content is not the one that the hub names.
    """
    cached = cached_snapshot(query)
    if cached is not None and snapshot_paths(query, cached) == snapshot_paths(query, snapshot):
        return cached
    client = HubClient(query, where)
    with _writable_folder(_repo_folder(query), "HF_HOME"), _repo_lock(query, where):
        files = [_ensure_file(client, snapshot.commit, file, progress) for file in snapshot.files]
    fetched = Snapshot(snapshot.commit, tuple(files))
    record_path = _snapshot_record_path(query)
    with _writable_folder(record_path.parent, "ZEPHYR_CACHE"):
        rows = [file._asdict() for file in files]
        write_json(record_path, {**asdict(query), "commit": fetched.commit, "files": rows})
    return fetched


# -- matching files -------------------------------------------------------------------------------


def _match_files(query: HubQuery, files: list[HubFile], where: str) -> tuple[HubFile, ...]:
    """The files that match a query, sorted; every pattern that is not optional must match."""
    matched_files = set()
    for pattern in (*query.patterns, *query.optional):
        if parts := [file for file in files if _is_partial_split(pattern, file.path)]:
            raise ZephyrError(
                "the hub has converted only the beginning of this data set to Parquet",
                where=where,
                found=f"{query.repo}: {parts[0].path.rpartition('/')[0]}, {len(parts)} files",
                todo=f"name its own files by `files:`, as {query.web_url}/tree/main lists them",
            )
        matching = [file for file in files if _matches(pattern, file.path)]
        if not matching and pattern not in query.optional:
            raise ZephyrError(
                f"no file of this {query.noun} matches a pattern",
                where=where,
                found=f"{pattern!r} in {query.repo}, revision {query.revision}",
                nearest=_closest_paths(pattern, [file.path for file in files]),
                todo="name files that are there: "
                f"{query.web_url}/tree/{quote(query.revision, safe='')}",
            )
        matched_files.update(matching)
    for file in matched_files:
        _check_safe_path(file.path)
    return tuple(sorted(matched_files))


def _matches(pattern: str, path: str) -> bool:
    parts, names = pattern.split("/"), path.split("/")
    return len(parts) == len(names) and all(map(fnmatch.fnmatchcase, names, parts))


def _is_partial_split(pattern: str, path: str) -> bool:
    """Whether a path is of a partially converted split and the pattern asks for that split.

    The hub converts only the first gigabytes of a large data set, to `config/partial-split/`.
    """
    match = PARTIAL_SPLIT_PATTERN.fullmatch(path)
    if match is None or "partial-" in pattern:
        return False
    return _matches(pattern, path) or _matches(pattern, "/".join(match.groups()))


def _closest_paths(pattern: str, names: Iterable[str]) -> str:
    """The closest paths to a pattern, one of each folder and suffix."""
    examples: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        examples.setdefault((str(path.parent), path.suffix), name)
    close = get_close_matches(pattern, examples.values(), n=5, cutoff=0)
    return ", ".join(close) or "(it holds no files)"


# -- paths in the cache ---------------------------------------------------------------------------


def _hub_cache() -> Path:
    """The hub's cache folder, by the rules of its client (that reads the environment once)."""
    environ = os.environ
    home = environ.get("HF_HOME") or str(cache_home() / "huggingface")
    folder = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(folder)).expanduser()


def _repo_folder_name(query: HubQuery) -> str:
    return f"{query.kind}s--{query.repo.replace('/', '--')}"


def _repo_folder(query: HubQuery) -> Path:
    return _hub_cache() / _repo_folder_name(query)


def _snapshot_record_path(query: HubQuery) -> Path:
    key = json.dumps([query.patterns, query.optional, query.revision])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_root() / "hub" / f"{_repo_folder_name(query)}-{digest}.json"


def _snapshot_path(query: HubQuery, commit: str, path: str) -> Path:
    _check_safe_path(path)
    if not COMMIT_PATTERN.fullmatch(commit):
        raise ZephyrError("this is not a commit", found=repr(commit))
    return _check_inside_cache(_repo_folder(query) / "snapshots" / commit / path)


def _blob_path(query: HubQuery, file: HubFile) -> Path:
    if not ETAG_PATTERN.fullmatch(file.etag):
        raise ZephyrError("this is not the hub's name for a content", found=repr(file.etag))
    return _check_inside_cache(_repo_folder(query) / "blobs" / file.etag)


def _partial_path(query: HubQuery, file: HubFile) -> Path:
    """The path of a partial download, which is renamed once it is complete."""
    blob = _blob_path(query, file)
    return _check_inside_cache(blob.with_name(f"{blob.name}.zephyr.incomplete"))


def _check_safe_path(path: str) -> None:
    """Checks that a path from a server stays within its folder (no path traversal)."""
    if {"", ".", ".."} & set(path.split("/")) or re.search(r"[\\\x00-\x1f\x7f]", path):
        raise ZephyrError("the hub names a file by a path that is not safe", found=repr(path))


def _check_inside_cache(path: Path) -> Path:
    """Checks that no link leads a path out of the hub's cache."""
    resolved = path.resolve()
    if not resolved.is_relative_to(_hub_cache().resolve()):
        raise ZephyrError(
            "a link leads out of the hub's cache",
            where=str(path),
            found=str(resolved),
            todo="remove the link, or move the whole cache and set HF_HOME to where it is",
        )
    return path


def _file_size(path: Path) -> int | None:
    """The size of a file in bytes; None where there is no such file, or it is not readable."""
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else None
    return None


def _cached_path(query: HubQuery, commit: str, file: HubFile) -> Path | None:
    """The path of a cached file of the right size, whichever tool has downloaded it."""
    candidates = (_snapshot_path(query, commit, file.path), _blob_path(query, file))
    return next((path for path in candidates if _file_size(path) == file.size), None)


# -- download -------------------------------------------------------------------------------------


def _ensure_file(
    client: HubClient, commit: str, file: HubFile, progress: ProgressCallback
) -> HubFile:
    """Ensures that a file is in the cache with a verified content, downloading it if needed."""
    link, blob = _snapshot_path(client.query, commit, file.path), _blob_path(client.query, file)
    cached = _cached_path(client.query, commit, file)
    sha256 = _verified_sha256(cached, file) if cached is not None else ""
    if cached is not None and not sha256:
        link.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        progress(-file.size)
    if not sha256:
        sha256 = _download_file(client, commit, file, progress)
    if _file_size(link) != file.size:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError:  # not every file system has links
            blob.replace(link)
    return file._replace(sha256=sha256)


def _download_file(
    client: HubClient, commit: str, file: HubFile, progress: ProgressCallback
) -> str:
    """Downloads a file to its place in the cache; returns its SHA-256."""
    from huggingface_hub import hf_hub_url

    query = client.query
    address = hf_hub_url(
        query.repo, file.path, repo_type=query.kind, revision=commit, endpoint=client.endpoint
    )
    partial_path = _partial_path(query, file)
    partial_path.parent.mkdir(parents=True, exist_ok=True)

    def attempt() -> str:
        _append_download(client, address, file, partial_path, progress)
        size = _file_size(partial_path) or 0
        if size < file.size:
            found = f"{file.path}: {size:,} of {file.size:,} bytes"
            raise TransientHubError("the hub sends a file only in part", found)
        sha256 = _verified_sha256(partial_path, file) if size == file.size else ""
        if not sha256:
            partial_path.unlink()
            progress(-size)
            raise TransientHubError(
                "the hub sends a file with a wrong content",
                file.path,
                "look for what changes it on its way: a mirror (HF_ENDPOINT) or a proxy",
            )
        return sha256

    sha256 = client.retry(attempt, lambda: _file_size(partial_path) or 0)
    partial_path.replace(_blob_path(query, file))
    return sha256


def _append_download(
    client: HubClient, address: str, file: HubFile, partial_path: Path, progress: ProgressCallback
) -> None:
    """Resumes a partial download (HTTP range request); stops if more than the rest is sent."""
    with partial_path.open("ab") as output:
        if output.tell() == file.size:
            return
        with client.get(address, file.path, start=output.tell()) as response:
            if response.status_code != 206:  # the server ignored the range and sends the whole file
                progress(-output.tell())
                output.truncate(output.seek(0))
            for data in response.iter_bytes():
                output.write(data)
                progress(len(data))
                if output.tell() > file.size:
                    break
        output.flush()
        os.fsync(output.fileno())


def _verified_sha256(path: Path, file: HubFile) -> str:
    """Verifies a file: its SHA-256, or "" if it is not the content that the hub names (etag)."""
    sha256 = content_sha256(path)
    if len(file.etag) == len(sha256):
        return sha256 if sha256 == file.etag else ""
    start = b"blob %d\0" % file.size
    with path.open("rb") as content:
        git_hash = hashlib.file_digest(content, lambda: hashlib.sha1(start, usedforsecurity=False))
    return sha256 if git_hash.hexdigest() == file.etag else ""


@contextmanager
def _writable_folder(folder: Path, variable: str) -> Iterator[None]:
    """Creates a folder to write in; an error names the environment variable to change."""
    try:
        with explain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            yield
    except ZephyrError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            todo = f"set {variable} to a folder that can be"
            raise ZephyrError(error.problem, where=str(folder), todo=todo) from cause
        raise


@contextmanager
def _repo_lock(query: HubQuery, where: str) -> Iterator[None]:
    """File lock on a cached repository, so that one process at a time downloads to it."""
    from filelock import FileLock, Timeout

    locks = _hub_cache() / ".locks" / _repo_folder_name(query)
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / "zephyr.lock", blocking=False):
            yield
    except Timeout:
        raise ZephyrError(
            "another process is fetching from this repository",
            where=where,
            found=query.repo,
            todo="wait until it ends, then run this again",
        ) from None
