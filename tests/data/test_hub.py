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
    download_snapshot,
    missing_bytes,
    resolve_snapshot,
    snapshot_paths,
)
from zephyr.errors import ZephyrError

pytestmark = pytest.mark.enable_socket

TRAIN_SHARDS = [b"PAR1" + bytes(range(256)) * 400 + bytes([n]) for n in range(3)]
LINES = b'{"a": "\xc3\xa4"}\n' * 500
PARQUET_FILES = {
    **{f"default/train/000{n}.parquet": data for n, data in enumerate(TRAIN_SHARDS)},
    "default/test/0000.parquet": b"PAR1 of the test",
    "big/partial-train/0000.parquet": b"PAR1",
    "big/partial-train/0001.parquet": b"PAR1PAR1",
    "big/test/0000.parquet": b"PAR1 of the big test",
}
MAIN_FILES = {
    "README.md": b"# A set\n",
    "data/lines.jsonl": LINES,
    "data/more/lines.jsonl": b"{}\n",
    "data/empty.jsonl": b"",
    "data/half a name+%.jsonl": b"{}",
}
REPO = "org/name"
DATASET = ("dataset", REPO)
DATASET_PAGE = f"https://huggingface.co/datasets/{REPO}"
TRAIN_QUERY = HubQuery(REPO, ("default/train/*.parquet",), "refs/convert/parquet")
LINES_QUERY = HubQuery(REPO, ("data/lines.jsonl",))
WEIGHTS_QUERY = HubQuery("org/model", ("*.safetensors", "config.json"), kind="model")
WHERE = "data.sft.goat"
RETRY_HINT = "look after the network and run this again: what has been fetched is kept"
SHORT_TIMEOUT = 0.3  # seconds: what a server that answers needs, and more
TOKEN = "hf_a_secret_that_nobody_may_see"


@pytest.fixture
def server() -> Iterator[HubServer]:
    files = {"config.json": b"{}", "model.safetensors": b"weights", "model.bin": b"pickled"}
    repositories = {
        DATASET: {"main": MAIN_FILES, "refs/convert/parquet": PARQUET_FILES},
        ("model", "org/model"): {"main": files},
    }
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def retry_delays() -> list[float]:
    """The delays before retries, none of them waited for."""
    return []


@pytest.fixture(autouse=True, scope="module")
def close_http_session() -> Iterator[None]:
    """The client's connections end with this module."""
    yield
    huggingface_hub.close_session()


@pytest.fixture(autouse=True)
def use_test_hub(
    server: HubServer, retry_delays: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr(hub_client.time, "sleep", retry_delays.append)


def resolve_and_fetch(query: HubQuery) -> Snapshot:
    return download_snapshot(query, resolve_snapshot(query, WHERE), WHERE)


def read_snapshot(query: HubQuery, snapshot: Snapshot) -> list[bytes]:
    return [path.read_bytes() for path in snapshot_paths(query, snapshot)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def error_lines(action: Callable[[], object]) -> list[str]:
    """The lines of the message with which something is refused."""
    with pytest.raises(ZephyrError) as caught:
        action()
    assert TOKEN not in str(caught.value)
    return str(caught.value).splitlines()


# -- what is asked for comes whole ----------------------------------------------------------------


def test_a_snapshot_is_files_of_one_commit(server: HubServer) -> None:
    commit = server.find_commit(*DATASET, "refs/convert/parquet")[0]
    snapshot = resolve_snapshot(TRAIN_QUERY, WHERE)
    assert snapshot == Snapshot(
        commit,
        tuple(
            HubFile(f"default/train/000{n}.parquet", len(data), sha256(data), sha256(data))
            for n, data in enumerate(TRAIN_SHARDS)
        ),
    )
    assert snapshot.size == sum(map(len, TRAIN_SHARDS))
    assert [request.path for request in server.requests] == [
        "/api/datasets/org/name/revision/refs/convert/parquet",
        f"/api/datasets/org/name/tree/{commit}",
    ]
    fetched = download_snapshot(TRAIN_QUERY, snapshot, WHERE)
    assert fetched == snapshot
    assert read_snapshot(TRAIN_QUERY, fetched) == TRAIN_SHARDS
    assert server.count_requests(f"/resolve/{commit}/") == server.count_requests("/resolve/") == 3


def test_small_files_are_checked_by_their_git_id() -> None:
    snapshot = resolve_snapshot(LINES_QUERY, WHERE)
    assert snapshot.files == (HubFile("data/lines.jsonl", len(LINES), "", git_id(LINES)),)
    fetched = download_snapshot(LINES_QUERY, snapshot, WHERE)
    assert fetched.files[0].sha256 == sha256(LINES)
    assert read_snapshot(LINES_QUERY, fetched) == [LINES]


def test_empty_files_and_odd_names() -> None:
    query = HubQuery(REPO, ("data/empty.jsonl", "data/half*"))
    assert read_snapshot(query, resolve_and_fetch(query)) == [b"", b"{}"]


def test_models(server: HubServer) -> None:
    """What no pattern names is not touched."""
    snapshot = resolve_and_fetch(WEIGHTS_QUERY)
    assert read_snapshot(WEIGHTS_QUERY, snapshot) == [b"{}", b"weights"]
    assert server.count_requests(".bin") == 0


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
    server.page_size = 2
    assert len(resolve_snapshot(TRAIN_QUERY, WHERE).files) == 3
    entries = len(PARQUET_FILES) + len({"big", "default"}) + 4
    assert server.count_requests("/tree/") == (entries + 1) // 2


def test_a_commit_is_not_resolved(server: HubServer) -> None:
    old = server.find_commit(*DATASET, "main")[0]
    server.push(*DATASET, "main", {"data/lines.jsonl": b"new"})
    query = HubQuery(REPO, ("data/lines.jsonl",), revision=str(old))
    assert read_snapshot(query, resolve_and_fetch(query)) == [LINES]
    assert server.count_requests("/revision/") == 0


def test_progress_and_what_is_missing(server: HubServer) -> None:
    """All bytes are counted beforehand, and reported as they come, less those thrown away."""
    snapshot = resolve_snapshot(TRAIN_QUERY, WHERE)
    assert missing_bytes(TRAIN_QUERY, snapshot) == snapshot.size
    server.add_fault("0000.parquet", "corrupt")
    server.add_fault("0001.parquet", "cut")
    server.add_fault("0002.parquet", 404)
    progress: list[int] = []
    with pytest.raises(ZephyrError):
        download_snapshot(TRAIN_QUERY, snapshot, WHERE, progress.append)
    assert sum(progress) == len(TRAIN_SHARDS[0]) + len(TRAIN_SHARDS[1])
    assert min(progress) == -len(TRAIN_SHARDS[0])
    assert missing_bytes(TRAIN_QUERY, snapshot) == len(TRAIN_SHARDS[2])
    progress.clear()
    download_snapshot(TRAIN_QUERY, snapshot, WHERE, progress.append)
    assert sum(progress) == len(TRAIN_SHARDS[2])
    assert missing_bytes(TRAIN_QUERY, snapshot) == 0


def test_one_content_under_two_names_is_fetched_once(server: HubServer) -> None:
    server.push(*DATASET, "main", {"a.parquet": TRAIN_SHARDS[0], "b.parquet": TRAIN_SHARDS[0]})
    query = HubQuery(REPO, ("*.parquet",))
    snapshot = resolve_snapshot(query, WHERE)
    assert missing_bytes(query, snapshot) == len(TRAIN_SHARDS[0])
    assert read_snapshot(query, download_snapshot(query, snapshot, WHERE)) == [TRAIN_SHARDS[0]] * 2
    assert server.count_requests("/resolve/") == 1


# -- the cache is the hub's -----------------------------------------------------------------------


def test_other_tools_find_what_we_fetch(tmp_path: Path) -> None:
    snapshot = resolve_and_fetch(LINES_QUERY)
    cache = tmp_path / "hf" / "hub"
    found = huggingface_hub.hf_hub_download(
        REPO,
        "data/lines.jsonl",
        repo_type="dataset",
        revision=snapshot.commit,
        cache_dir=cache,
        local_files_only=True,
    )
    assert Path(found) == snapshot_paths(LINES_QUERY, snapshot)[0]
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
    server.reset()
    snapshot = resolve_snapshot(TRAIN_QUERY, WHERE)
    assert missing_bytes(TRAIN_QUERY, snapshot) == 0
    assert (
        read_snapshot(TRAIN_QUERY, download_snapshot(TRAIN_QUERY, snapshot, WHERE)) == TRAIN_SHARDS
    )
    assert server.count_requests("/resolve/") == 0


def test_corruption_by_other_tools_is_found_and_mended(server: HubServer) -> None:
    """They look at sizes alone."""
    snapshot = resolve_and_fetch(TRAIN_QUERY)
    corrupted = snapshot_paths(TRAIN_QUERY, snapshot)[1].resolve()
    corrupted.write_bytes(bytes(len(TRAIN_SHARDS[1])))
    shutil.rmtree(cache_root())
    server.add_fault("/resolve/", 403)
    with pytest.raises(ZephyrError):
        download_snapshot(TRAIN_QUERY, snapshot, WHERE)
    assert not corrupted.exists()
    corrupted.write_bytes(bytes(len(TRAIN_SHARDS[1])))
    server.reset()
    progress: list[int] = []
    download_snapshot(TRAIN_QUERY, snapshot, WHERE, progress.append)
    assert read_snapshot(TRAIN_QUERY, snapshot) == TRAIN_SHARDS
    assert server.count_requests("/resolve/") == 1
    assert sum(progress) == 0


def test_a_new_commit_fetches_only_what_is_new(server: HubServer) -> None:
    resolve_and_fetch(TRAIN_QUERY)
    changed = {**PARQUET_FILES, "default/train/0001.parquet": b"PAR1 anew"}
    server.push(*DATASET, "refs/convert/parquet", changed)
    server.reset()
    snapshot = resolve_and_fetch(TRAIN_QUERY)
    assert read_snapshot(TRAIN_QUERY, snapshot) == [TRAIN_SHARDS[0], b"PAR1 anew", TRAIN_SHARDS[2]]
    assert server.count_requests("/resolve/") == 1


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
    snapshot = resolve_and_fetch(TRAIN_QUERY)
    assert read_snapshot(TRAIN_QUERY, snapshot) == TRAIN_SHARDS
    assert not any(path.is_symlink() for path in snapshot_paths(TRAIN_QUERY, snapshot))
    shutil.rmtree(cache_root())
    server.reset()
    assert download_snapshot(TRAIN_QUERY, snapshot, WHERE) == snapshot
    assert server.requests == []


# -- what is remembered ---------------------------------------------------------------------------


def test_a_second_fetch_asks_nothing(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it read the files again."""
    snapshot = resolve_and_fetch(TRAIN_QUERY)
    server.reset()
    monkeypatch.setattr(hub, "content_sha256", None)
    assert download_snapshot(TRAIN_QUERY, snapshot, WHERE) == snapshot
    assert server.requests == []


def test_remembered_without_a_network(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cached_snapshot(LINES_QUERY) is None
    snapshot = resolve_and_fetch(LINES_QUERY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    server.reset()
    assert cached_snapshot(LINES_QUERY) == snapshot
    assert read_snapshot(LINES_QUERY, snapshot) == [LINES]
    assert server.requests == []


def test_remembered_by_what_was_wanted() -> None:
    resolve_and_fetch(LINES_QUERY)
    for other in (
        HubQuery(REPO, ("data/lines.jsonl", "README.md")),
        HubQuery(REPO, LINES_QUERY.patterns, revision="v1"),
        HubQuery(REPO, LINES_QUERY.patterns, kind="model"),
        HubQuery("org/other", LINES_QUERY.patterns),
    ):
        assert cached_snapshot(other) is None


def test_a_branch_that_moves(server: HubServer) -> None:
    """What is remembered stays until it is fetched anew."""
    old = resolve_and_fetch(LINES_QUERY)
    commit = server.push(*DATASET, "main", {"data/lines.jsonl": b"moved"})
    assert cached_snapshot(LINES_QUERY) == old
    new = resolve_snapshot(LINES_QUERY, WHERE)
    assert new.commit == commit != old.commit
    assert cached_snapshot(LINES_QUERY) == old
    assert read_snapshot(LINES_QUERY, download_snapshot(LINES_QUERY, new, WHERE)) == [b"moved"]
    assert cached_snapshot(LINES_QUERY) == download_snapshot(LINES_QUERY, new, WHERE)
    assert read_snapshot(LINES_QUERY, old) == [LINES]


def test_what_has_gone_is_not_remembered() -> None:
    snapshot = resolve_and_fetch(TRAIN_QUERY)
    [_, path, _] = snapshot_paths(TRAIN_QUERY, snapshot)
    content = path.resolve().read_bytes()
    path.resolve().unlink()
    assert cached_snapshot(TRAIN_QUERY) is None
    assert missing_bytes(TRAIN_QUERY, snapshot) == len(TRAIN_SHARDS[1])
    path.resolve().write_bytes(content[:-1])
    assert cached_snapshot(TRAIN_QUERY) is None
    path.resolve().write_bytes(content)
    assert cached_snapshot(TRAIN_QUERY) == snapshot


@pytest.mark.parametrize("text", ["", "{", "[]", '{"commit": "0"}', '{"commit": 1, "files": [1]}'])
def test_a_broken_cache_entry_is_none(text: str) -> None:
    resolve_and_fetch(LINES_QUERY)
    [entry] = (cache_root() / "hub").iterdir()
    entry.write_text(text)
    assert cached_snapshot(LINES_QUERY) is None


def test_what_a_cache_entry_holds() -> None:
    snapshot = resolve_and_fetch(LINES_QUERY)
    [entry] = (cache_root() / "hub").iterdir()
    assert json.loads(entry.read_text()) == {
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
    server.add_fault("0001.parquet", 403)
    snapshot = resolve_snapshot(TRAIN_QUERY, WHERE)
    with pytest.raises(ZephyrError):
        download_snapshot(TRAIN_QUERY, snapshot, WHERE)
    assert cached_snapshot(TRAIN_QUERY) is None
    assert missing_bytes(TRAIN_QUERY, snapshot) == len(TRAIN_SHARDS[1]) + len(TRAIN_SHARDS[2])
    server.reset()
    assert (
        download_snapshot(TRAIN_QUERY, snapshot, WHERE) == snapshot == cached_snapshot(TRAIN_QUERY)
    )
    assert read_snapshot(TRAIN_QUERY, snapshot) == TRAIN_SHARDS
    assert [
        server.count_requests(f"/resolve/{snapshot.commit}/default/train/000{n}") for n in range(3)
    ] == [
        0,
        1,
        1,
    ]


def test_killed_in_the_midst_of_a_file(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process goes on where the file ends."""
    snapshot = resolve_snapshot(TRAIN_QUERY, WHERE)
    monkeypatch.setattr(hub_client, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT_TIMEOUT)
    server.add_fault("0000.parquet", "stall")
    with pytest.raises(ZephyrError):
        download_snapshot(TRAIN_QUERY, snapshot, WHERE)
    half = len(TRAIN_SHARDS[0]) // 2
    assert missing_bytes(TRAIN_QUERY, snapshot) == snapshot.size - half
    progress: list[int] = []
    download_snapshot(TRAIN_QUERY, snapshot, WHERE, progress.append)
    assert sum(progress) == snapshot.size - half
    assert read_snapshot(TRAIN_QUERY, snapshot) == TRAIN_SHARDS
    assert not list(hub._hub_cache().rglob("*.incomplete"))


# -- mirrors, tokens, and no network --------------------------------------------------------------


def test_a_mirror(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({DATASET: {"main": {"data/lines.jsonl": b"mirrored"}}}) as mirror:
        monkeypatch.setenv("HF_ENDPOINT", f"{mirror.url}/")
        assert read_snapshot(LINES_QUERY, resolve_and_fetch(LINES_QUERY)) == [b"mirrored"]
    assert server.requests == []


def test_without_a_token_none_is_sent(server: HubServer) -> None:
    resolve_and_fetch(TRAIN_QUERY)
    assert not any(request.authorized for request in server.requests)


@pytest.mark.parametrize("token_source", ["HF_TOKEN", "file"])
def test_a_token_goes_to_the_hub_alone(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token_source: str
) -> None:
    """Large files are served from another origin, which is not shown it."""
    if token_source == "file":
        (tmp_path / "token").write_text(TOKEN)
    else:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.page_size = 2
    resolve_and_fetch(TRAIN_QUERY)
    assert server.count_requests("") == 1 + 7 + 3 + 3
    for request in server.requests:
        assert request.authorized == request.path.startswith(("/api/", "/datasets/"))


def test_nothing_else_is_asked(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, whatever the client would do of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    resolve_and_fetch(LINES_QUERY)
    assert [request.method for request in server.requests] == ["GET"] * 3
    assert all(REPO in request.path for request in server.requests)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline(server: HubServer, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    snapshot = resolve_snapshot(LINES_QUERY, WHERE)
    server.reset()
    monkeypatch.setenv(variable, "true")
    for action in (
        lambda: resolve_snapshot(LINES_QUERY, WHERE),
        lambda: download_snapshot(LINES_QUERY, snapshot, WHERE),
    ):
        assert error_lines(action) == [
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

TRANSIENT_FAULTS: list[Fault] = [
    408,
    429,
    500,
    502,
    503,
    504,
    "hang",
    "stall",
    "cut",
    "short",
    "corrupt",
]


@pytest.mark.parametrize("query", [TRAIN_QUERY, LINES_QUERY], ids=["large", "small"])
@pytest.mark.parametrize("fault", TRANSIENT_FAULTS)
def test_a_failure_of_a_file_that_passes(
    server: HubServer,
    retry_delays: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    query: HubQuery,
) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT_TIMEOUT)
    silent = fault in ("hang", "stall")
    path = "/resolve/" if isinstance(fault, int) else query.patterns[0][-8:]
    server.add_fault(path, fault, count=1 if silent else 2)
    progress: list[int] = []
    snapshot = download_snapshot(query, resolve_snapshot(query, WHERE), WHERE, progress.append)
    assert read_snapshot(query, snapshot) == (TRAIN_SHARDS if query is TRAIN_QUERY else [LINES])
    assert sum(progress) == snapshot.size
    assert cached_snapshot(query) == snapshot
    # what brings a file further begins to count anew
    assert retry_delays == (
        [1.0] if silent else [1.0, 1.0] if fault in ("cut", "short") else [1.0, 2.0]
    )


@pytest.mark.parametrize("path", ["/revision/", "/tree/"])
@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, 504, "hang"])
def test_a_failure_of_a_request_that_passes(
    server: HubServer,
    retry_delays: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    path: str,
) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT_TIMEOUT)
    count = 1 if fault == "hang" else 2
    server.add_fault(path, fault, count=count)
    assert len(resolve_snapshot(TRAIN_QUERY, WHERE).files) == 3
    assert server.count_requests(path) == count + 1
    assert retry_delays == [1.0, 2.0][:count]


def test_a_list_that_is_cut(server: HubServer, retry_delays: list[float]) -> None:
    server.add_fault("/tree/", "cut", count=2)
    assert len(resolve_snapshot(TRAIN_QUERY, WHERE).files) == 3
    assert retry_delays == [1.0, 2.0]


def test_a_download_goes_on_where_it_broke(server: HubServer, retry_delays: list[float]) -> None:
    """As often as it breaks, as long as it gets further."""
    server.add_fault("0000.parquet", "cut", count=10)
    assert read_snapshot(TRAIN_QUERY, resolve_and_fetch(TRAIN_QUERY)) == TRAIN_SHARDS
    assert retry_delays == [1.0] * 10


def test_a_server_that_knows_no_ranges(server: HubServer, retry_delays: list[float]) -> None:
    """It begins again, and to get as far as before is no step further."""
    server.ranges = False
    server.add_fault("0000.parquet", "cut", count=2)
    progress: list[int] = []
    snapshot = download_snapshot(
        TRAIN_QUERY, resolve_snapshot(TRAIN_QUERY, WHERE), WHERE, progress.append
    )
    assert read_snapshot(TRAIN_QUERY, snapshot) == TRAIN_SHARDS
    assert retry_delays == [1.0, 2.0]
    assert sum(progress) == snapshot.size
    shutil.rmtree(hub._hub_cache())
    server.add_fault("0000.parquet", "cut", count=99)
    with pytest.raises(ZephyrError):
        download_snapshot(TRAIN_QUERY, snapshot, WHERE)
    assert retry_delays[2:] == [1.0, 2.0]


def test_a_wait_that_the_hub_asks_for(server: HubServer, retry_delays: list[float]) -> None:
    server.add_fault("/tree/", 429, headers={"Retry-After": "7"})
    server.add_fault("/tree/", 429, headers={"RateLimit": '"api";r=0;t=55'})
    assert len(resolve_snapshot(TRAIN_QUERY, WHERE).files) == 3
    assert retry_delays == [7.0, 55.0]


# -- failures that don't --------------------------------------------------------------------------


def test_a_wait_that_is_too_long(server: HubServer, retry_delays: list[float]) -> None:
    server.add_fault("/resolve/", 429, headers={"Retry-After": "301"})
    assert error_lines(lambda: resolve_and_fetch(LINES_QUERY)) == [
        "the hub gets too many requests",
        "  where:   data.sft.goat",
        "  found:   org/name, data/lines.jsonl: status 429",
        (
            "  to do:   wait 301 s, then run this again; "
            "who has signed in (`hf auth login`) may ask more often"
        ),
    ]
    assert retry_delays == []
    assert server.count_requests("/resolve/") == 1


LOGIN = "`hf auth login` or set HF_TOKEN"
GATED = (
    "the hub refuses this data set: it is gated",
    f"accept the terms at {DATASET_PAGE} with your account, then {LOGIN}",
)
HIDDEN = (
    "the hub shows no such data set: there is none, or it is private",
    f"mind the spelling; if it is private, {LOGIN}",
)
BAD_TOKEN = ("the hub knows no account with this token", LOGIN)
REFUSED = (
    "the hub refuses this data set",
    f"look at {DATASET_PAGE} with your account, then {LOGIN}",
)
MISSING_FILE = ("a data set lacks a file of its own list", "run this again later")


@pytest.mark.parametrize(
    ("path", "status", "code", "message", "expected"),
    [
        ("/resolve/", 403, "GatedRepo", "Access to it is restricted.", GATED),
        ("/tree/", 401, "GatedRepo", "Access to it is restricted.", GATED),
        ("/revision/", 401, "", "Invalid username or password.", HIDDEN),
        ("/revision/", 404, "RepoNotFound", "Repository not found", HIDDEN),
        ("/revision/", 401, "", "Invalid credentials in Authorization header", BAD_TOKEN),
        ("/resolve/", 403, "", "Forbidden", REFUSED),
        ("/resolve/", 410, "", "Gone", REFUSED),
        ("/resolve/", 404, "EntryNotFound", "Entry not found", MISSING_FILE),
    ],
)
def test_what_the_hub_refuses_is_said_at_once(
    server: HubServer,
    retry_delays: list[float],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    status: Fault,
    code: str,
    message: str,
    expected: tuple[str, str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.add_fault(path, status, headers={"X-Error-Code": code, "X-Error-Message": message})
    what = "data/lines.jsonl" if path == "/resolve/" else "revision main"
    assert error_lines(lambda: resolve_and_fetch(LINES_QUERY)) == [
        expected[0],
        "  where:   data.sft.goat",
        f"  found:   org/name, {what}: status {status}, {message}",
        f"  to do:   {expected[1]}",
    ]
    assert retry_delays == []
    assert server.count_requests(path) == 1
    assert cached_snapshot(LINES_QUERY) is None


def test_no_such_repository_or_revision(server: HubServer) -> None:
    found = error_lines(lambda: resolve_snapshot(HubQuery("org/nmae", ("*",)), WHERE))
    assert found[0] == "the hub shows no such data set: there is none, or it is private"
    assert error_lines(
        lambda: resolve_snapshot(HubQuery("org/model", ("*",), "v2", "model"), WHERE)
    ) == [
        "a model has no such revision",
        "  where:   data.sft.goat",
        "  found:   org/model, revision v2: status 404, Not Found",
        "  to do:   look for it at https://huggingface.co/org/model",
    ]
    server.push("dataset", "org/young", "main", {})
    assert error_lines(
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


PERMANENT_FAULTS: list[tuple[Fault, str, str, str]] = [
    (429, "the hub gets too many requests", "status 429", "run this again later; who has signed"),
    (503, "the hub is out of order", "status 503", "run this again later"),
    ("hang", "the hub does not answer", "nothing came from {url} within 0.3 s", RETRY_HINT),
    ("stall", "the hub does not answer", "nothing came from {url} within 0.3 s", RETRY_HINT),
    ("cut", "the connection to the hub breaks", "peer closed connection without", RETRY_HINT),
    ("corrupt", "the hub sends a file with a wrong content", "", "look for what changes it"),
]


@pytest.mark.parametrize(
    ("fault", "problem", "found", "todo"), PERMANENT_FAULTS, ids=lambda value: str(value)[:6]
)
def test_a_failure_of_a_file_that_stays(
    server: HubServer,
    retry_delays: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    problem: str,
    found: str,
    todo: str,
) -> None:
    """Three times without a step further; nothing wrong is kept, and it can be mended later."""
    monkeypatch.setattr(hub_client, "TIMEOUT", SHORT_TIMEOUT)
    server.ranges = False
    server.add_fault("lines.jsonl", fault, count=99)
    start = time.monotonic()
    lines = error_lines(lambda: resolve_and_fetch(LINES_QUERY))
    assert time.monotonic() - start < 10 * SHORT_TIMEOUT
    assert lines[:2] == [problem, "  where:   data.sft.goat"]
    assert lines[2].startswith("  found:   org/name, data/lines.jsonl")
    assert found.format(url=server.url) in lines[2]
    assert lines[3].startswith(f"  to do:   {todo}")
    assert retry_delays == [1.0, 2.0]
    assert server.count_requests("lines.jsonl") == 3
    assert cached_snapshot(LINES_QUERY) is None
    assert not list(hub._hub_cache().glob("*/snapshots/**/*.jsonl"))
    server.reset()
    server.ranges = True
    assert read_snapshot(LINES_QUERY, resolve_and_fetch(LINES_QUERY)) == [LINES]


def test_a_file_that_is_always_too_short_or_too_long(
    server: HubServer, retry_delays: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a silently short file: the list of files says how long each one is."""
    snapshot = resolve_snapshot(LINES_QUERY, WHERE)
    [file] = snapshot.files
    server.ranges = False
    longer = Snapshot(snapshot.commit, (file._replace(size=file.size + 2),))
    assert error_lines(lambda: download_snapshot(LINES_QUERY, longer, WHERE)) == [
        "the hub sends a file only in part",
        "  where:   data.sft.goat",
        "  found:   org/name, data/lines.jsonl: 6,000 of 6,002 bytes",
        f"  to do:   {RETRY_HINT}",
    ]
    shutil.rmtree(hub._hub_cache())
    shorter = Snapshot(snapshot.commit, (file._replace(size=file.size - 2),))
    found = error_lines(lambda: download_snapshot(LINES_QUERY, shorter, WHERE))
    assert found[0] == "the hub sends a file with a wrong content"
    assert not list(hub._hub_cache().rglob(f"{file.etag}*"))


def test_what_is_too_long_is_not_read_to_its_end(server: HubServer) -> None:
    server.push(*DATASET, "main", {"long.parquet": bytes(9_000_000)})
    query = HubQuery(REPO, ("long.parquet",))
    snapshot = resolve_snapshot(query, WHERE)
    shorter = Snapshot(snapshot.commit, (snapshot.files[0]._replace(size=9),))
    progress: list[int] = []
    found = error_lines(lambda: download_snapshot(query, shorter, WHERE, progress.append))
    assert found[0] == "the hub sends a file with a wrong content"
    assert sum(progress) == 0
    assert 0 < sum(n for n in progress if n > 0) < 1_000_000


def test_a_hub_that_is_not_there(
    retry_delays: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    lines = error_lines(lambda: resolve_snapshot(LINES_QUERY, WHERE))
    assert lines[:2] == ["the hub can't be reached", "  where:   data.sft.goat"]
    assert lines[2].startswith(f"  found:   org/name, {url}: ")
    assert lines[2].endswith("Connection refused")
    assert lines[3] == f"  to do:   {RETRY_HINT}"
    assert retry_delays == [1.0, 2.0]


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://hub", "http://hub:port"])
def test_an_endpoint_that_is_no_address(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert error_lines(lambda: resolve_snapshot(LINES_QUERY, WHERE)) == [
        "HF_ENDPOINT is not an address of a hub",
        "  where:   data.sft.goat",
        f"  found:   org/name, {endpoint}",
        "  to do:   set it to https://huggingface.co",
    ]


@pytest.mark.parametrize("path", ["/revision/", "/tree/"])
def test_an_answer_that_is_no_hub_s(
    server: HubServer, retry_delays: list[float], path: str
) -> None:
    server.add_fault(path, "nonsense")
    assert error_lines(lambda: resolve_snapshot(LINES_QUERY, WHERE)) == [
        "this does not answer as a hub does",
        "  where:   data.sft.goat",
        f"  found:   org/name, {server.url} gives what is not JSON",
        "  to do:   mind the sign-in page of your network, a proxy, or HF_ENDPOINT if it is set",
    ]
    assert retry_delays == []


@pytest.mark.parametrize("answer", [[], {}, {"sha": None}, {"sha": "../x"}, {"sha": ["0" * 40]}])
def test_facts_of_no_known_form(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client.HubClient, "get_json", lambda self, path: (answer, ""))
    assert (
        error_lines(lambda: resolve_snapshot(LINES_QUERY, WHERE))[0]
        == "this does not answer as a hub does"
    )


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
    query = HubQuery(REPO, ("a",), revision="0" * 40)
    assert (
        error_lines(lambda: resolve_snapshot(query, WHERE))[0]
        == "this does not answer as a hub does"
    )


# -- what is wanted is not there, or only in part -------------------------------------------------


def test_a_pattern_that_matches_nothing() -> None:
    query = HubQuery(REPO, ("data/lines.jsonl", "data/*.jsnol"))
    assert error_lines(lambda: resolve_snapshot(query, WHERE)) == [
        "no file of this data set matches a pattern",
        "  where:   data.sft.goat",
        "  found:   'data/*.jsnol' in org/name, revision main",
        "  nearest: data/empty.jsonl, data/more/lines.jsonl, README.md",
        f"  to do:   name files that are there: {DATASET_PAGE}/tree/main",
    ]
    split = HubQuery(REPO, ("default/validation/*.parquet",), "refs/convert/parquet")
    found = error_lines(lambda: resolve_snapshot(split, WHERE))
    assert found[3] == (
        "  nearest: default/train/0000.parquet, default/test/0000.parquet, "
        "big/partial-train/0000.parquet, big/test/0000.parquet"
    )
    assert found[4].endswith("/tree/refs%2Fconvert%2Fparquet")


def test_an_empty_repository(server: HubServer) -> None:
    server.push(*DATASET, "main", {})
    assert (
        error_lines(lambda: resolve_snapshot(LINES_QUERY, WHERE))[3]
        == "  nearest: (it holds no files)"
    )


@pytest.mark.parametrize("pattern", ["big/train/*.parquet", "big/*/*.parquet", "*/*/*", "big/p*/*"])
def test_a_part_is_not_taken_for_the_whole(pattern: str) -> None:
    query = HubQuery(REPO, ("default/test/*", pattern), "refs/convert/parquet")
    assert error_lines(lambda: resolve_snapshot(query, WHERE)) == [
        "the hub has converted only the beginning of this data set to Parquet",
        "  where:   data.sft.goat",
        "  found:   org/name: big/partial-train, 2 files",
        f"  to do:   name its own files by `files:`, as {DATASET_PAGE}/tree/main lists them",
    ]


def test_a_part_by_its_name_is_meant() -> None:
    query = HubQuery(REPO, ("big/partial-train/*", "big/test/*"), "refs/convert/parquet")
    assert len(resolve_snapshot(query, WHERE).files) == 3


@pytest.mark.parametrize("repo", ["", "a/b/c", "../x", "a/..", "a--b/c", "a b", "a/b?x=1", "-a\n"])
def test_names_of_no_repository(server: HubServer, repo: str) -> None:
    assert error_lines(lambda: resolve_snapshot(HubQuery(repo, ("*",)), WHERE)) == [
        "this is not the name of a repository of the hub",
        "  where:   data.sft.goat",
        f"  found:   {repo!r}",
        "  allowed: organization/name",
    ]
    assert server.requests == []


# -- a server is not trusted ----------------------------------------------------------------------

HOSTILE_PATHS = [
    "../evil",
    "a/../../evil",
    "/evil",
    "a//evil",
    "a/./evil",
    "a\\evil",
    "a/evil\x1b[2J",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_hostile_paths(server: HubServer, path: str) -> None:
    server.push(*DATASET, "main", {path: b"evil"})
    query = HubQuery(REPO, ("/".join("*" for _ in path.split("/")),))
    expected = [
        "the hub names a file by a path that is not safe",
        f"  found:   {path!r}",
    ]
    assert error_lines(lambda: resolve_snapshot(query, WHERE)) == expected
    snapshot = Snapshot("0" * 40, (HubFile(path, 4, "", git_id(b"evil")),))
    for function in (snapshot_paths, missing_bytes):
        assert error_lines(lambda function=function: function(query, snapshot)) == expected
    assert error_lines(lambda: download_snapshot(query, snapshot, WHERE)) == expected


def test_hostile_commits_and_names_of_contents(tmp_path: Path) -> None:
    file = HubFile("a", 4, "", git_id(b"evil"))
    for snapshot in (
        Snapshot("../../../x", (file,)),
        Snapshot("0" * 40, (file._replace(etag="../../../x"),)),
    ):
        found = error_lines(
            lambda snapshot=snapshot: download_snapshot(LINES_QUERY, snapshot, WHERE)
        )
        assert found[1] == "  found:   '../../../x'"
    assert {path.name for path in tmp_path.iterdir()} <= {"hf", "zephyr"}


@pytest.mark.parametrize("link", ["snapshots", "blobs", "file"])
def test_links_out_of_the_cache(tmp_path: Path, link: str) -> None:
    snapshot = resolve_and_fetch(LINES_QUERY)
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = hub._hub_cache() / "datasets--org--name"
    if link == "file":
        [path] = snapshot_paths(LINES_QUERY, snapshot)
        path.unlink()
        (outside / "x").write_bytes(LINES)
        path.symlink_to(outside / "x")
    else:
        shutil.rmtree(folder / link)
        (folder / link).symlink_to(outside)
    found = error_lines(lambda: download_snapshot(LINES_QUERY, snapshot, WHERE))
    assert found[0] == "a link leads out of the hub's cache"
    assert [path.name for path in outside.iterdir()] == (["x"] if link == "file" else [])


def test_a_cache_that_is_a_link_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "linked").symlink_to("disk")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "linked"))
    assert read_snapshot(LINES_QUERY, resolve_and_fetch(LINES_QUERY)) == [LINES]


# -- disks and neighbours -------------------------------------------------------------------------


def test_another_process_is_fetching() -> None:
    snapshot = resolve_snapshot(LINES_QUERY, WHERE)
    lock = hub._hub_cache() / ".locks" / "datasets--org--name" / "zephyr.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert error_lines(lambda: download_snapshot(LINES_QUERY, snapshot, WHERE)) == [
            "another process is fetching from this repository",
            "  where:   data.sft.goat",
            "  found:   org/name",
            "  to do:   wait until it ends, then run this again",
        ]
    assert read_snapshot(LINES_QUERY, download_snapshot(LINES_QUERY, snapshot, WHERE)) == [LINES]


@pytest.mark.parametrize("variable", ["HF_HOME", "ZEPHYR_CACHE"])
def test_folders_that_cannot_be_written_to(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = resolve_snapshot(LINES_QUERY, WHERE)
    root = Path(os.environ[variable])
    make = Path.mkdir

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.is_relative_to(root):
            raise PermissionError(13, "Permission denied")  # root may write everywhere
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    lines = error_lines(lambda: download_snapshot(LINES_QUERY, snapshot, WHERE))
    assert lines[0] == "this place can't be written to"
    assert lines[1].startswith(f"  where:   {root}")
    assert lines[2] == f"  to do:   set {variable} to a folder that can be"


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert error_lines(lambda: resolve_and_fetch(LINES_QUERY))[0] == "the disk is full"
    assert cached_snapshot(LINES_QUERY) is None
