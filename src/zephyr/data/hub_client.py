"""HTTP client of the Hugging Face hub: lists and streams files, with retries and timeouts.

Transient failures (rate limit, broken connection, timeout) are retried; all others, and those that
persist, raise `ZephyrError`. The token is sent to the endpoint only.
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

HUB_URL = "https://huggingface.co"
TIMEOUT = 10.0  # seconds without a byte after which a request has failed
MAX_ATTEMPTS = 3  # in a row without progress (no byte more than at the first)
RETRY_DELAY = 1.0  # seconds after the first failure; twice as many after each further one
MAX_RETRY_DELAY = 60.0  # seconds that a server may ask us to wait
UNREACHABLE = "the hub can't be reached"
NO_RESPONSE = "the hub does not answer"
_NO_SUCH = "the hub shows no such"
RETRYABLE_STATUSES = (408, 429, 500, 502, 503, 504)  # HTTP statuses of transient failures

COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}")
ETAG_PATTERN = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REPO_PATTERN = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True)
class HubQuery:
    """A query for files of a hub repository: path patterns, in which `*` and `?` don't match "/".

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
    def web_url(self) -> str:
        """The web page of the repository."""
        return f"{HUB_URL}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


class HubFile(NamedTuple):
    """A file of a hub repository at a commit: path, size, SHA-256 and etag.

    `sha256` is "" until it is known. `etag` is the hub's name for the content: its SHA-256 for a
    large file (LFS), else git's blob id.
    """

    path: str
    size: int
    sha256: str
    etag: str


class HubUnreachableError(ZephyrError):
    """The hub can't be reached: every other request to it would fail in the same way."""


class NotOnHubError(ZephyrError):
    """The hub, or a mirror of it, shows no such repository."""


class TransientHubError(Exception):
    """A transient failure, to be retried; `retry_after` are the seconds the hub asks to wait."""

    def __init__(
        self, problem: str, found: str, todo: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(problem)
        self.problem, self.found, self.todo, self.retry_after = problem, found, todo, retry_after


class HubClient:
    """Client of one hub repository; failures are raised as `ZephyrError`."""

    def __init__(self, query: HubQuery, where: str) -> None:
        _check_online(where)
        if not REPO_PATTERN.fullmatch(query.repo) or re.search(r"--|\.\.", query.repo):
            raise ZephyrError(
                "this is not the name of a repository of the hub",
                where=where,
                found=repr(query.repo),
                allowed="organization/name",
            )
        from huggingface_hub import get_token

        self.query, self.where = query, where
        self.endpoint = (os.environ.get("HF_ENDPOINT") or HUB_URL).rstrip("/")
        # not by `build_hf_headers`, which may ask the hub what to say about this machine
        self.headers = {
            "User-Agent": f"zephyr/{zephyr.__version__}",
            "Accept-Encoding": "identity",  # a file's bytes are counted as they come
        }
        if token := get_token():
            self.headers["Authorization"] = f"Bearer {token}"

    def resolve_commit(self) -> str:
        """Resolves the revision (branch or tag) to its current commit."""
        info, _ = self.get_json(f"revision/{quote(self.query.revision, safe='')}")
        commit = info.get("sha") if isinstance(info, dict) else None
        if not isinstance(commit, str) or not COMMIT_PATTERN.fullmatch(commit):
            raise self.unexpected_response_error(f"the commit {commit!r}")
        return commit

    def list_files(self, commit: str) -> list[HubFile]:
        """Lists all files of a commit."""
        files: list[HubFile] = []
        cursor = ""
        while True:
            page, next_query = self.get_json(f"tree/{commit}?recursive=true{cursor}")
            try:
                files += [_parse_file(entry) for entry in page if entry["type"] == "file"]
            except (KeyError, TypeError, ValueError) as error:
                raise self.unexpected_response_error(f"a list of files with {error!r}") from error
            if not next_query:
                return files
            # only the cursor is used: a mirror may link to the hub, and the token must not go there
            cursor = "".join(f"&cursor={quote(c)}" for c in parse_qs(next_query).get("cursor", ()))

    def get_json(self, path: str) -> tuple[Any, str]:
        """Gets a JSON response of the hub's API, and the query of the next page, if any."""
        address = f"{self.endpoint}/api/{self.query.kind}s/{self.query.repo}/{path}"

        def attempt() -> tuple[Any, str]:
            with self.get(address, f"revision {self.query.revision}") as response:
                next_url = response.links.get("next", {}).get("url", "")
                return json.loads(response.read()), urlsplit(next_url).query

        try:
            return self.retry(attempt)
        except (ValueError, RecursionError) as error:
            raise self.unexpected_response_error("what is not JSON") from error

    def retry(self, attempt: Callable[[], T], bytes_received: Callable[[], int] = lambda: 0) -> T:
        """Retries on transient failures, with backoff; the count restarts after any progress."""
        failures, most_bytes = 0, bytes_received()
        while True:
            try:
                return attempt()
            except TransientHubError as failure:
                failures = failures + 1 if bytes_received() <= most_bytes else 1
                most_bytes = max(most_bytes, bytes_received())
                delay = (
                    failure.retry_after
                    if failure.retry_after is not None
                    else RETRY_DELAY * 2 ** (failures - 1)
                )
                if failures >= MAX_ATTEMPTS or delay > MAX_RETRY_DELAY:
                    raise self.make_error(failure.problem, failure.found, failure.todo) from failure
            time.sleep(delay)

    @contextmanager
    def get(self, address: str, what: str, start: int = 0) -> Iterator["httpx2.Response"]:
        """Streams the response to a GET request, from a byte on; its body may be read within.

        Raises:
            TransientHubError: it fails in a way to be retried, now or while the body is read.
            ZephyrError: it fails otherwise.
        """
        import httpx2
        from huggingface_hub import get_session

        headers = {**self.headers, "Range": f"bytes={start}-"} if start else self.headers
        try:
            with get_session().stream("GET", address, headers=headers, timeout=TIMEOUT) as response:
                status = response.status_code
                if status in RETRYABLE_STATUSES:
                    raise _overload_error(response, what)
                if status not in (200, 206):
                    raise self.refusal_error(response, what)
                yield response
        except httpx2.TimeoutException as error:
            found = f"{what}: nothing came from {self.endpoint} within {TIMEOUT:g} s"
            raise TransientHubError(NO_RESPONSE, found) from error
        except httpx2.ConnectError as error:
            raise TransientHubError(UNREACHABLE, f"{self.endpoint}: {error}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise self.make_error(
                "HF_ENDPOINT is not an address of a hub", self.endpoint, f"set it to {HUB_URL}"
            ) from error
        except httpx2.RequestError as error:
            raise TransientHubError(
                "the connection to the hub breaks", f"{what}: {error}"
            ) from error

    def refusal_error(self, response: "httpx2.Response", what: str) -> ZephyrError:
        """The error for a refused request, explained by its status and the hub's error code."""
        noun, page, parquet = self.query.noun, self.query.web_url, "refs/convert/parquet"
        code, status = response.headers.get("X-Error-Code"), response.status_code
        message = response.headers.get("X-Error-Message", "")
        login = "`hf auth login` or set HF_TOKEN"
        if code == "GatedRepo":
            problem = f"the hub refuses this {noun}: it is gated"
            todo = f"accept the terms at {page} with your account, then {login}"
        elif code == "RevisionNotFound" and self.query.revision == parquet:
            problem = f"the hub has not converted this {noun} to Parquet"
            todo = f"name its own files by `files:`, as {page}/tree/main lists them"
        elif code == "RevisionNotFound":
            problem, todo = f"a {noun} has no such revision", f"look for it at {page}"
        elif code == "EntryNotFound":
            problem, todo = f"a {noun} lacks a file of its own list", "run this again later"
        elif status == 401 and "credentials" in message:
            problem, todo = "the hub knows no account with this token", login
        elif code == "RepoNotFound" or status in (401, 404):
            problem = f"{_NO_SUCH} {noun}: there is none, or it is private"
            todo = f"mind the spelling; if it is private, {login}"
        else:
            problem = f"the hub refuses this {noun}"
            todo = f"look at {page} with your account, then {login}"
        return self.make_error(problem, f"{what}: status {status}, {message}".rstrip(", "), todo)

    def unexpected_response_error(self, what: str) -> ZephyrError:
        """The error for a response that is not from a hub (a proxy, or a sign-in page)."""
        return self.make_error(
            "this does not answer as a hub does",
            f"{self.endpoint} gives {what}",
            "mind the sign-in page of your network, a proxy, or HF_ENDPOINT if it is set",
        )

    def make_error(self, problem: str, found: str, todo: str | None) -> ZephyrError:
        """A `ZephyrError` about the repository of this client."""
        default_todo = "look after the network and run this again: what has been fetched is kept"
        error_class: type[ZephyrError] = ZephyrError
        if problem in (UNREACHABLE, NO_RESPONSE):
            error_class = HubUnreachableError
        elif problem.startswith(_NO_SUCH):
            error_class = NotOnHubError
        return error_class(
            problem,
            where=self.where,
            found=f"{self.query.repo}, {found}",
            todo=todo or default_todo,
        )


def _parse_file(entry: dict[str, Any]) -> HubFile:
    """Parses a file's entry in the hub's list."""
    lfs = entry.get("lfs")
    etag = lfs["oid"] if lfs else entry["oid"]
    size = lfs["size"] if lfs else entry["size"]
    if not isinstance(size, int) or size < 0 or not ETAG_PATTERN.fullmatch(etag):
        raise ValueError(entry["path"])
    return HubFile(str(entry["path"]), size, etag if lfs else "", etag)


def _overload_error(response: "httpx2.Response", what: str) -> TransientHubError:
    """The transient error of an overloaded hub (429, 503), with its Retry-After."""
    headers, status = response.headers, response.status_code
    retry_after = re.fullmatch(r"(\d+)", headers.get("Retry-After", ""))
    retry_after = retry_after or re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))
    delay = float(retry_after[1]) if retry_after else None
    todo = f"wait {delay:g} s, then run this again" if delay else "run this again later"
    if status == 429:
        todo += "; who has signed in (`hf auth login`) may ask more often"
    problem = "the hub gets too many requests" if status == 429 else "the hub is out of order"
    return TransientHubError(problem, f"{what}: status {status}", todo, delay)


def _check_online(where: str) -> None:
    """Raises an error if the environment sets offline mode (HF_HUB_OFFLINE)."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        value = os.environ.get(variable, "")
        if value.upper() in ("1", "ON", "YES", "TRUE"):
            raise ZephyrError(
                "files of the hub are not here, and the network may not be used",
                where=where,
                found=f"{variable}={value}",
                todo="run `zephyr data fetch RECIPE` where there is a network",
            )
