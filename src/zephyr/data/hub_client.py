"""A client of the Hugging Face hub: what it says of a repository, and bytes of its files.

What may pass by itself (a busy hub, a connection that breaks, silence) is tried again; everything
else, and what doesn't pass, is a `ZephyrError`. The token goes to the endpoint alone.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import zephyr
from zephyr.errors import ZephyrError

if TYPE_CHECKING:
    import httpx2

HUB = "https://huggingface.co"
TIMEOUT = 10.0  # seconds without a byte after which a request has failed
ATTEMPTS = 3  # in a row, without a byte more than the first of them brought
PAUSE = 1.0  # seconds after the first failure; twice as many after each further one
PATIENCE = 60.0  # seconds that a server may ask us to wait
UNREACHABLE = "the hub can't be reached"
SILENT = "the hub does not answer"
PASSING = (408, 429, 500, 502, 503, 504)  # statuses that may be another in a moment

COMMIT = re.compile(r"[0-9a-f]{40}")
ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REPO = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """Files of a repository by patterns of their paths, in which `*` and `?` don't match "/".

    Each pattern must match something, but for the `optional` ones.
    """

    repo: str
    patterns: tuple[str, ...]
    revision: str = "main"
    kind: Literal["dataset", "model"] = "dataset"
    optional: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        return "data set" if self.kind == "dataset" else "model"

    @property
    def page(self) -> str:
        """Where a person finds the repository."""
        return f"{HUB}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


class File(NamedTuple):
    """A file of a commit.

    `sha256` is of its content, and "" as long as nobody knows it. `etag` is the hub's name for the
    content: its SHA-256 for a large file, else git's id.
    """

    path: str
    size: int
    sha256: str
    etag: str


class Unreachable(ZephyrError):
    """There is no way to the hub from here: whatever else is asked of it fails in the same way."""


class Passing(Exception):
    """A failure that may pass by itself, with the seconds to wait where the hub tells them."""

    def __init__(
        self, problem: str, found: str, todo: str | None = None, wait: float | None = None
    ) -> None:
        super().__init__(problem)
        self.problem, self.found, self.todo, self.wait = problem, found, todo, wait


class Client:
    """The hub during one call of `ask` or `fetch`; its failures come out as `ZephyrError`."""

    def __init__(self, wanted: Wanted, where: str) -> None:
        _refuse_offline(where)
        if not REPO.fullmatch(wanted.repo) or re.search(r"--|\.\.", wanted.repo):
            raise ZephyrError(
                "this is not the name of a repository of the hub",
                where=where,
                found=repr(wanted.repo),
                allowed="organization/name",
            )
        from huggingface_hub import get_token

        self.wanted, self.where = wanted, where
        self.endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        # not by `build_hf_headers`, which may ask the hub what to say about this machine
        self.headers = {
            "User-Agent": f"zephyr/{zephyr.__version__}",
            "Accept-Encoding": "identity",  # a file's bytes are counted as they come
        }
        if token := get_token():
            self.headers["Authorization"] = f"Bearer {token}"

    def commit(self) -> str:
        """The commit at which the revision is now."""
        facts, _ = self.json(f"revision/{quote(self.wanted.revision, safe='')}")
        commit = facts.get("sha") if isinstance(facts, dict) else None
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise self.strange(f"the commit {commit!r}")
        return commit

    def files(self, commit: str) -> list[File]:
        """All files of a commit."""
        files: list[File] = []
        cursor = ""
        while True:
            page, further = self.json(f"tree/{commit}?recursive=true{cursor}")
            try:
                files += [_file(entry) for entry in page if entry["type"] == "file"]
            except (KeyError, TypeError, ValueError) as error:
                raise self.strange(f"a list of files with {error!r}") from error
            if not further:
                return files
            # only the cursor is taken: a mirror's answer may name the hub, and a token stays here
            cursor = "".join(f"&cursor={quote(c)}" for c in parse_qs(further).get("cursor", ()))

    def json(self, path: str) -> tuple[Any, str]:
        """What the hub says of the repository, and the query of the next page if there is one."""
        address = f"{self.endpoint}/api/{self.wanted.kind}s/{self.wanted.repo}/{path}"

        def attempt() -> tuple[Any, str]:
            with self.get(address, f"revision {self.wanted.revision}") as response:
                further = response.links.get("next", {}).get("url", "")
                return json.loads(response.read()), urlsplit(further).query

        try:
            return self.patiently(attempt)
        except (ValueError, RecursionError) as error:
            raise self.strange("what is not JSON") from error

    def patiently(self, attempt: Callable[[], T], reached: Callable[[], int] = lambda: 0) -> T:
        """What an attempt gives that may fail some times, as long as none gets further."""
        failures, furthest = 0, reached()
        while True:
            try:
                return attempt()
            except Passing as failure:
                failures = failures + 1 if reached() <= furthest else 1
                furthest = max(furthest, reached())
                pause = failure.wait if failure.wait is not None else PAUSE * 2 ** (failures - 1)
                if failures >= ATTEMPTS or pause > PATIENCE:
                    raise self.error(failure.problem, failure.found, failure.todo) from failure
            time.sleep(pause)

    @contextmanager
    def get(self, address: str, what: str, start: int = 0) -> Iterator["httpx2.Response"]:
        """The answer to a request, from a byte on; its body may be read within.

        Raises:
            Passing: it fails in a way that may pass, now or while the body is read.
            ZephyrError: it fails otherwise.
        """
        import httpx2
        from huggingface_hub import get_session

        headers = {**self.headers, "Range": f"bytes={start}-"} if start else self.headers
        try:
            with get_session().stream("GET", address, headers=headers, timeout=TIMEOUT) as response:
                status = response.status_code
                if status in PASSING:
                    raise _overloaded(response, what)
                if status not in (200, 206):
                    raise self.refused(response, what)
                yield response
        except httpx2.TimeoutException as error:
            found = f"{what}: nothing came from {self.endpoint} within {TIMEOUT:g} s"
            raise Passing(SILENT, found) from error
        except httpx2.ConnectError as error:
            raise Passing(UNREACHABLE, f"{self.endpoint}: {error}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise self.error(
                "HF_ENDPOINT is not an address of a hub", self.endpoint, f"set it to {HUB}"
            ) from error
        except httpx2.RequestError as error:
            raise Passing("the connection to the hub breaks", f"{what}: {error}") from error

    def refused(self, response: "httpx2.Response", what: str) -> ZephyrError:
        noun, page, parquet = self.wanted.noun, self.wanted.page, "refs/convert/parquet"
        code, status = response.headers.get("X-Error-Code"), response.status_code
        said = response.headers.get("X-Error-Message", "")
        login = "`hf auth login` or set HF_TOKEN"
        if code == "GatedRepo":
            problem = f"the hub refuses this {noun}: it is gated"
            todo = f"accept the terms at {page} with your account, then {login}"
        elif code == "RevisionNotFound" and self.wanted.revision == parquet:
            problem = f"the hub has not converted this {noun} to Parquet"
            todo = f"name its own files by `files:`, as {page}/tree/main lists them"
        elif code == "RevisionNotFound":
            problem, todo = f"a {noun} has no such revision", f"look for it at {page}"
        elif code == "EntryNotFound":
            problem, todo = f"a {noun} lacks a file of its own list", "run this again later"
        elif status == 401 and "credentials" in said:
            problem, todo = "the hub knows no account with this token", login
        elif code == "RepoNotFound" or status in (401, 404):
            problem = f"the hub shows no such {noun}: there is none, or it is private"
            todo = f"mind the spelling; if it is private, {login}"
        else:
            problem = f"the hub refuses this {noun}"
            todo = f"look at {page} with your account, then {login}"
        return self.error(problem, f"{what}: status {status}, {said}".rstrip(", "), todo)

    def strange(self, what: str) -> ZephyrError:
        return self.error(
            "this does not answer as a hub does",
            f"{self.endpoint} gives {what}",
            "mind the sign-in page of your network, a proxy, or HF_ENDPOINT if it is set",
        )

    def error(self, problem: str, found: str, todo: str | None) -> ZephyrError:
        later = "look after the network and run this again: what has been fetched is kept"
        kind = Unreachable if problem in (UNREACHABLE, SILENT) else ZephyrError
        return kind(
            problem, where=self.where, found=f"{self.wanted.repo}, {found}", todo=todo or later
        )


def _file(entry: dict[str, Any]) -> File:
    """A file by its entry in the hub's list."""
    lfs = entry.get("lfs")
    etag = lfs["oid"] if lfs else entry["oid"]
    size = lfs["size"] if lfs else entry["size"]
    if not isinstance(size, int) or size < 0 or not ETAG.fullmatch(etag):
        raise ValueError(entry["path"])
    return File(str(entry["path"]), size, etag if lfs else "", etag)


def _overloaded(response: "httpx2.Response", what: str) -> Passing:
    """The failure that a status of a busy hub is, with the wait that the hub asks for."""
    headers, status = response.headers, response.status_code
    told = re.fullmatch(r"(\d+)", headers.get("Retry-After", ""))
    told = told or re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))
    wait = float(told[1]) if told else None
    todo = f"wait {wait:g} s, then run this again" if wait else "run this again later"
    if status == 429:
        todo += "; who has signed in (`hf auth login`) may ask more often"
    problem = "the hub gets too many requests" if status == 429 else "the hub is out of order"
    return Passing(problem, f"{what}: status {status}", todo, wait)


def _refuse_offline(where: str) -> None:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        value = os.environ.get(variable, "")
        if value.upper() in ("1", "ON", "YES", "TRUE"):
            raise ZephyrError(
                "files of the hub are not here, and the network may not be used",
                where=where,
                found=f"{variable}={value}",
                todo="run `zephyr data fetch RECIPE` where there is a network",
            )
