"""A server on this machine that speaks the protocol of the Hugging Face hub over real HTTP.

    with HubServer({("dataset", "org/name"): {"main": {"train.jsonl": b"..."}}}) as server:
        server.add_fault("train.jsonl", "cut")  # the next GET of it ends half way
        ...                                     # with HF_ENDPOINT=server.url
        assert server.count_requests("/resolve/") == 2

It answers what clients of the hub ask: facts about a repository, its tree in pages, and its files.
As on the hub, a large file (see `LARGE_FILE_SUFFIXES`) is known by its SHA-256 and served, after a
redirect, from another origin (here a second port); any other file is known by git's id of its
content.
"""

import hashlib
import json
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

Files = dict[str, bytes]
Repositories = dict[tuple[str, str], dict[str, Files]]
"""By (kind, "org/name") with kind "dataset" or "model", then by revision, then by path."""

LARGE_FILE_SUFFIXES = (".parquet", ".safetensors", ".bin", ".gz")

Fault = Literal[401, 403, 404, 408, 410, 429, 500, 502, 503, 504, "hang", "stall", "cut", "short",
                "corrupt", "nonsense"]  # fmt: skip
"""What may go wrong: a status, or

hang      the connection is held without a word until the server closes
stall     half of the content is sent, then the connection is held likewise
cut       half of the content is sent, then the connection is closed
short     half of the content is sent as if it were all
corrupt   as many bytes as there should be, all of them wrong
nonsense  a page of HTML, as from the login page of a network
"""
CONTENT_FAULTS = ("stall", "cut", "short", "corrupt")


class Request(NamedTuple):
    """One request; `path` is unquoted, with the query left out."""

    method: str
    path: str
    authorized: bool


@dataclass
class _ScriptedFault:
    path: str
    fault: Fault
    method: str
    remaining: int
    headers: dict[str, str]


class HubServer:
    """Serves repositories at `url` while it is entered, and writes down what it is asked."""

    def __init__(self, repositories: Repositories, *, page_size: int = 1000) -> None:
        self.page_size = page_size
        self.ranges = True  # set to False, the server sends whole files whatever it is asked for
        self.requests: list[Request] = []
        self._faults: list[_ScriptedFault] = []
        self._commits: dict[tuple[str, str], dict[str, Files]] = {}
        self._revisions: dict[tuple[str, str], dict[str, str]] = {}
        self.closing = threading.Event()
        self._servers = [_Server(self) for _ in range(2)]
        self.url, self.storage = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)
        for (kind, repo), revisions in repositories.items():
            for revision, files in revisions.items():
                self.push(kind, repo, revision, files)

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def push(self, kind: str, repo: str, revision: str, files: Files) -> str:
        """Moves a revision to these files, and gives their commit; earlier commits stay."""
        ids = {path: _git_id(data) for path, data in files.items()}
        commit = hashlib.sha1(json.dumps([kind, repo, ids], sort_keys=True).encode()).hexdigest()
        self._commits.setdefault((kind, repo), {})[commit] = files
        self._revisions.setdefault((kind, repo), {})[revision] = commit
        return commit

    def add_fault(
        self,
        path: str,
        fault: Fault,
        *,
        count: int = 1,
        method: str = "GET",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Spoils the next `count` answers to requests whose unquoted path holds `path`.

        Faults of the content leave a redirect alone and spoil the answer to which it leads.
        `headers` go with a status, for instance {"X-Error-Code": "GatedRepo"}.
        """
        self._faults.append(_ScriptedFault(path, fault, method, count, headers or {}))

    def count_requests(self, path: str, method: str = "GET") -> int:
        """How many requests so far had a path that holds `path`."""
        return sum(r.method == method and path in r.path for r in self.requests)

    def reset(self) -> None:
        """Forgets all requests so far, and faults that are left."""
        self.requests.clear()
        self._faults.clear()

    def take_fault(self, method: str, path: str, *, redirects: bool) -> _ScriptedFault | None:
        for scripted in self._faults:
            if scripted.remaining and scripted.method == method and scripted.path in path:
                if redirects and scripted.fault in CONTENT_FAULTS:
                    continue
                scripted.remaining -= 1
                return scripted
        return None

    def find_commit(self, kind: str, repo: str, revision: str) -> tuple[str, Files] | str:
        """A commit and its files, or the hub's code for what is not there."""
        commits = self._commits.get((kind, repo))
        if commits is None:
            return "RepoNotFound"
        commit = self._revisions[kind, repo].get(revision, revision)
        return (commit, commits[commit]) if commit in commits else "RevisionNotFound"

    def find_large_file(self, sha256: str) -> bytes | None:
        """The content of a large file."""
        for commits in self._commits.values():
            for files in commits.values():
                for data in files.values():
                    if hashlib.sha256(data).hexdigest() == sha256:
                        return data
        return None


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith(LARGE_FILE_SUFFIXES)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body are two writes; the second need not wait
    server: _Server

    def log_message(self, *args: object) -> None:
        """Nothing is printed: `HubServer.requests` holds it."""

    def do_GET(self) -> None:
        hub = self.server.hub
        address = urlsplit(self.path)
        path = unquote(address.path)
        hub.requests.append(Request(self.command, path, "Authorization" in self.headers))
        segments = [unquote(segment) for segment in address.path.split("/")[1:]]
        origin = f"http://127.0.0.1:{self.server.server_port}"
        large = "resolve" in segments and origin == hub.url and _is_large(path)
        fault = hub.take_fault(self.command, path, redirects=large)
        match fault and fault.fault:
            case int(status):
                self.send_error_status(status, fault.headers)
            case "hang":
                hub.closing.wait()
                self.close_connection = True
            case "nonsense":
                self.send_content(b"<!DOCTYPE html><p>Welcome!", {"Content-Type": "text/html"})
            case kind if origin == hub.storage:
                data = hub.find_large_file(segments[0])
                if data is None:
                    self.send_error_status(404)
                else:
                    self.send_content(data, {"ETag": '"of-the-storage"'}, kind)
            case kind:
                self.send_repository(segments, parse_qs(address.query), kind)

    do_HEAD = do_GET  # noqa: N815

    def send_repository(
        self, segments: list[str], query: dict[str, list[str]], fault: Fault | None
    ) -> None:
        """/api/datasets/org/name[/revision/R | /tree/R] and /[datasets/]org/name/resolve/R/path."""
        kind = "model"
        api = segments[0] == "api"
        if api:
            segments = segments[1:]
        if segments[0] in ("datasets", "models"):
            kind = segments[0][:-1]
            segments = segments[1:]
        repo = "/".join(segments[:2])
        what, revision = segments[2:4] if len(segments) > 3 else ("revision", "main")
        found = self.server.hub.find_commit(kind, repo, revision)
        if isinstance(found, str):
            self.send_error_status(404, {"X-Error-Code": found})
            return
        commit, files = found
        if api and what == "revision":
            self.send_repo_info(repo, commit, files, "blobs" in query)
        elif api and what == "tree":
            self.send_tree(files, int(query.get("cursor", ["0"])[0]), fault)
        elif what == "resolve":
            self.send_file("/".join(segments[4:]), commit, files, fault)
        else:
            self.send_error_status(404)

    def send_repo_info(self, repo: str, commit: str, files: Files, blobs: bool) -> None:
        siblings = []
        for path, data in files.items():
            entry = _entry(path, data)
            sibling: dict[str, object] = {"rfilename": path}
            if blobs:
                sibling |= {"size": entry["size"], "blobId": entry["oid"]}
                if "lfs" in entry:
                    sibling["lfs"] = {**entry["lfs"], "sha256": entry["lfs"]["oid"]}
            siblings.append(sibling)
        flags = {"private": False, "gated": False, "disabled": False}
        counts = {"downloads": 0, "likes": 0, "tags": []}
        self.send_json({"id": repo, "sha": commit, **flags, **counts, "siblings": siblings})

    def send_tree(self, files: Files, start: int, fault: Fault | None) -> None:
        folders = {
            "/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/") + 1)
        }
        entries = [{"type": "directory", "oid": _git_id(f.encode()), "size": 0, "path": f}
                   for f in folders if f]  # fmt: skip
        entries += [_entry(path, data) for path, data in files.items()]
        entries.sort(key=lambda entry: str(entry["path"]))
        end = start + self.server.hub.page_size
        headers = {}
        if end < len(entries):
            address = f"{self.server.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={end}"
            headers["Link"] = f'<{address}>; rel="next"'
        self.send_json(entries[start:end], headers, fault)

    def send_file(self, path: str, commit: str, files: Files, fault: Fault | None) -> None:
        headers = {"X-Repo-Commit": commit}
        data = files.get(path)
        if data is None:
            self.send_error_status(404, {**headers, "X-Error-Code": "EntryNotFound"})
        elif _is_large(path):
            sha256 = hashlib.sha256(data).hexdigest()
            headers |= {
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.server.hub.storage}/{sha256}/{quote(path)}",
            }
            self.send_reply(HTTPStatus.FOUND, b"", headers)
        else:
            self.send_content(data, {**headers, "ETag": f'"{_git_id(data)}"'}, fault)

    def send_json(
        self, value: object, headers: dict[str, str] | None = None, fault: Fault | None = None
    ) -> None:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        self.send_content(json.dumps(value).encode(), {**kind, **(headers or {})}, fault)

    def send_content(
        self, data: bytes, headers: dict[str, str], fault: Fault | None = None
    ) -> None:
        """Sends content, or the part of it that is asked for, spoilt by a fault if there is one."""
        status = HTTPStatus.OK
        size = len(data)
        if fault == "corrupt":
            data = bytes(byte ^ 255 for byte in data)
        byte_range = self.headers.get("Range")
        if byte_range is not None and self.server.hub.ranges:
            start = int(byte_range.removeprefix("bytes=").split("-")[0])
            if start >= size:
                self.send_error_status(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
            status = HTTPStatus.PARTIAL_CONTENT
            headers = {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}
            data = data[start:]
        if fault == "short":
            data = data[: len(data) // 2]
        self.send_reply(status, data, {"Accept-Ranges": "bytes", **headers}, fault)

    def send_reply(
        self, status: int, data: bytes, headers: dict[str, str], fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "stall"):
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)
        if fault == "stall":
            self.wfile.flush()
            self.server.hub.closing.wait()

    def send_error_status(self, status: int, headers: dict[str, str] | None = None) -> None:
        message = {"X-Error-Message": HTTPStatus(status).phrase}
        self.send_reply(status, b'{"error": "refused"}', {**message, **(headers or {})})


def _entry(path: str, data: bytes) -> dict[str, object]:
    """What the hub's tree says about a file; a large one is a pointer in git."""
    if not _is_large(path):
        return {"type": "file", "oid": _git_id(data), "size": len(data), "path": path}
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n"
    return {
        "type": "file",
        "oid": _git_id(pointer.encode()),
        "size": len(data),
        "path": path,
        "lfs": {"oid": sha256, "size": len(data), "pointerSize": len(pointer)},
    }
