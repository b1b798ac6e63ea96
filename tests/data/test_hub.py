"""The hub: files come whole or not at all, by the real client's protocol over real HTTP."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from filelock import FileLock

from tests.hub_server import Fault, HubServer
from zephyr.data import hub, hub_client
from zephyr.data.cache import cache_root
from zephyr.data.hub import (
    HubFile,
    HubQuery,
    Snapshot,
    cached_snapshot,
    fetch,
    missing_bytes,
    resolve_snapshot,
    snapshot_paths,
)
from zephyr.errors import ZephyrError

pytestmark = pytest.mark.enable_socket

TRAIN = [b"PAR1" + bytes(range(256)) * 400 + bytes([n]) for n in range(3)]
LINES = b'{"a": "\xc3\xa4"}\n' * 500
PARQUET = {
    **{f"default/train/000{n}.parquet": data for n, data in enumerate(TRAIN)},
    "default/test/0000.parquet": b"PAR1 of the test",
    "big/partial-train/0000.parquet": b"PAR1",
    "big/partial-train/0001.parquet": b"PAR1PAR1",
    "big/test/0000.parquet": b"PAR1 of the big test",
}
MAIN = {
    "README.md": b"# A set\n",
    "data/lines.jsonl": LINES,
    "data/more/lines.jsonl": b"{}\n",
    "data/empty.jsonl": b"",
    "data/half a name+%.jsonl": b"{}",
}
REPO = "org/name"
SET = ("dataset", REPO)
PAGE = f"https://huggingface.co/datasets/{REPO}"
SHARDS = HubQuery(REPO, ("default/train/*.parquet",), "refs/convert/parquet")
ONE = HubQuery(REPO, ("data/lines.jsonl",))
WEIGHTS = HubQuery("org/model", ("*.safetensors", "config.json"), kind="model")
WHERE = "data.sft.goat"
LATER = "look after the network and run this again: what has been fetched is kept"
SHORT = 0.3  # seconds: what a server that answers needs, and more
TOKEN = "hf_a_secret_that_nobody_may_see"


@pytest.fixture
def server() -> Iterator[HubServer]:
    files = {"config.json": b"{}", "model.safetensors": b"weights", "model.bin": b"pickled"}
    repositories = {
        SET: {"main": MAIN, "refs/convert/parquet": PARQUET},
        ("model", "org/model"): {"main": files},
    }
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def naps() -> list[float]:
    """The pauses that were made, none of them for real."""
    return []


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    """The client's connections end with this module."""
    yield
    huggingface_hub.close_session()


@pytest.fixture(autouse=True)
def hub_at(
    server: HubServer, naps: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty cache, and the server in place of the hub."""
    variables = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    for variable in (*variables, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "zephyr"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # the client read its environment when it was imported
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(hub_client.time, "sleep", naps.append)


def bring(wanted: HubQuery) -> Snapshot:
    return fetch(wanted, resolve_snapshot(wanted, WHERE), WHERE)


def contents(wanted: HubQuery, snapshot: Snapshot) -> list[bytes]:
    return [path.read_bytes() for path in snapshot_paths(wanted, snapshot)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def refusal(action: Callable[[], object]) -> list[str]:
    """The lines of the message with which something is refused."""
    with pytest.raises(ZephyrError) as caught:
        action()
    assert TOKEN not in str(caught.value)
    return str(caught.value).splitlines()


# -- what is asked for comes whole ----------------------------------------------------------------


def test_a_snapshot_is_files_of_one_commit(server: HubServer) -> None:
    commit = server.find(*SET, "refs/convert/parquet")[0]
    asked = resolve_snapshot(SHARDS, WHERE)
    assert asked == Snapshot(
        commit,
        tuple(
            HubFile(f"default/train/000{n}.parquet", len(data), sha256(data), sha256(data))
            for n, data in enumerate(TRAIN)
        ),
    )
    assert asked.size == sum(map(len, TRAIN))
    assert [request.path for request in server.requests] == [
        "/api/datasets/org/name/revision/refs/convert/parquet",
        f"/api/datasets/org/name/tree/{commit}",
    ]
    fetched = fetch(SHARDS, asked, WHERE)
    assert fetched == asked
    assert contents(SHARDS, fetched) == TRAIN
    assert server.count(f"/resolve/{commit}/") == server.count("/resolve/") == 3


def test_small_files_are_checked_by_their_git_id() -> None:
    asked = resolve_snapshot(ONE, WHERE)
    assert asked.files == (HubFile("data/lines.jsonl", len(LINES), "", git_id(LINES)),)
    fetched = fetch(ONE, asked, WHERE)
    assert fetched.files[0].sha256 == sha256(LINES)
    assert contents(ONE, fetched) == [LINES]


def test_empty_files_and_odd_names() -> None:
    wanted = HubQuery(REPO, ("data/empty.jsonl", "data/half*"))
    assert contents(wanted, bring(wanted)) == [b"", b"{}"]


def test_models(server: HubServer) -> None:
    """What no pattern names is not touched."""
    snapshot = bring(WEIGHTS)
    assert contents(WEIGHTS, snapshot) == [b"{}", b"weights"]
    assert server.count(".bin") == 0


def test_patterns_go_segment_by_segment() -> None:
    def names(*patterns: str) -> list[str]:
        return [file.path for file in resolve_snapshot(HubQuery(REPO, patterns), WHERE).files]

    assert names("data/l*.jsonl") == ["data/lines.jsonl"]
    assert names("*/*/*") == ["data/more/lines.jsonl"]
    assert names("*") == ["README.md"]
    assert names("data/line?.json*", "data/*s.jsonl", "README.md") == [
        "README.md",
        "data/lines.jsonl",
    ]


def test_long_lists_come_in_pages(server: HubServer) -> None:
    server.page = 2
    assert len(resolve_snapshot(SHARDS, WHERE).files) == 3
    entries = len(PARQUET) + len({"big", "default"}) + 4
    assert server.count("/tree/") == (entries + 1) // 2


def test_a_commit_is_not_resolved(server: HubServer) -> None:
    old = server.find(*SET, "main")[0]
    server.push(*SET, "main", {"data/lines.jsonl": b"new"})
    wanted = HubQuery(REPO, ("data/lines.jsonl",), revision=str(old))
    assert contents(wanted, bring(wanted)) == [LINES]
    assert server.count("/revision/") == 0


def test_progress_and_what_is_missing(server: HubServer) -> None:
    """All bytes are told beforehand, and told again as they come, thrown away ones taken back."""
    snapshot = resolve_snapshot(SHARDS, WHERE)
    assert missing_bytes(SHARDS, snapshot) == snapshot.size
    server.fault("0000.parquet", "corrupt")
    server.fault("0001.parquet", "cut")
    server.fault("0002.parquet", 404)
    told: list[int] = []
    with pytest.raises(ZephyrError):
        fetch(SHARDS, snapshot, WHERE, told.append)
    assert sum(told) == len(TRAIN[0]) + len(TRAIN[1])
    assert min(told) == -len(TRAIN[0])
    assert missing_bytes(SHARDS, snapshot) == len(TRAIN[2])
    told.clear()
    fetch(SHARDS, snapshot, WHERE, told.append)
    assert sum(told) == len(TRAIN[2])
    assert missing_bytes(SHARDS, snapshot) == 0


def test_one_content_under_two_names_is_fetched_once(server: HubServer) -> None:
    server.push(*SET, "main", {"a.parquet": TRAIN[0], "b.parquet": TRAIN[0]})
    wanted = HubQuery(REPO, ("*.parquet",))
    snapshot = resolve_snapshot(wanted, WHERE)
    assert missing_bytes(wanted, snapshot) == len(TRAIN[0])
    assert contents(wanted, fetch(wanted, snapshot, WHERE)) == [TRAIN[0]] * 2
    assert server.count("/resolve/") == 1


# -- the cache is the hub's -----------------------------------------------------------------------


def test_other_tools_find_what_we_fetch(tmp_path: Path) -> None:
    snapshot = bring(ONE)
    cache = tmp_path / "hf" / "hub"
    found = huggingface_hub.hf_hub_download(
        REPO,
        "data/lines.jsonl",
        repo_type="dataset",
        revision=snapshot.commit,
        cache_dir=cache,
        local_files_only=True,
    )
    assert Path(found) == snapshot_paths(ONE, snapshot)[0]
    info = huggingface_hub.scan_cache_dir(cache)
    assert not info.warnings
    [repo] = info.repos
    assert (repo.repo_id, repo.repo_type, repo.size_on_disk) == (REPO, "dataset", len(LINES))


def test_what_other_tools_have_fetched_is_not_fetched_again(
    server: HubServer, tmp_path: Path
) -> None:
    for number in range(3):
        huggingface_hub.hf_hub_download(
            REPO,
            f"default/train/000{number}.parquet",
            repo_type="dataset",
            revision="refs/convert/parquet",
            cache_dir=tmp_path / "hf" / "hub",
            endpoint=server.url,
        )
    server.forget()
    snapshot = resolve_snapshot(SHARDS, WHERE)
    assert missing_bytes(SHARDS, snapshot) == 0
    assert contents(SHARDS, fetch(SHARDS, snapshot, WHERE)) == TRAIN
    assert server.count("/resolve/") == 0


def test_damage_by_other_tools_is_found_and_mended(server: HubServer) -> None:
    """They look at sizes alone."""
    snapshot = bring(SHARDS)
    damaged = snapshot_paths(SHARDS, snapshot)[1].resolve()
    damaged.write_bytes(bytes(len(TRAIN[1])))
    shutil.rmtree(cache_root())
    server.fault("/resolve/", 403)
    with pytest.raises(ZephyrError):
        fetch(SHARDS, snapshot, WHERE)
    assert not damaged.exists()
    damaged.write_bytes(bytes(len(TRAIN[1])))
    server.forget()
    told: list[int] = []
    fetch(SHARDS, snapshot, WHERE, told.append)
    assert contents(SHARDS, snapshot) == TRAIN
    assert server.count("/resolve/") == 1
    assert sum(told) == 0


def test_a_new_commit_fetches_only_what_is_new(server: HubServer) -> None:
    bring(SHARDS)
    changed = {**PARQUET, "default/train/0001.parquet": b"PAR1 anew"}
    server.push(*SET, "refs/convert/parquet", changed)
    server.forget()
    snapshot = bring(SHARDS)
    assert contents(SHARDS, snapshot) == [TRAIN[0], b"PAR1 anew", TRAIN[2]]
    assert server.count("/resolve/") == 1


def test_the_environment_is_read_at_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folders() -> list[Path]:
        return [hub._hub_cache(), cache_root()]

    monkeypatch.setenv("HF_HUB_CACHE", "$HF_HOME/elsewhere")
    monkeypatch.setenv("ZEPHYR_CACHE", "~/z")
    assert folders() == [tmp_path / "hf" / "elsewhere", Path.home() / "z"]
    monkeypatch.delenv("HF_HUB_CACHE")
    assert folders()[0] == tmp_path / "hf" / "hub"
    for variable in ("HF_HOME", "ZEPHYR_CACHE"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert folders() == [Path("/x/huggingface/hub"), Path("/x/zephyr")]
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folders() == [Path.home() / ".cache/huggingface/hub", Path.home() / ".cache/zephyr"]


def test_a_file_system_without_links(monkeypatch: pytest.MonkeyPatch, server: HubServer) -> None:
    def no_links(self: Path, target: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    snapshot = bring(SHARDS)
    assert contents(SHARDS, snapshot) == TRAIN
    assert not any(path.is_symlink() for path in snapshot_paths(SHARDS, snapshot))
    shutil.rmtree(cache_root())
    server.forget()
    assert fetch(SHARDS, snapshot, WHERE) == snapshot
    assert server.requests == []


# -- what is remembered ---------------------------------------------------------------------------


def test_a_second_fetch_asks_nothing(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it read the files again."""
    snapshot = bring(SHARDS)
    server.forget()
    monkeypatch.setattr(hub, "content_sha256", None)
    assert fetch(SHARDS, snapshot, WHERE) == snapshot
    assert server.requests == []


def test_remembered_without_a_network(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cached_snapshot(ONE) is None
    snapshot = bring(ONE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    server.forget()
    assert cached_snapshot(ONE) == snapshot
    assert contents(ONE, snapshot) == [LINES]
    assert server.requests == []


def test_remembered_by_what_was_wanted() -> None:
    bring(ONE)
    for other in (
        HubQuery(REPO, ("data/lines.jsonl", "README.md")),
        HubQuery(REPO, ONE.patterns, revision="v1"),
        HubQuery(REPO, ONE.patterns, kind="model"),
        HubQuery("org/other", ONE.patterns),
    ):
        assert cached_snapshot(other) is None


def test_a_branch_that_moves(server: HubServer) -> None:
    """What is remembered stays until it is fetched anew."""
    old = bring(ONE)
    commit = server.push(*SET, "main", {"data/lines.jsonl": b"moved"})
    assert cached_snapshot(ONE) == old
    new = resolve_snapshot(ONE, WHERE)
    assert new.commit == commit != old.commit
    assert cached_snapshot(ONE) == old
    assert contents(ONE, fetch(ONE, new, WHERE)) == [b"moved"]
    assert cached_snapshot(ONE) == fetch(ONE, new, WHERE)
    assert contents(ONE, old) == [LINES]


def test_what_has_gone_is_not_remembered() -> None:
    snapshot = bring(SHARDS)
    [_, path, _] = snapshot_paths(SHARDS, snapshot)
    kept = path.resolve().read_bytes()
    path.resolve().unlink()
    assert cached_snapshot(SHARDS) is None
    assert missing_bytes(SHARDS, snapshot) == len(TRAIN[1])
    path.resolve().write_bytes(kept[:-1])
    assert cached_snapshot(SHARDS) is None
    path.resolve().write_bytes(kept)
    assert cached_snapshot(SHARDS) == snapshot


@pytest.mark.parametrize("text", ["", "{", "[]", '{"commit": "0"}', '{"commit": 1, "files": [1]}'])
def test_a_broken_memory_is_none(text: str) -> None:
    bring(ONE)
    [memory] = (cache_root() / "hub").iterdir()
    memory.write_text(text)
    assert cached_snapshot(ONE) is None


def test_what_the_memory_says() -> None:
    snapshot = bring(ONE)
    [memory] = (cache_root() / "hub").iterdir()
    assert json.loads(memory.read_text()) == {
        "repo": REPO,
        "patterns": ["data/lines.jsonl"],
        "revision": "main",
        "kind": "dataset",
        "optional": [],
        "commit": snapshot.commit,
        "files": [
            {
                "path": "data/lines.jsonl",
                "size": len(LINES),
                "sha256": sha256(LINES),
                "etag": git_id(LINES),
            }
        ],
    }


def test_killed_between_two_files(server: HubServer) -> None:
    server.fault("0001.parquet", 403)
    snapshot = resolve_snapshot(SHARDS, WHERE)
    with pytest.raises(ZephyrError):
        fetch(SHARDS, snapshot, WHERE)
    assert cached_snapshot(SHARDS) is None
    assert missing_bytes(SHARDS, snapshot) == len(TRAIN[1]) + len(TRAIN[2])
    server.forget()
    assert fetch(SHARDS, snapshot, WHERE) == snapshot == cached_snapshot(SHARDS)
    assert contents(SHARDS, snapshot) == TRAIN
    assert [server.count(f"/resolve/{snapshot.commit}/default/train/000{n}") for n in range(3)] == [
        0,
        1,
        1,
    ]


def test_killed_in_the_midst_of_a_file(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process goes on where the file ends."""
    snapshot = resolve_snapshot(SHARDS, WHERE)
    monkeypatch.setattr(hub_client, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT)
    server.fault("0000.parquet", "stall")
    with pytest.raises(ZephyrError):
        fetch(SHARDS, snapshot, WHERE)
    half = len(TRAIN[0]) // 2
    assert missing_bytes(SHARDS, snapshot) == snapshot.size - half
    told: list[int] = []
    fetch(SHARDS, snapshot, WHERE, told.append)
    assert sum(told) == snapshot.size - half
    assert contents(SHARDS, snapshot) == TRAIN
    assert not list(hub._hub_cache().rglob("*.incomplete"))


# -- mirrors, tokens, and no network --------------------------------------------------------------


def test_a_mirror(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({SET: {"main": {"data/lines.jsonl": b"mirrored"}}}) as mirror:
        monkeypatch.setenv("HF_ENDPOINT", f"{mirror.url}/")
        assert contents(ONE, bring(ONE)) == [b"mirrored"]
    assert server.requests == []


def test_without_a_token_none_is_sent(server: HubServer) -> None:
    bring(SHARDS)
    assert not any(request.authorized for request in server.requests)


@pytest.mark.parametrize("place", ["HF_TOKEN", "file"])
def test_a_token_goes_to_the_hub_alone(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Large files are served from another origin, which is not shown it."""
    if place == "file":
        (tmp_path / "token").write_text(TOKEN)
    else:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.page = 2
    bring(SHARDS)
    assert server.count("") == 1 + 7 + 3 + 3
    for request in server.requests:
        assert request.authorized == request.path.startswith(("/api/", "/datasets/"))


def test_nothing_else_is_asked(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, whatever the client would do of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    bring(ONE)
    assert [request.method for request in server.requests] == ["GET"] * 3
    assert all(REPO in request.path for request in server.requests)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline(server: HubServer, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    snapshot = resolve_snapshot(ONE, WHERE)
    server.forget()
    monkeypatch.setenv(variable, "true")
    for action in (lambda: resolve_snapshot(ONE, WHERE), lambda: fetch(ONE, snapshot, WHERE)):
        assert refusal(action) == [
            "files of the hub are not here, and the network may not be used",
            "  where:   data.sft.goat",
            f"  found:   {variable}=true",
            "  to do:   run `zephyr data fetch RECIPE` where there is a network",
        ]
    assert server.requests == []


def test_importing_stays_quick() -> None:
    code = "import sys, zephyr.data.hub; print(*({'huggingface_hub', 'httpx2'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


# -- failures that pass ---------------------------------------------------------------------------

PASSING: list[Fault] = [408, 429, 500, 502, 503, 504, "hang", "stall", "cut", "short", "corrupt"]


@pytest.mark.parametrize("wanted", [SHARDS, ONE], ids=["large", "small"])
@pytest.mark.parametrize("fault", PASSING)
def test_a_failure_of_a_file_that_passes(
    server: HubServer,
    naps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    wanted: HubQuery,
) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT)
    silent = fault in ("hang", "stall")
    path = "/resolve/" if isinstance(fault, int) else wanted.patterns[0][-8:]
    server.fault(path, fault, count=1 if silent else 2)
    told: list[int] = []
    snapshot = fetch(wanted, resolve_snapshot(wanted, WHERE), WHERE, told.append)
    assert contents(wanted, snapshot) == (TRAIN if wanted is SHARDS else [LINES])
    assert sum(told) == snapshot.size
    assert cached_snapshot(wanted) == snapshot
    # what brings a file further begins to count anew
    assert naps == ([1.0] if silent else [1.0, 1.0] if fault in ("cut", "short") else [1.0, 2.0])


@pytest.mark.parametrize("path", ["/revision/", "/tree/"])
@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, 504, "hang"])
def test_a_failure_of_a_question_that_passes(
    server: HubServer,
    naps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    path: str,
) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT)
    count = 1 if fault == "hang" else 2
    server.fault(path, fault, count=count)
    assert len(resolve_snapshot(SHARDS, WHERE).files) == 3
    assert server.count(path) == count + 1
    assert naps == [1.0, 2.0][:count]


def test_a_list_that_is_cut(server: HubServer, naps: list[float]) -> None:
    server.fault("/tree/", "cut", count=2)
    assert len(resolve_snapshot(SHARDS, WHERE).files) == 3
    assert naps == [1.0, 2.0]


def test_a_download_goes_on_where_it_broke(server: HubServer, naps: list[float]) -> None:
    """As often as it breaks, as long as it gets further."""
    server.fault("0000.parquet", "cut", count=10)
    assert contents(SHARDS, bring(SHARDS)) == TRAIN
    assert naps == [1.0] * 10


def test_a_server_that_knows_no_ranges(server: HubServer, naps: list[float]) -> None:
    """It begins again, and to get as far as before is no step further."""
    server.ranges = False
    server.fault("0000.parquet", "cut", count=2)
    told: list[int] = []
    snapshot = fetch(SHARDS, resolve_snapshot(SHARDS, WHERE), WHERE, told.append)
    assert contents(SHARDS, snapshot) == TRAIN
    assert naps == [1.0, 2.0]
    assert sum(told) == snapshot.size
    shutil.rmtree(hub._hub_cache())
    server.fault("0000.parquet", "cut", count=99)
    with pytest.raises(ZephyrError):
        fetch(SHARDS, snapshot, WHERE)
    assert naps[2:] == [1.0, 2.0]


def test_a_wait_that_the_hub_asks_for(server: HubServer, naps: list[float]) -> None:
    server.fault("/tree/", 429, headers={"Retry-After": "7"})
    server.fault("/tree/", 429, headers={"RateLimit": '"api";r=0;t=55'})
    assert len(resolve_snapshot(SHARDS, WHERE).files) == 3
    assert naps == [7.0, 55.0]


# -- failures that don't --------------------------------------------------------------------------


def test_a_wait_that_is_too_long(server: HubServer, naps: list[float]) -> None:
    server.fault("/resolve/", 429, headers={"Retry-After": "301"})
    assert refusal(lambda: bring(ONE)) == [
        "the hub gets too many requests",
        "  where:   data.sft.goat",
        "  found:   org/name, data/lines.jsonl: status 429",
        (
            "  to do:   wait 301 s, then run this again; "
            "who has signed in (`hf auth login`) may ask more often"
        ),
    ]
    assert naps == []
    assert server.count("/resolve/") == 1


LOGIN = "`hf auth login` or set HF_TOKEN"
GATED = (
    "the hub refuses this data set: it is gated",
    f"accept the terms at {PAGE} with your account, then {LOGIN}",
)
HIDDEN = (
    "the hub shows no such data set: there is none, or it is private",
    f"mind the spelling; if it is private, {LOGIN}",
)
BAD_TOKEN = ("the hub knows no account with this token", LOGIN)
REFUSED = ("the hub refuses this data set", f"look at {PAGE} with your account, then {LOGIN}")
LACKING = ("a data set lacks a file of its own list", "run this again later")


@pytest.mark.parametrize(
    ("path", "status", "code", "said", "expected"),
    [
        ("/resolve/", 403, "GatedRepo", "Access to it is restricted.", GATED),
        ("/tree/", 401, "GatedRepo", "Access to it is restricted.", GATED),
        ("/revision/", 401, "", "Invalid username or password.", HIDDEN),
        ("/revision/", 404, "RepoNotFound", "Repository not found", HIDDEN),
        ("/revision/", 401, "", "Invalid credentials in Authorization header", BAD_TOKEN),
        ("/resolve/", 403, "", "Forbidden", REFUSED),
        ("/resolve/", 410, "", "Gone", REFUSED),
        ("/resolve/", 404, "EntryNotFound", "Entry not found", LACKING),
    ],
)
def test_what_the_hub_refuses_is_said_at_once(
    server: HubServer,
    naps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    status: Fault,
    code: str,
    said: str,
    expected: tuple[str, str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.fault(path, status, headers={"X-Error-Code": code, "X-Error-Message": said})
    what = "data/lines.jsonl" if path == "/resolve/" else "revision main"
    assert refusal(lambda: bring(ONE)) == [
        expected[0],
        "  where:   data.sft.goat",
        f"  found:   org/name, {what}: status {status}, {said}",
        f"  to do:   {expected[1]}",
    ]
    assert naps == []
    assert server.count(path) == 1
    assert cached_snapshot(ONE) is None


def test_no_such_repository_or_revision(server: HubServer) -> None:
    found = refusal(lambda: resolve_snapshot(HubQuery("org/nmae", ("*",)), WHERE))
    assert found[0] == "the hub shows no such data set: there is none, or it is private"
    assert refusal(
        lambda: resolve_snapshot(HubQuery("org/model", ("*",), "v2", "model"), WHERE)
    ) == [
        "a model has no such revision",
        "  where:   data.sft.goat",
        "  found:   org/model, revision v2: status 404, Not Found",
        "  to do:   look for it at https://huggingface.co/org/model",
    ]
    server.push("dataset", "org/young", "main", {})
    assert refusal(
        lambda: resolve_snapshot(HubQuery("org/young", ("*",), "refs/convert/parquet"), WHERE)
    ) == [
        "the hub has not converted this data set to Parquet",
        "  where:   data.sft.goat",
        "  found:   org/young, revision refs/convert/parquet: status 404, Not Found",
        (
            "  to do:   name its own files by `files:`, as "
            "https://huggingface.co/datasets/org/young/tree/main lists them"
        ),
    ]


ENDLESS: list[tuple[Fault, str, str, str]] = [
    (429, "the hub gets too many requests", "status 429", "run this again later; who has signed"),
    (503, "the hub is out of order", "status 503", "run this again later"),
    ("hang", "the hub does not answer", "nothing came from {url} within 0.3 s", LATER),
    ("stall", "the hub does not answer", "nothing came from {url} within 0.3 s", LATER),
    ("cut", "the connection to the hub breaks", "peer closed connection without", LATER),
    ("corrupt", "the hub sends a file with a wrong content", "", "look for what changes it"),
]


@pytest.mark.parametrize(
    ("fault", "problem", "found", "todo"), ENDLESS, ids=lambda value: str(value)[:6]
)
def test_a_failure_of_a_file_that_stays(
    server: HubServer,
    naps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    problem: str,
    found: str,
    todo: str,
) -> None:
    """Three times without a step further; nothing wrong is kept, and it can be mended later."""
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT)
    server.ranges = False
    server.fault("lines.jsonl", fault, count=99)
    start = time.monotonic()
    lines = refusal(lambda: bring(ONE))
    assert time.monotonic() - start < 10 * SHORT
    assert lines[:2] == [problem, "  where:   data.sft.goat"]
    assert lines[2].startswith("  found:   org/name, data/lines.jsonl")
    assert found.format(url=server.url) in lines[2]
    assert lines[3].startswith(f"  to do:   {todo}")
    assert naps == [1.0, 2.0]
    assert server.count("lines.jsonl") == 3
    assert cached_snapshot(ONE) is None
    assert not list(hub._hub_cache().glob("*/snapshots/**/*.jsonl"))
    server.forget()
    server.ranges = True
    assert contents(ONE, bring(ONE)) == [LINES]


def test_a_file_that_is_always_too_short_or_too_long(
    server: HubServer, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a silently short file: the list of files says how long each one is."""
    snapshot = resolve_snapshot(ONE, WHERE)
    [file] = snapshot.files
    server.ranges = False
    longer = Snapshot(snapshot.commit, (file._replace(size=file.size + 2),))
    assert refusal(lambda: fetch(ONE, longer, WHERE)) == [
        "the hub sends a file only in part",
        "  where:   data.sft.goat",
        "  found:   org/name, data/lines.jsonl: 6,000 of 6,002 bytes",
        f"  to do:   {LATER}",
    ]
    shutil.rmtree(hub._hub_cache())
    shorter = Snapshot(snapshot.commit, (file._replace(size=file.size - 2),))
    found = refusal(lambda: fetch(ONE, shorter, WHERE))
    assert found[0] == "the hub sends a file with a wrong content"
    assert not list(hub._hub_cache().rglob(f"{file.etag}*"))


def test_what_is_too_long_is_not_read_to_its_end(server: HubServer) -> None:
    server.push(*SET, "main", {"long.parquet": bytes(9_000_000)})
    wanted = HubQuery(REPO, ("long.parquet",))
    snapshot = resolve_snapshot(wanted, WHERE)
    shorter = Snapshot(snapshot.commit, (snapshot.files[0]._replace(size=9),))
    told: list[int] = []
    found = refusal(lambda: fetch(wanted, shorter, WHERE, told.append))
    assert found[0] == "the hub sends a file with a wrong content"
    assert sum(told) == 0
    assert 0 < sum(n for n in told if n > 0) < 1_000_000


def test_a_hub_that_is_not_there(naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    lines = refusal(lambda: resolve_snapshot(ONE, WHERE))
    assert lines[:2] == ["the hub can't be reached", "  where:   data.sft.goat"]
    assert lines[2].startswith(f"  found:   org/name, {url}: ")
    assert lines[2].endswith("Connection refused")
    assert lines[3] == f"  to do:   {LATER}"
    assert naps == [1.0, 2.0]


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://hub", "http://hub:port"])
def test_an_endpoint_that_is_no_address(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert refusal(lambda: resolve_snapshot(ONE, WHERE)) == [
        "HF_ENDPOINT is not an address of a hub",
        "  where:   data.sft.goat",
        f"  found:   org/name, {endpoint}",
        "  to do:   set it to https://huggingface.co",
    ]


@pytest.mark.parametrize("path", ["/revision/", "/tree/"])
def test_an_answer_that_is_no_hub_s(server: HubServer, naps: list[float], path: str) -> None:
    server.fault(path, "nonsense")
    assert refusal(lambda: resolve_snapshot(ONE, WHERE)) == [
        "this does not answer as a hub does",
        "  where:   data.sft.goat",
        f"  found:   org/name, {server.url} gives what is not JSON",
        "  to do:   mind the sign-in page of your network, a proxy, or HF_ENDPOINT if it is set",
    ]
    assert naps == []


@pytest.mark.parametrize("answer", [[], {}, {"sha": None}, {"sha": "../x"}, {"sha": ["0" * 40]}])
def test_facts_of_no_known_form(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client.HubClient, "get_json", lambda self, path: (answer, ""))
    assert refusal(lambda: resolve_snapshot(ONE, WHERE))[0] == "this does not answer as a hub does"


@pytest.mark.parametrize(
    "entry",
    [
        {"size": -1},
        {"size": "7"},
        {"oid": "../../x"},
        {"oid": None},
        {"lfs": {"oid": "x", "size": 7}},
        {"lfs": "x"},
    ],
)
def test_lists_of_no_known_form(entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    page = [{"type": "file", "path": "a", "size": 7, "oid": "0" * 40, **entry}]
    monkeypatch.setattr(hub_client.HubClient, "get_json", lambda self, path: (page, ""))
    wanted = HubQuery(REPO, ("a",), revision="0" * 40)
    assert (
        refusal(lambda: resolve_snapshot(wanted, WHERE))[0] == "this does not answer as a hub does"
    )


# -- what is wanted is not there, or only in part -------------------------------------------------


def test_a_pattern_that_matches_nothing() -> None:
    wanted = HubQuery(REPO, ("data/lines.jsonl", "data/*.jsnol"))
    assert refusal(lambda: resolve_snapshot(wanted, WHERE)) == [
        "no file of this data set matches a pattern",
        "  where:   data.sft.goat",
        "  found:   'data/*.jsnol' in org/name, revision main",
        "  nearest: data/empty.jsonl, data/more/lines.jsonl, README.md",
        f"  to do:   name files that are there: {PAGE}/tree/main",
    ]
    split = HubQuery(REPO, ("default/validation/*.parquet",), "refs/convert/parquet")
    found = refusal(lambda: resolve_snapshot(split, WHERE))
    assert found[3] == (
        "  nearest: default/train/0000.parquet, default/test/0000.parquet, "
        "big/partial-train/0000.parquet, big/test/0000.parquet"
    )
    assert found[4].endswith("/tree/refs%2Fconvert%2Fparquet")


def test_an_empty_repository(server: HubServer) -> None:
    server.push(*SET, "main", {})
    assert refusal(lambda: resolve_snapshot(ONE, WHERE))[3] == "  nearest: (it holds no files)"


@pytest.mark.parametrize("pattern", ["big/train/*.parquet", "big/*/*.parquet", "*/*/*", "big/p*/*"])
def test_a_part_is_not_taken_for_the_whole(pattern: str) -> None:
    wanted = HubQuery(REPO, ("default/test/*", pattern), "refs/convert/parquet")
    assert refusal(lambda: resolve_snapshot(wanted, WHERE)) == [
        "the hub has converted only the beginning of this data set to Parquet",
        "  where:   data.sft.goat",
        "  found:   org/name: big/partial-train, 2 files",
        f"  to do:   name its own files by `files:`, as {PAGE}/tree/main lists them",
    ]


def test_a_part_by_its_name_is_meant() -> None:
    wanted = HubQuery(REPO, ("big/partial-train/*", "big/test/*"), "refs/convert/parquet")
    assert len(resolve_snapshot(wanted, WHERE).files) == 3


@pytest.mark.parametrize("repo", ["", "a/b/c", "../x", "a/..", "a--b/c", "a b", "a/b?x=1", "-a\n"])
def test_names_of_no_repository(server: HubServer, repo: str) -> None:
    assert refusal(lambda: resolve_snapshot(HubQuery(repo, ("*",)), WHERE)) == [
        "this is not the name of a repository of the hub",
        "  where:   data.sft.goat",
        f"  found:   {repo!r}",
        "  allowed: organization/name",
    ]
    assert server.requests == []


# -- a server is not trusted ----------------------------------------------------------------------

HOSTILE = ["../evil", "a/../../evil", "/evil", "a//evil", "a/./evil", "a\\evil", "a/evil\x1b[2J"]


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_paths(server: HubServer, path: str) -> None:
    server.push(*SET, "main", {path: b"evil"})
    wanted = HubQuery(REPO, ("/".join("*" for _ in path.split("/")),))
    expected = [
        "the hub names a file by a path that is not safe",
        f"  found:   {path!r}",
    ]
    assert refusal(lambda: resolve_snapshot(wanted, WHERE)) == expected
    snapshot = Snapshot("0" * 40, (HubFile(path, 4, "", git_id(b"evil")),))
    for function in (snapshot_paths, missing_bytes):
        assert refusal(lambda function=function: function(wanted, snapshot)) == expected
    assert refusal(lambda: fetch(wanted, snapshot, WHERE)) == expected


def test_hostile_commits_and_names_of_contents(tmp_path: Path) -> None:
    file = HubFile("a", 4, "", git_id(b"evil"))
    for snapshot in (
        Snapshot("../../../x", (file,)),
        Snapshot("0" * 40, (file._replace(etag="../../../x"),)),
    ):
        found = refusal(lambda snapshot=snapshot: fetch(ONE, snapshot, WHERE))
        assert found[1] == "  found:   '../../../x'"
    assert {path.name for path in tmp_path.iterdir()} <= {"hf", "zephyr"}


@pytest.mark.parametrize("link", ["snapshots", "blobs", "file"])
def test_links_out_of_the_cache(tmp_path: Path, link: str) -> None:
    snapshot = bring(ONE)
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = hub._hub_cache() / "datasets--org--name"
    if link == "file":
        [path] = snapshot_paths(ONE, snapshot)
        path.unlink()
        (outside / "x").write_bytes(LINES)
        path.symlink_to(outside / "x")
    else:
        shutil.rmtree(folder / link)
        (folder / link).symlink_to(outside)
    found = refusal(lambda: fetch(ONE, snapshot, WHERE))
    assert found[0] == "a link leads out of the hub's cache"
    assert [path.name for path in outside.iterdir()] == (["x"] if link == "file" else [])


def test_a_cache_that_is_a_link_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "linked").symlink_to("disk")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "linked"))
    assert contents(ONE, bring(ONE)) == [LINES]


# -- disks and neighbours -------------------------------------------------------------------------


def test_another_process_is_fetching() -> None:
    snapshot = resolve_snapshot(ONE, WHERE)
    lock = hub._hub_cache() / ".locks" / "datasets--org--name" / "zephyr.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert refusal(lambda: fetch(ONE, snapshot, WHERE)) == [
            "another process is fetching from this repository",
            "  where:   data.sft.goat",
            "  found:   org/name",
            "  to do:   wait until it ends, then run this again",
        ]
    assert contents(ONE, fetch(ONE, snapshot, WHERE)) == [LINES]


@pytest.mark.parametrize("variable", ["HF_HOME", "ZEPHYR_CACHE"])
def test_places_that_can_t_be_written_to(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = resolve_snapshot(ONE, WHERE)
    root = Path(os.environ[variable])
    make = Path.mkdir

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.is_relative_to(root):
            raise PermissionError(13, "Permission denied")  # root may write everywhere
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    lines = refusal(lambda: fetch(ONE, snapshot, WHERE))
    assert lines[0] == "this place can't be written to"
    assert lines[1].startswith(f"  where:   {root}")
    assert lines[2] == f"  to do:   set {variable} to a folder that can be"


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert refusal(lambda: bring(ONE))[0] == "the disk is full"
    assert cached_snapshot(ONE) is None
