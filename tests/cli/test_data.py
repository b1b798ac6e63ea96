"""The commands about data, as people type them, on data sets and a base model of a hub."""

import hashlib
import io
import itertools
import json
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
import yaml

from tests import tiny
from tests.data.sample_rows import SAMPLE_ROWS, SKIP_REASONS, Row
from tests.hub_server import Fault, Files, HubServer, Repositories
from tests.workspace import NODE_STATE, Command
from zephyr.cli import console
from zephyr.data import hub, hub_client, sources
from zephyr.data import mixture as mixtures
from zephyr.data.column_formats import detect_format
from zephyr.data.lock import read_lock
from zephyr.data.readers.parsing import SkippedRecord
from zephyr.data.table import SOURCES, RegisteredSource
from zephyr.errors import ZephyrError
from zephyr.evaluate.tasks import TASKS
from zephyr.recipe.data import SourceSpec, Use
from zephyr.records import Pair, Record

pytestmark = pytest.mark.enable_socket

PARQUET = "refs/convert/parquet"
NEEDED = {
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
}
"""Files of a base model that are fetched."""
OWN_ROWS = [
    ("Wer baut ein Haus?", "Der Maurer mit Steinen."),
    ("Was trinkt die Katze?", "Am liebsten Wasser."),
    ("Wo liegt Bern?", "In der Schweiz, an der Aare."),
    ("Wie heilt ein Bruch?", "Langsam, und nur in Ruhe."),
    ("Wann blüht der Flieder?", "Im Mai."),
    ("Warum ist Schnee weiß?", "Er streut alles Licht."),
]
RECIPE = """\
name: lent
seed: 1
data:
  sft:
    kind: chat
    holdout: 0.1
    sources:
    - goat
    - arc_challenge
    - wiki_qa
    - {hub: org/mine, columns: {question: Frage, answer: Antwort}}
  votes: {kind: pair, holdout: 0.2, sources: [truthy_dpo, shp_askphysics]}
  quiz: {kind: choice, sources: [mmlu]}
models:
  M0: {base: org/tiny}
  M1: {from: M0, tune: {data: sft, steps: 2, batch: 4, lr: 1e-3, lora: {rank: 2}}}
  M2: {from: M1, align: {data: votes, steps: 2, batch: 2, lora: {rank: 2}}}
  M3: {from: M0, align: {data: votes, steps: 1, batch: 2, lora: {rank: 2}}}
evaluate:
  tasks:
  - hellaswag
  - {name: mcqa, sources: [arc_easy]}
  - {name: preferences, data: votes}
"""


# -- a hub with everything on it ------------------------------------------------------------------


def to_parquet(rows: Sequence[Row]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def shard_files(pattern: str, rows: Sequence[Row]) -> Files:
    """Files for a pattern: JSON lines, or a Parquet file for each run of rows of one schema."""
    if not pattern.endswith(".parquet"):
        return {pattern: "".join(json.dumps(row) + "\n" for row in rows).encode()}
    alike = itertools.groupby(
        rows, lambda row: [(name, type(value)) for name, value in row.items()]
    )
    return {
        pattern.replace("*", f"{number:04}"): to_parquet(list(some))
        for number, (_, some) in enumerate(alike)
    }


@cache
def base_model() -> Files:
    """A tiny Llama as it lies on the hub, with files that nobody needs."""
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.make_model("llama")
        model.causal.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return {
        **files,
        "README.md": b"# Tiny\n",
        "pytorch_model.bin": b"pickled",
        "onnx/m.json": b"{}",
    }


@cache
def repositories() -> Repositories:
    """Every registered source in its own layout, a data set of one's own, and a base model."""
    found: Repositories = {
        ("model", "org/tiny"): {"main": base_model()},
        ("dataset", "org/mine"): {
            PARQUET: shard_files(
                "default/train/*.parquet",
                [{"Frage": q, "Antwort": a, "Nr": 1} for q, a in OWN_ROWS],
            )
        },
    }
    for source in SOURCES.values():
        location = source.hub
        for split in (
            {source.train_split, source.eval_split} - {None} if location is not None else ()
        ):
            files = found.setdefault(("dataset", location.id), {}).setdefault(location.revision, {})
            files |= shard_files(location.pattern(str(split)), SAMPLE_ROWS[source.name])
    return found


def use_hub(patch: pytest.MonkeyPatch, server: HubServer, folder: Path) -> None:
    """The server in place of the hub; caches and runs in a folder, which is the current one."""
    for variable in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN"):
        patch.delenv(variable, raising=False)
    for variable, value in {
        "HF_ENDPOINT": server.url,
        "HF_HOME": folder / "hf",
        "NO_PROXY": "127.0.0.1",
        "ZEPHYR_CACHE": folder / "cache",
        "ZEPHYR_RUNS": folder / "runs",
    }.items():
        patch.setenv(variable, str(value))
    # the client read its environment when it was imported
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    patch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "token"))
    patch.setattr(hub_client, "RETRY_DELAY", 0.01)
    patch.setattr(hub_client, "TIMEOUT", 0.5)
    patch.chdir(folder)


@dataclass(frozen=True)
class HubWorkspace:
    """The current folder with a recipe, and the hub that it is pointed at."""

    folder: Path
    server: HubServer
    command: Command
    patch: pytest.MonkeyPatch

    def zephyr(self, *arguments: str, code: int = 0) -> str:
        """What a command prints that ends with this code: its errors if that is not 0."""
        printed = self.command(*arguments)
        assert printed.code == code, printed
        assert "Traceback" not in printed.err
        if code == 0:
            assert printed.err == ""
        return printed.err if code == 2 and printed.err else printed.out

    def go_offline(self) -> None:
        self.patch.setenv("HF_HUB_OFFLINE", "1")
        self.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    def edit_recipe(self, change: Callable[[dict[str, Any]], Any]) -> None:
        value = yaml.safe_load((self.folder / "lent.yaml").read_text())
        change(value)
        (self.folder / "lent.yaml").write_text(yaml.safe_dump(value, sort_keys=False))

    def artifact(self, node: str) -> Path:
        known = json.loads((self.folder / "runs/lent/nodes.json").read_text())["nodes"]
        [fingerprint] = [n["fingerprint"] for n in known if n["name"] == node]
        return self.folder / "runs/objects" / fingerprint / "artifact"

    def rows(self, node: str, file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.artifact(node) / file).read_text().splitlines()]

    def node_states(self) -> dict[str, str]:
        table = self.zephyr("plan", "lent.yaml").split("\n\n")[0]
        return dict(NODE_STATE.findall(table))


@pytest.fixture(autouse=True, scope="module")
def close_http_session() -> Iterator[None]:
    """The client's connections end with this module."""
    yield
    huggingface_hub.close_session()


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer(repositories()) as server:
        yield server


@pytest.fixture
def workspace(
    tmp_path: Path, server: HubServer, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> HubWorkspace:
    """A folder with nothing but the recipe."""
    (tmp_path / "lent.yaml").write_text(RECIPE)
    use_hub(monkeypatch, server, tmp_path)
    return HubWorkspace(tmp_path, server, zephyr, monkeypatch)


@dataclass
class SharedRun:
    """A folder in which the recipe has been fetched, checked, built and run, and the outputs."""

    folder: Path
    outputs: dict[str, str]


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> SharedRun:
    return SharedRun(tmp_path_factory.mktemp("shelf"), {})


@pytest.fixture
def built_workspace(
    shared_run: SharedRun,
    tmp_path: Path,
    server: HubServer,
    zephyr: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> HubWorkspace:
    """A copy of the shared run, which the first test that asks for it makes."""
    if not shared_run.outputs:
        shared_run.outputs.update(run_commands(shared_run.folder, zephyr))
    copy = tmp_path / "copy"
    shutil.copytree(shared_run.folder, copy, symlinks=True)
    use_hub(monkeypatch, server, copy)
    return HubWorkspace(copy, server, zephyr, monkeypatch)


def run_commands(folder: Path, zephyr: Command) -> dict[str, str]:
    """The output of each command; all but the first run with the server closed."""
    outputs = {}
    (folder / "lent.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console.out, "_width", 240)
        with HubServer(repositories()) as server:
            use_hub(patch, server, folder)
            workspace = HubWorkspace(folder, server, zephyr, patch)
            outputs["check before"] = workspace.zephyr("data", "check", "lent.yaml")
            assert server.count_requests("/resolve/") == 0
            outputs["fetch"] = workspace.zephyr("data", "fetch", "lent.yaml")
            server.reset()
            outputs["fetch again"] = workspace.zephyr("data", "fetch", "lent.yaml")
            assert server.requests == []
        workspace.go_offline()
        outputs["check"] = workspace.zephyr("data", "check", "lent.yaml")
        patch.setattr(console.out, "_width", 120)
        outputs["build"] = workspace.zephyr("data", "build", "lent.yaml")
        outputs["run"] = workspace.zephyr("run", "lent.yaml")
        outputs["run again"] = workspace.zephyr("run", "lent.yaml")
    return outputs


def stripped_lines(text: str) -> list[str]:
    """Lines without the blanks at their ends."""
    return [line.rstrip() for line in text.splitlines()]


def table_rows(text: str) -> list[list[str]]:
    """The cells of the rows of a table below its head."""
    lines = itertools.takewhile(bool, stripped_lines(text)[1:])
    return [re.split("  +", line) for line in lines if "  " in line]


# -- every registered source ----------------------------------------------------------------------

USES = [
    (source, use)
    for source in SOURCES.values()
    for use, split in (("train", source.train_split), ("exam", source.eval_split))
    if source.hub is not None and split is not None
]


def expected_records(source: RegisteredSource) -> tuple[list[Record], Counter[str]]:
    """What the examples of a source give when a reader gets them as they stand."""
    found: list[Record] = []
    skip_reasons: Counter[str] = Counter()
    for row in SAMPLE_ROWS[source.name]:
        try:
            parts = list(detect_format(row, source.kind, source, "here").reader(row, source.name))
        except SkippedRecord as error:
            parts = [error]
        skip_reasons.update(str(part) for part in parts if isinstance(part, SkippedRecord))
        found += [
            replace(part, aspect=source.aspect) if isinstance(part, Pair) else part
            for part in parts
            if not isinstance(part, SkippedRecord)
        ]
    return found, skip_reasons


@pytest.mark.parametrize(("source", "use"), USES, ids=lambda value: getattr(value, "name", value))
def test_a_registered_source_comes_as_its_examples_are(
    workspace: HubWorkspace, source: RegisteredSource, use: Use
) -> None:
    """From its repository, revision and files, and no others."""
    spec, location = SourceSpec(name=source.name), source.hub
    query = sources.hub_query(spec, use, "here")
    assert query is not None
    assert location is not None
    with pytest.raises(ZephyrError, match=f"source '{source.name}' has not been fetched"):
        sources.source_fingerprint(spec, use=use, origin=None, base=workspace.folder, where="here")
    snapshot = hub.download_snapshot(query, hub.resolve_snapshot(query, "here"), "here")
    opened_source = sources.open_source(
        spec, kind=source.kind, use=use, origin=None, base=workspace.folder, where="here"
    )
    records, tally = sources.read_records(opened_source)
    expected, skip_reasons = expected_records(source)
    assert records == expected
    assert (tally.item_count, tally.skip_reasons, tally.unreadable_reasons) == (
        len(expected) + skip_reasons.total(),
        skip_reasons,
        {},
    )
    assert skip_reasons == SKIP_REASONS.get(source.name, {})
    split = str(source.train_split if use == "train" else source.eval_split)
    files = shard_files(location.pattern(split), SAMPLE_ROWS[source.name])
    assert {file.path for file in snapshot.files} == files.keys()
    first, *others = [request.path for request in workspace.server.requests]
    assert first == f"/api/datasets/{location.id}/revision/{location.revision}"
    requested_paths = [path for path in others if path.startswith("/datasets/")]
    assert requested_paths == [
        f"/datasets/{location.id}/resolve/{snapshot.commit}/{path}" for path in files
    ]


# -- fetch ----------------------------------------------------------------------------------------

FETCHES = [
    ("data.sft.goat", "dataset", "tiedong/goat", PARQUET, 1),
    ("data.sft.arc_challenge", "dataset", "allenai/ai2_arc", PARQUET, 1),
    ("data.sft.wiki_qa", "dataset", "microsoft/wiki_qa", PARQUET, 2),
    ("data.sft.mine", "dataset", "org/mine", PARQUET, 1),
    ("data.votes.truthy_dpo", "dataset", "jondurbin/truthy-dpo-v0.1", PARQUET, 2),
    ("data.votes.shp_askphysics", "dataset", "stanfordnlp/SHP", "main", 1),
    ("data.quiz.mmlu", "dataset", "cais/mmlu", PARQUET, 3),
    ("evaluate.tasks.hellaswag.hellaswag", "dataset", "Rowan/hellaswag", PARQUET, 2),
    ("evaluate.tasks.mcqa.arc_easy", "dataset", "allenai/ai2_arc", PARQUET, 1),
    ("models.M0.base", "model", "org/tiny", "main", 6),
]


def fetch_lines(server: HubServer, sizes: dict[str, int]) -> list[str]:
    """What `fetch` says of all that the recipe needs, where some of it has a size to speak of."""
    lines = []
    for where, kind, repo, revision, count in FETCHES:
        commit = server.find_commit(kind, repo, revision)[0][:12]
        files = f"{count} files" if count > 1 else "1 files?"
        lines.append(f"{where}: {repo}, {files} at {commit}, {sizes.get(where, 0) / 1e6:.1f} MB")
    return [*lines, f"{sum(sizes.values()) / 1e6:.1f} MB to fetch", "All is at hand."]


def assert_lines(text: str, patterns: Sequence[str]) -> None:
    lines = stripped_lines(text)
    assert len(lines) == len(patterns), text
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_fetch_says_beforehand_what_and_how_much(
    built_workspace: HubWorkspace, shared_run: SharedRun
) -> None:
    size = sum(len(base_model()[name]) for name in NEEDED)
    assert len(NEEDED) == 6
    assert size > 150_000
    assert_lines(
        shared_run.outputs["fetch"], fetch_lines(built_workspace.server, {"models.M0.base": size})
    )
    assert shared_run.outputs["fetch again"] == "Nothing to fetch: all is at hand.\n"
    fetched = {
        path.name for path in (built_workspace.folder / "hf/hub/models--org--tiny").rglob("*.*")
    }
    assert fetched >= NEEDED
    assert not fetched & {"pytorch_model.bin", "README.md", "m.json"}


def test_what_is_fetched_is_run_without_a_network(
    built_workspace: HubWorkspace, shared_run: SharedRun
) -> None:
    """`run_commands` has run it so."""
    export, _, summary = shared_run.outputs["run"].splitlines()[:3]
    assert export.startswith("M0: can be exported as GGUF")
    assert summary == "lent: 3 nodes kept, 16 to make"
    assert shared_run.outputs["run again"].splitlines()[0] == "lent: 19 nodes kept, 0 to make"
    built_workspace.go_offline()
    assert set(built_workspace.node_states().values()) == {"fresh"}
    assert built_workspace.zephyr("data", "fetch", "lent.yaml") == shared_run.outputs["fetch again"]


def shrink_recipe(value: dict[str, Any]) -> None:
    value["data"] = {"sft": {"kind": "chat", "sources": ["goat"]}}
    value["models"] = {"M0": value["models"]["M0"]}
    value["evaluate"]["tasks"] = [{"name": "mcqa", "sources": ["arc_easy"]}]


@pytest.mark.parametrize(
    ("command", "then"),
    [
        (("run", "lent.yaml"), "lent: 0 nodes kept, 3 to make"),
        (("eval", "M0", "mcqa", "-r", "lent.yaml"), r"\[1/2\] done M0 \(base, .* s\)"),
        (("data", "build", "lent.yaml"), r"\[1/1\] done data.sft \(mixture, .* s\)"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_missing_is_fetched_first(
    workspace: HubWorkspace, command: tuple[str, ...], then: str
) -> None:
    workspace.edit_recipe(shrink_recipe)
    lines = workspace.zephyr(*command).splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "data.sft.goat",
        "evaluate.tasks.mcqa.arc_easy",
        "models.M0.base",
    ]
    assert lines[4] == "All is at hand."
    assert any(re.fullmatch(then, line) for line in lines[5:9])  # after notes and a warning
    workspace.go_offline()
    assert "All is at hand." not in workspace.zephyr(*command)


def test_again_notices_what_has_moved(built_workspace: HubWorkspace) -> None:
    built_workspace.patch.setattr(console.out, "_width", 240)
    path = "default/train/0000.parquet"
    new = {"id": "d", "system": "", "prompt": "Is it late?", "chosen": "Yes.", "rejected": "No."}
    revision = ("dataset", "jondurbin/truthy-dpo-v0.1", PARQUET)
    content = to_parquet([*SAMPLE_ROWS["truthy_dpo"][:2], new])
    files = {**built_workspace.server.find_commit(*revision)[1], path: content}
    built_workspace.server.push(*revision, files)
    assert (
        built_workspace.zephyr("data", "fetch", "lent.yaml")
        == "Nothing to fetch: all is at hand.\n"
    )
    assert set(built_workspace.node_states().values()) == {"fresh"}
    assert built_workspace.server.requests == []
    printed = built_workspace.zephyr("data", "fetch", "lent.yaml", "--again")
    assert_lines(
        printed, fetch_lines(built_workspace.server, {"data.votes.truthy_dpo": len(content)})
    )
    assert built_workspace.server.count_requests("/resolve/") == 1
    assert [
        row[-1]
        for row in table_rows(built_workspace.zephyr("data", "check", "lent.yaml"))
        if row[1] == "truthy_dpo"
    ] == ["4 rows at hand"]
    states = built_workspace.node_states()
    assert states["data.votes"] == "stale"
    waiting = {name for name, state in states.items() if state == "waiting"}
    assert waiting == {n for n in states if n[:2] in ("M2", "M3") or n.endswith("/preferences")}


# -- what goes wrong on the way -------------------------------------------------------------------

GATED = {"X-Error-Code": "GatedRepo"}
NO_REPO = {"X-Error-Code": "RepoNotFound"}
SHP = "/datasets/stanfordnlp/SHP/resolve/"
SHP_API = "/api/datasets/stanfordnlp/SHP/"
PAGE = "https://huggingface.co/datasets/stanfordnlp/SHP"
RETRY_HINT = "look after the network and run this again: what has been fetched is kept"
FILE = "askphysics/train.json"
SIZE = len(shard_files(FILE, SAMPLE_ROWS["shp_askphysics"])[FILE])
FAULTS: dict[str, tuple[str, Fault, dict[str, str], str, str, str]] = {
    "gated before": (
        SHP_API,
        401,
        GATED,
        "the hub refuses this data set: it is gated",
        "revision main: status 401, Unauthorized",
        f"accept the terms at {PAGE} with your account, then `hf auth login` or set HF_TOKEN",
    ),
    "gated": (
        SHP,
        401,
        GATED,
        "the hub refuses this data set: it is gated",
        f"{FILE}: status 401, Unauthorized",
        f"accept the terms at {PAGE} with your account, then `hf auth login` or set HF_TOKEN",
    ),
    "not there": (
        SHP_API,
        404,
        NO_REPO,
        "the hub shows no such data set: there is none, or it is private",
        "revision main: status 404, Not Found",
        "mind the spelling; if it is private, `hf auth login` or set HF_TOKEN",
    ),
    "a file that is gone": (
        SHP,
        404,
        {"X-Error-Code": "EntryNotFound"},
        "a data set lacks a file of its own list",
        f"{FILE}: status 404, Not Found",
        "run this again later",
    ),
    "too many requests": (
        SHP,
        429,
        {"Retry-After": "3600"},
        "the hub gets too many requests",
        f"{FILE}: status 429",
        "wait 3600 s, then run this again; who has signed in (`hf auth login`) may ask more often",
    ),
    "out of order": (
        SHP,
        500,
        {},
        "the hub is out of order",
        f"{FILE}: status 500",
        "run this again later",
    ),
    "silence before": (
        SHP_API,
        "hang",
        {},
        "the hub does not answer",
        "revision main: nothing came from HUB within 0.2 s",
        RETRY_HINT,
    ),
    "silence": (
        SHP,
        "hang",
        {},
        "the hub does not answer",
        f"{FILE}: nothing came from HUB within 0.2 s",
        RETRY_HINT,
    ),
    "too short": (
        SHP,
        "short",
        {},
        "the hub sends a file only in part",
        f"{FILE}: {SIZE - 1:,} of {SIZE:,} bytes",
        RETRY_HINT,
    ),
    "other bytes": (
        SHP,
        "corrupt",
        {},
        "the hub sends a file with a wrong content",
        FILE,
        "look for what changes it on its way: a mirror (HF_ENDPOINT) or a proxy",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_midst_of_fetching(workspace: HubWorkspace, name: str) -> None:
    """What came before it is kept; nothing half is taken for whole."""
    path, fault, headers, problem, found, todo = FAULTS[name]
    workspace.patch.setattr(hub_client, "TIMEOUT", 0.2)
    workspace.server.add_fault(path, fault, count=40, headers=headers)
    expected = f"""\
Error: {problem}
  where:   data.votes.shp_askphysics
  found:   stanfordnlp/SHP, {found.replace("HUB", workspace.server.url)}
  to do:   {todo}
"""
    assert workspace.zephyr("data", "fetch", "lent.yaml", code=2) == expected
    at_once = path == SHP_API
    before = workspace.server.count_requests("/resolve/") - workspace.server.count_requests(SHP)
    assert before == (0 if at_once else 7)
    assert workspace.zephyr("data", "build", "lent.yaml", code=2) == expected
    if fault != "hang":
        assert workspace.zephyr("run", "lent.yaml", code=2) == expected
    assert not (workspace.folder / "runs").exists()
    not_fetched = f"""\
Error: source 'hellaswag' has not been fetched
  where:   evaluate.tasks.hellaswag
  found:   it is on the hub: Rowan/hellaswag at {PARQUET}
  to do:   zephyr data fetch RECIPE, or give the `path:` of a file of yours
"""
    assert workspace.zephyr("plan", "lent.yaml", code=2) == not_fetched
    workspace.patch.setenv("HF_HUB_OFFLINE", "1")
    where = "data.sft.goat" if at_once else "data.votes.shp_askphysics"
    refused = f"""\
Error: files of the hub are not here, and the network may not be used
  where:   {where}
  found:   HF_HUB_OFFLINE=1
  to do:   run `zephyr data fetch RECIPE` where there is a network
"""
    assert workspace.zephyr("data", "build", "lent.yaml", code=2) == refused
    workspace.patch.delenv("HF_HUB_OFFLINE")
    workspace.server.reset()
    lines = workspace.zephyr("data", "fetch", "lent.yaml").splitlines()
    assert lines[-1] == "All is at hand."
    assert len(lines) - 2 == (10 if at_once else 5)
    assert workspace.server.count_requests("/resolve/") == 20 - before
    assert workspace.zephyr("data", "fetch", "lent.yaml") == "Nothing to fetch: all is at hand.\n"
    assert workspace.zephyr("data", "build", "lent.yaml").count("[3/3] done") == 1


def test_a_download_that_breaks_goes_on_where_it_ended(workspace: HubWorkspace) -> None:
    weights = len(base_model()["model.safetensors"])
    workspace.server.add_fault("model.safetensors", "cut", count=2)
    assert workspace.zephyr("data", "fetch", "lent.yaml").splitlines()[-1] == "All is at hand."
    shutil.rmtree(workspace.folder / "hf")
    workspace.server.reset()
    workspace.server.add_fault("model.safetensors", "cut")
    sha256 = hashlib.sha256(base_model()["model.safetensors"]).hexdigest()
    workspace.server.add_fault(f"/{sha256}/", 403)
    workspace.zephyr("data", "fetch", "lent.yaml", code=2)
    workspace.server.reset()
    lines = workspace.zephyr("data", "fetch", "lent.yaml").splitlines()
    sizes = {name: len(base_model()[name]) for name in NEEDED}
    assert lines[0].startswith("models.M0.base: org/tiny, 6 files at ")
    assert (
        workspace.server.count_requests("model.safetensors") == 2
    )  # a redirect, and the rest of the content
    remaining_bytes = (
        sum(s for name, s in sizes.items() if name > "model.safetensors") + weights - weights // 2
    )
    assert lines[1] == f"{remaining_bytes / 1e6:.1f} MB to fetch"


# -- check ----------------------------------------------------------------------------------------

CHECK_ROWS = [
    ["data.sft", "goat", "instruction, output", "Apache-2.0", "1,746,300"],
    ["data.sft", "arc_challenge", "question, choices, answerKey", "CC-BY-SA-4.0", "1,119"],
    ["data.sft", "wiki_qa", "question, answer, label", "Microsoft Research Data licence", "20,360"],
    ["data.sft", "mine", "by their form", "not known to Zephyr"],
    ["data.votes", "truthy_dpo", "system, prompt, chosen, rejected", "CC-BY-4.0", "1,016"],
    [
        *("data.votes", "shp_askphysics", "history, human_ref_A, human_ref_B, labels"),
        *("unspecified; Reddit terms", "7,364"),
    ],
    ["data.quiz", "mmlu", "question, choices, answer", "MIT; auxiliary_train mixed", "99,842"],
    ["hellaswag", "hellaswag", "ctx, endings, label", "MIT", "10,042"],
    ["mcqa", "arc_easy", "question, choices, answerKey", "CC-BY-SA-4.0", "2,376"],
    ["models.M0.base", "org/tiny", "by their form", "not known to Zephyr"],
]


def test_check_says_of_each_source_what_is_known_and_where_it_is(
    shared_run: SharedRun, built_workspace: HubWorkspace
) -> None:
    before, after = shared_run.outputs["check before"], shared_run.outputs["check"]
    assert [row[:-1] for row in table_rows(before)[:10]] == CHECK_ROWS
    there = [f"on the hub, {size} MB to fetch" for size in ("0.0",) * 9 + ("0.2",)]
    assert [row[-1] for row in table_rows(before)[:10]] == there
    assert [row[:-1] for row in table_rows(after)[:10]] == CHECK_ROWS
    rows = ["6" if row[1] == "mine" else "3" for row in CHECK_ROWS[:-1]]
    assert [row[-1] for row in table_rows(after)[:10]] == [
        *(f"{n} rows at hand" for n in rows),
        "at hand",
    ]
    for printed in (before, after):
        about_bases = [line for line in stripped_lines(printed) if line.startswith("M0: ")]
        assert bool(about_bases) == (printed is after)  # it has to be at hand
        lines = [
            *itertools.takewhile(bool, stripped_lines(printed)[11:]),
            *stripped_lines(printed)[-2:],
        ]
        assert lines[0] == "goat: licence is recalled; its files are not pinned"
        assert [line.split(":")[0] for line in lines[:-2]] == [
            row[1] for row in CHECK_ROWS if row[1] not in ("mine", "org/tiny")
        ]
        assert (
            "shp_askphysics: no licence is known, so no permission is; it has terms of its own,"
            " which may forbid training on it; files is recalled; its files are not pinned"
        ) in lines
        assert lines[-2:] == ["", "10 of 10 can be had"]


def test_check_lists_what_cannot_be_had_and_what_cannot_be_read(workspace: HubWorkspace) -> None:
    workspace.patch.setattr(console.out, "_width", 240)
    workspace.zephyr("data", "fetch", "lent.yaml", "-s", "evaluate.tasks=[]")

    def extend(value: dict[str, Any]) -> None:
        value["data"]["sft"]["sources"].append({"path": "none.jsonl"})
        value["data"]["quiz"]["sources"].append({"name": "arc_challenge", "split": "test"})
        value["data"]["votes"]["sources"].append({"name": "h4rmony", "revision": "v2"})
        value["models"]["M9"] = {"base": "org/none"}

    workspace.edit_recipe(extend)
    workspace.server.add_fault("/Rowan/", 401, headers=GATED)
    printed = workspace.zephyr("data", "check", "lent.yaml", code=2)
    problems = {
        "none": "a file is not there",
        "arc_challenge": "split 'test' of source 'arc_challenge' is for tests, and never trained "
        "on",
        "h4rmony": "a data set has no such revision",
        "hellaswag": "the hub refuses this data set: it is gated",
        "org/none": "the hub shows no such model: there is none, or it is private",
    }
    states = [(row[1], row[-1]) for row in table_rows(printed)]
    assert len(states) - states.index(("org/tiny", "at hand")) > 1
    assert problems.items() <= set(states)
    assert ("arc_easy", "on the hub, 0.0 MB to fetch") in states
    lines = stripped_lines(printed)
    for name, problem in problems.items():
        assert f"{name}: {problem}" in lines
    assert "  found:   neovalle/H4rmony, revision v2: status 404, Not Found" in lines
    assert f"  found:   {workspace.folder}/none.jsonl" in lines
    assert "  allowed: train, validation" in lines
    assert lines[-1] == "9 of 14 can be had"


def test_check_tells_unreadable_rows(workspace: HubWorkspace) -> None:
    """Where it reads all rows it refuses what the run would refuse, and says the first place."""
    workspace.patch.setattr(console.out, "_width", 240)
    workspace.edit_recipe(shrink_recipe)
    rows = [{"instruction": "1 + 1", "output": answer} for answer in ("2", None, "", None)]
    files = {"default/train/0000.parquet": to_parquet(rows)}
    workspace.server.push("dataset", "tiedong/goat", PARQUET, files)
    workspace.zephyr("data", "fetch", "lent.yaml")
    allowing = ("-s", "data.sft.unreadable=0.75")
    row = table_rows(workspace.zephyr("data", "check", "lent.yaml", *allowing))[0]
    assert row[-1] == (
        "4 rows at hand; 3 of the first 4 can't be read: column 'output' is empty "
        "(first at 0000.parquet row 2)"
    )
    printed = workspace.zephyr("data", "check", "lent.yaml", code=2)
    assert table_rows(printed)[0][-1] == "too many rows of source 'goat' can't be read"
    total = len(table_rows(printed))
    assert printed.endswith(f"{total - 1} of {total} can be had\n")
    assert workspace.zephyr("data", "build", "lent.yaml", code=2).startswith(
        "data.sft failed: too many rows of source 'goat' can't be read\n"
    )


def test_a_source_of_which_no_row_can_be_read_can_not_be_had(
    zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is that of the file, blank lines counted."""
    monkeypatch.chdir(tmp_path)
    rows = '{"question": "a", "answer": ""}\n\n{"question": "b", "answer": ""}\n'
    Path("bad.jsonl").write_text("\n" + rows)
    Path("r.yaml").write_text(
        "name: r\ndata: {sft: {kind: chat, sources: [{path: bad.jsonl}]}}\nmodels: {M0: "
        "{pretrain: {data: sft}}}\n"
    )
    code, out, _ = zephyr("data", "check", "r.yaml")
    assert code == 2
    assert out.endswith("0 of 1 can be had\n")
    assert "bad.jsonl:2" in out.replace("\n", "")


PAPER = SOURCES.keys() - {"primer", "wiki_qa", "gsm8k_socratic", "mathdial", "votes"}


def test_check_of_the_papers_recipe_says_at_once_that_there_is_no_hub(
    workspace: HubWorkspace,
) -> None:
    """It is asked once, and not for each of 42 repositories."""
    workspace.patch.setattr(hub_client, "RETRY_DELAY", 0.2)
    workspace.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    printed = workspace.zephyr("data", "check", "paper", code=2)
    assert time.monotonic() - start < 2
    unreachable, epfl, end = printed.split("\n\n")[1:]
    names, _, text = " ".join(unreachable.split()).partition(": ")
    models = {"Qwen/Qwen1.5-0.5B-Chat", "bigscience/bloom-560m"}
    assert set(names.split(", ")) == PAPER - {"epfl"} | models
    assert text.startswith("the hub can't be reached where: data.")
    assert text.endswith(f"Connection refused to do: {RETRY_HINT}")
    assert epfl.startswith("epfl: a file is not there\n")
    assert end == "0 of 43 can be had\n"


def test_check_of_the_papers_recipe_where_no_network_may_be_used(workspace: HubWorkspace) -> None:
    workspace.go_offline()
    workspace.patch.setattr(console.out, "_width", 240)
    printed = workspace.zephyr("data", "check", "paper", code=2)
    rows = [
        row for row in table_rows(printed) if row[0].split(".")[0] in ("data", "models", *TASKS)
    ]
    assert len(rows) == 43
    states = Counter(row[-1] for row in rows)
    assert states == {
        "files of the hub are not here, and the network may not be used": 42,
        "a file is not there": 1,
    }
    assert {row[1] for row in rows if row[0] != "models"} >= PAPER
    counts = {row[1]: row[-2] for row in rows if row[0] == "data.D_S"}
    assert sum(min(int(count.replace(",", "")), 12_000) for count in counts.values()) == 102_030
    assert "epfl: no licence is known, so no permission is; it must not be passed on" in printed


# -- build and card -------------------------------------------------------------------------------

BUILD_TABLES = """\
sft
source         seen  left out  kept  held out  characters
goat              3         0     3         _          45
arc_challenge     3         0     3         _         295
wiki_qa           3         1     2         _          42
mine              6         0     6         _         242
all              15         1    14         2         624
goat: columns that were not used: answer, input
arc_challenge: columns that were not used: id
wiki_qa: columns that were not used: question_id
mine: columns that were not used: Nr
ARTIFACT/data.sft

votes
source          seen  kept  held out  characters
truthy_dpo         3     3         _          64
shp_askphysics     3     3         _         142
all                6     6         2         206
truthy_dpo: columns that were not used: id
shp_askphysics: columns that were not used: post_id (3 rows), score_A (3 rows), score_B (3 rows), \
upvote_ratio (3 rows)
1 of 2 held-out records have an answer that is trained on too (1 chosen and rejected): \
hold-out scores may be biased by it
ARTIFACT/data.votes

quiz
source  seen  kept  characters
mmlu       3     3          96
all        3     3          96
ARTIFACT/data.quiz
"""


def holdout_counts(workspace: HubWorkspace, name: str) -> Counter[str]:
    """How many records of each source of a mixture are held out, by its lock file."""
    lock = workspace.rows(f"data.{name}", "lock.jsonl")
    return Counter(row["source"] for row in lock if row["side"] == "holdout")


def test_build_draws_the_mixtures_alone_and_shows_what_became_of_every_row(
    built_workspace: HubWorkspace, shared_run: SharedRun
) -> None:
    """Columns that are zero for all are left out."""
    expected = BUILD_TABLES
    counts = holdout_counts(built_workspace, "sft") + holdout_counts(built_workspace, "votes")
    assert counts.total() == 4
    for name in ("sft", "votes", "quiz"):
        folder = shared_run.folder / built_workspace.artifact(f"data.{name}").relative_to(
            built_workspace.folder
        )
        expected = expected.replace(f"ARTIFACT/data.{name}", str(folder))
    found = stripped_lines(shared_run.outputs["build"])
    assert any("data.sft: only 12 records to train on" in line for line in found)
    lines = [line for line in found if " only " not in line]
    assert [re.sub(r"[0-9.]+ s", "_ s", line) for line in lines[:3]] == [
        "[1/3] done data.sft (mixture, _ s)",
        "[2/3] done data.votes (mixture, _ s)",
        "[3/3] done data.quiz (mixture, _ s)",
    ]
    assert lines[3:] == [
        re.sub(" _ ", f" {counts[line.split(' ')[0]]} ", line)
        for line in [*expected.splitlines(), ""]
    ]


def test_build_says_what_is_only_counted(built_workspace: HubWorkspace) -> None:
    printed = stripped_lines(
        built_workspace.zephyr("data", "build", "lent.yaml", "-s", "data.quiz.clean=report")
    )
    notice = "Repeated, contaminated and near-duplicate records are counted, and kept."
    assert printed[printed.index("quiz") :][4] == notice
    assert printed.count(notice) == 1


CARD = """\
# Data card: sft

Records of kind chat, drawn with seed 1; content CONTENT. What a source repeats, what holds a \
question of the recipe's tasks (runs of 8 words), and near-duplicates are removed.

## What became of the rows

| source | seen | unreadable | left out | duplicates | contaminated | near duplicates | capped \
| kept | held out | characters |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| goat | 3 | 0 | 0 | 0 | 0 | 0 | 0 | 3 | HELD-goat | 45 |
| arc_challenge | 3 | 0 | 0 | 0 | 0 | 0 | 0 | 3 | HELD-arc_challenge | 295 |
| wiki_qa | 3 | 0 | 1 | 0 | 0 | 0 | 0 | 2 | HELD-wiki_qa | 42 |
| mine | 6 | 0 | 0 | 0 | 0 | 0 | 0 | 6 | HELD-mine | 242 |
| all | 15 | 0 | 1 | 0 | 0 | 0 | 0 | 14 | 2 | 624 |

- wiki_qa: 1 x the answer is marked as wrong

- goat: columns that were not used: answer, input
- arc_challenge: columns that were not used: id
- wiki_qa: columns that were not used: question_id
- mine: columns that were not used: Nr

## Tokens

| source | examples | overlong | cut | cut messages | cut tokens | tokens | supervised tokens |
| --- | --- | --- | --- | --- | --- | --- | --- |
TOKENS

## Sources and licences

- **goat**: [tiedong/goat](https://huggingface.co/datasets/tiedong/goat); licence: Apache-2.0 \
(recalled).
- **arc_challenge**: [allenai/ai2_arc](https://huggingface.co/datasets/allenai/ai2_arc); licence: \
CC-BY-SA-4.0.
  - what is made of it may only be passed on under the same licence
- **wiki_qa**: [microsoft/wiki_qa](https://huggingface.co/datasets/microsoft/wiki_qa); licence: \
Microsoft Research Data licence.
  - it has terms of its own, which may forbid training on it
- **mine**: org/mine; its licence is not known to Zephyr.
"""


def test_the_card_holds_account_tokens_sources_and_licences(built_workspace: HubWorkspace) -> None:
    built_workspace.go_offline()
    printed = built_workspace.zephyr("data", "card", "sft", "-r", "lent.yaml")
    manifest = json.loads((built_workspace.artifact("data.sft") / "manifest.json").read_text())
    tokens = json.loads((built_workspace.artifact("M1") / "examples.json").read_text())["sources"]
    assert {name: row["examples"] for name, row in tokens.items()} == {
        "goat": 3,
        "arc_challenge": 3,
        "wiki_qa": 2,
        "mine": 6,
    }
    keys = ("examples", "overlong", "cut", "cut_messages", "cut_tokens")
    keys += ("tokens", "supervised_tokens")
    counted = {f"| {n} | {' | '.join(str(row[k]) for k in keys)} |" for n, row in tokens.items()}
    before, _, after = CARD.partition("TOKENS\n")
    before = before.replace("CONTENT", manifest["content"])
    for name in tokens:
        before = before.replace(f"HELD-{name}", str(holdout_counts(built_workspace, "sft")[name]))
    assert printed.startswith(before)
    assert printed.endswith(after)
    rows = printed.removeprefix(before).removesuffix(after).splitlines()
    assert counted <= set(rows)


def test_commands_about_a_mixture_that_has_not_been_built(built_workspace: HubWorkspace) -> None:
    built_workspace.patch.setenv("ZEPHYR_RUNS", str(built_workspace.folder / "none"))
    expected = f"""\
Error: mixture 'sft' has not been drawn yet
  where:   {built_workspace.folder}/none
  to do:   zephyr data build lent.yaml
"""
    for command in (("show", "sft"), ("card", "sft"), ("diff", "sft", "votes")):
        assert built_workspace.zephyr("data", *command, "-r", "lent.yaml", code=2) == expected
    export = ("export", "sft", "--to", "trl", "--out", "there")
    assert built_workspace.zephyr("data", *export, "-r", "lent.yaml", code=2) == expected
    assert not (built_workspace.folder / "there").exists()


# -- show -----------------------------------------------------------------------------------------


def record_heads(printed: str) -> list[list[str]]:
    """Source, kind, id, tokens and supervised tokens of each record that is shown."""
    found = re.findall(r"(?m)^── (.*) · (.*) · (.*) · (.*) tokens, (.*) supervised$", printed)
    return [list(row) for row in found]


def test_show_a_record_as_a_model_sees_it(built_workspace: HubWorkspace) -> None:
    """Not to a terminal, it is plain text without a pager or colours."""
    printed = built_workspace.zephyr(
        "data", "show", "sft", "-r", "lent.yaml", "--source", "arc_challenge"
    )
    records = [
        r
        for r in built_workspace.rows("data.sft", "records.jsonl")
        if r["source"] == "arc_challenge"
    ]
    assert len(records) == len(record_heads(printed)) > 1
    assert "\x1b" not in printed
    tokenizer = tiny.tokenizer()
    for record, (source, kind, _, tokens, supervised), shown in zip(
        records, record_heads(printed), re.split("(?m)^── .*\n", printed)[1:], strict=True
    ):
        (_, question), (_, answer) = record["messages"]
        assert (source, kind) == ("arc_challenge", "chat")
        assert shown == f"Human: {question}\nAssistant: {answer}<|endoftext|>\n\n"
        parts = ("Human:", f" {question}", "\nAssistant:", f" {answer}<|endoftext|>")
        lengths = [len(tokenizer(part)["input_ids"]) for part in parts]
        # the last token is predicted, and never read
        assert (int(tokens), int(supervised)) == (sum(lengths) - 1, lengths[-1])


def test_show_counts_the_tokens_that_training_counted(built_workspace: HubWorkspace) -> None:
    """Of both sides."""
    counted = json.loads((built_workspace.artifact("M1") / "examples.json").read_text())["sources"]
    show = ("data", "show", "sft", "-r", "lent.yaml", "--side")
    shown = [
        row
        for side in ("train", "holdout")
        for row in record_heads(built_workspace.zephyr(*show, side))
    ]
    assert len(shown) == 14
    for source, row in counted.items():
        source_counts = [
            (int(tokens), int(learned)) for s, _, _, tokens, learned in shown if s == source
        ]
        assert (row["tokens"], row["supervised_tokens"]) == tuple(
            map(sum, zip(*source_counts, strict=True))
        )


def test_show_pairs_and_what_is_no_conversation(built_workspace: HubWorkspace) -> None:
    printed = built_workspace.zephyr("data", "show", "votes", "-r", "lent.yaml", "-n", "1")
    [record, *_] = built_workspace.rows("data.votes", "records.jsonl")
    [head] = record_heads(printed)
    assert head[:2] == [record["source"], "pair"]
    *prompt, chosen, rejected = printed.splitlines()[1:-1]
    assert prompt[-2:] == [f"Human: {record['prompt'][-1][1]}", "Assistant:"]
    assert re.fullmatch(f"chosen: +{re.escape(record['chosen'])}<.endoftext.>", chosen)
    assert re.fullmatch(f"rejected: +{re.escape(record['rejected'])}<.endoftext.>", rejected)
    printed = built_workspace.zephyr(
        "data", "show", "quiz", "-r", "lent.yaml", "-n", "1", "--model", "M0"
    )
    [record, *_] = built_workspace.rows("data.quiz", "records.jsonl")
    text = "\n".join([record["text"], *record["choices"]])
    count = str(len(tiny.tokenizer()(text)["input_ids"]))
    assert record_heads(printed)[0][1:2] + record_heads(printed)[0][3:] == ["choice", count, count]
    assert printed.split("\n", 1)[1].strip("\n") == text


def test_show_takes_a_side_and_a_part(built_workspace: HubWorkspace) -> None:
    def ids(*options: str) -> list[str]:
        return [
            row[2]
            for row in record_heads(
                built_workspace.zephyr("data", "show", "sft", "-r", "lent.yaml", *options)
            )
        ]

    lock = built_workspace.rows("data.sft", "lock.jsonl")
    train, out = ([row["id"] for row in lock if row["side"] == s] for s in ("train", "holdout"))
    assert (len(train), len(out)) == (12, 2)
    assert ids() == train
    assert ids("--side", "holdout") == out
    assert ids("--skip", "3", "-n", "2") == train[3:5]
    assert ids("--skip", "11") == train[11:]
    assert ids("--skip", "12") == []
    of_goat = [row["id"] for row in lock if (row["source"], row["side"]) == ("goat", "train")]
    assert ids("--source", "goat", "--skip", "1") == of_goat[1:]
    others = sorted(holdout_counts(built_workspace, "sft"))
    none = min({"goat", "arc_challenge", "mine"} - {*others})
    options = ("-r", "lent.yaml", "--side", "holdout", "--source", none)
    assert built_workspace.zephyr("data", "show", "sft", *options, code=2).splitlines()[:3] == [
        f"Error: unknown source {none!r}",
        "  where:   mixture sft, holdout",
        f"  allowed: {', '.join(others)}",
    ]


def test_show_lists_the_rows_that_were_left_out(built_workspace: HubWorkspace) -> None:
    left_out = ("data", "show", "sft", "-r", "lent.yaml", "--left-out")
    row, count = built_workspace.zephyr(*left_out).splitlines()
    assert re.fullmatch(
        r"wiki_qa row \d · .*\.parquet row \d · left out: the answer is marked as wrong", row
    )
    assert count == "1 row left out"
    assert built_workspace.zephyr(*left_out, "--source", "wiki_qa").splitlines() == [row, count]
    assert built_workspace.zephyr(*left_out, "--source", "goat") == "0 rows left out\n"
    assert built_workspace.zephyr(*left_out, "--source", "gaot", code=2).splitlines()[:3] == [
        "Error: unknown source 'gaot'",
        "  where:   mixture sft",
        "  allowed: arc_challenge, goat, mine, wiki_qa",
    ]
    listed = built_workspace.artifact("data.sft") / "left_out.jsonl"
    listed.unlink()
    assert (
        built_workspace.zephyr(*left_out, code=2)
        == f"""\
Error: an earlier version of Zephyr built this mixture, and listed no rows left out
  where:   {listed}
  to do:   remove {listed.parent.parent}, and build the mixture again (zephyr data build)
"""
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("show", "stf"),
            """\
Error: unknown mixture 'stf'
  where:   recipe lent
  allowed: quiz, sft, votes
  nearest: sft
""",
        ),
        (
            ("show", "sft", "--source", "gaot"),
            """\
Error: unknown source 'gaot'
  where:   mixture sft, train
  allowed: arc_challenge, goat, mine, wiki_qa
  nearest: goat
""",
        ),
        (
            ("show", "sft", "--model", "M4"),
            """\
Error: unknown model 'M4'
  where:   recipe lent
  allowed: M0, M1, M2, M3
  nearest: M3
""",
        ),
        (
            ("card", "vote"),
            """\
Error: unknown mixture 'vote'
  where:   recipe lent
  allowed: quiz, sft, votes
  nearest: votes
""",
        ),
        (
            ("export", "sft", "--to", "course", "--out", "there"),
            """\
Error: the form 'course' can't hold records of kind 'chat'
  allowed: llama-factory, trl, parquet
""",
        ),
        (
            ("export", "quiz", "--to", "trl", "--out", "there"),
            """\
Error: the form 'trl' can't hold records of kind 'choice'
  allowed: parquet, course
""",
        ),
        (
            ("diff", "sft", "there.jsonl"),
            """\
Error: unknown mixture 'there.jsonl'
  where:   recipe lent
  allowed: quiz, sft, votes
""",
        ),
        (
            ("diff", "sft", "lent.yaml"),
            """\
Error: this is no lock file
  where:   lent.yaml
  found:   Expecting value: line 1 column 1 (char 0)
""",
        ),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_reported_with_what_is(
    built_workspace: HubWorkspace, arguments: tuple[str, ...], expected: str
) -> None:
    assert built_workspace.zephyr("data", *arguments, "-r", "lent.yaml", code=2) == expected
    assert not (built_workspace.folder / "there").exists()


# -- diff and export ------------------------------------------------------------------------------


def test_equal_draws_do_not_differ(built_workspace: HubWorkspace) -> None:
    lock = built_workspace.artifact("data.sft")
    for other in ("sft", str(lock), str(lock / "lock.jsonl")):
        assert (
            built_workspace.zephyr("data", "diff", "sft", other, "-r", "lent.yaml")
            == "14 records are the same\n"
        )


def test_draws_by_another_seed_differ(built_workspace: HubWorkspace) -> None:
    capped = ("-s", "data.sft.cap=2")
    built_workspace.zephyr("data", "build", "lent.yaml", *capped)
    shutil.copytree(built_workspace.artifact("data.sft"), built_workspace.folder / "before")
    built_workspace.zephyr("data", "build", "lent.yaml", *capped, "-s", "seed=2")
    shutil.copy(
        built_workspace.artifact("data.sft") / "lock.jsonl", built_workspace.folder / "after.jsonl"
    )
    printed = built_workspace.zephyr("data", "diff", "before", "after.jsonl", code=1)
    locks = [read_lock(built_workspace.folder / name) for name in ("before", "after.jsonl")]
    one, other = ({(row["source"], row["row"]): row["side"] for row in lock} for lock in locks)
    assert len(one) == len(other) == 8
    both = one.keys() & other.keys()
    same = sum(one[key] == other[key] for key in both)
    gone, new = len(one) - len(both), len(other) - len(both)
    lines = [line for line in printed.splitlines() if not line.startswith(" ")]
    assert gone == new > 0
    assert lines[0] == f"{same} records are the same"
    assert lines[1].startswith(f"{gone} only in before: ")
    assert lines[2].startswith(f"{new} only in after.jsonl: ")
    assert (len(lines) == 4) == (same < len(both))


def test_a_mixture_against_a_lock_file(built_workspace: HubWorkspace) -> None:
    lock = read_lock(built_workspace.artifact("data.votes"))
    lock[0]["side"] = "holdout" if lock[0]["side"] == "train" else "train"
    lock[1]["id"] = "0" * 16
    del lock[2]
    (built_workspace.folder / "lock.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in lock)
    )
    built_workspace.edit_recipe(
        lambda r: r["models"].clear() or r["models"].update(M0={"base": "org/tiny"})
    )
    printed = built_workspace.zephyr(
        "data", "diff", "votes", "lock.jsonl", "-r", "lent.yaml", code=1
    )
    full = read_lock(built_workspace.artifact("data.votes"))

    def named(row: dict[str, Any]) -> str:
        return f"{row['source']} 1 (rows: {row['source']} {row['row']}, …)"

    assert printed.splitlines() == [
        "3 records are the same",
        f"1 only in votes: {named(full[2])}",
        f"1 of other content: {named(full[1])}",
        f"1 on another side: {named(full[0])}",
    ]
    (built_workspace.folder / "lock.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in full[::-1])
    )
    printed = built_workspace.zephyr(
        "data", "diff", "lock.jsonl", "votes", "-r", "lent.yaml", code=1
    )
    assert printed == "6 records are the same\nin another order\n"


@pytest.mark.parametrize(
    ("mixture", "form", "files"),
    [
        ("sft", "llama-factory", ["sft.json", "sft_holdout.json", "dataset_info.json"]),
        ("votes", "llama-factory", ["votes.json", "votes_holdout.json", "dataset_info.json"]),
        ("sft", "trl", ["sft.jsonl", "sft_holdout.jsonl"]),
        ("votes", "trl", ["votes.jsonl", "votes_holdout.jsonl"]),
        ("sft", "parquet", ["sft.parquet", "sft_holdout.parquet"]),
        ("quiz", "parquet", ["quiz.parquet"]),
        ("votes", "course", ["votes.jsonl", "votes_holdout.jsonl"]),
        ("quiz", "course", ["quiz.jsonl"]),
    ],
)
def test_export_writes_files_and_says_where(
    built_workspace: HubWorkspace, mixture: str, form: str, files: list[str]
) -> None:
    """What is written is read again, by a recipe that names it by its path."""
    built_workspace.go_offline()
    there = built_workspace.folder / "there" / "deep"
    options = ("--to", form, "--out", "there/deep", "-r", "lent.yaml")
    printed = built_workspace.zephyr("data", "export", mixture, *options)
    assert printed.splitlines() == [f"there/deep/{name}" for name in files]
    assert {path.name for path in there.iterdir()} == set(files)
    kinds = {"sft": "chat", "votes": "pair", "quiz": "choice"}
    split = mixtures.load_mixture(built_workspace.artifact(f"data.{mixture}"))
    for name, records in zip(files, split, strict=False):
        spec = SourceSpec(path=f"there/deep/{name}")
        opened_source = sources.open_source(
            spec,
            kind=kinds[mixture],
            use="train",
            origin=None,
            base=built_workspace.folder,
            where="here",
        )
        again, _ = sources.read_records(opened_source)
        assert len(again) == len(records) > 0
        if form != "course":
            assert [record.id for record in again] == [record.id for record in records]
    built_workspace.zephyr("data", "export", mixture, *options)
    assert {path.name for path in there.iterdir()} == set(files)


# -- a test whose question is trained on ----------------------------------------------------------


def test_an_evaluation_question_in_training_data_is_removed(built_workspace: HubWorkspace) -> None:
    """What learned from it is made again; what learned from a mixture that stays is kept."""
    revision = ("dataset", "allenai/ai2_arc", PARQUET)
    training_row = SAMPLE_ROWS["arc_challenge"][0]
    content = to_parquet([*SAMPLE_ROWS["arc_easy"], training_row])
    files = {
        **built_workspace.server.find_commit(*revision)[1],
        "ARC-Easy/test/0000.parquet": content,
    }
    built_workspace.server.push(
        *revision, {k: v for k, v in files.items() if k[:13] != "ARC-Easy/test" or v == content}
    )
    printed = built_workspace.zephyr("data", "fetch", "lent.yaml", "--again")
    assert f"{len(content) / 1e6:.1f} MB to fetch" in printed.splitlines()
    assert built_workspace.server.count_requests("/resolve/") == 1
    before = built_workspace.node_states()
    assert {n for n, s in before.items() if s == "stale"} == {
        n for n in before if n.endswith("/mcqa") or n.startswith("data.")
    }
    artifacts_before = {name: built_workspace.artifact(name) for name in before}
    printed = built_workspace.zephyr("data", "build", "lent.yaml")
    assert [line.split() for line in stripped_lines(printed) if "arc_challenge " in line] == [
        ["arc_challenge", "3", "0", "1", "2", "0", "169"]
    ]
    [found] = built_workspace.rows("data.sft", "contaminated.jsonl")
    assert {key: found[key] for key in ("source", "row", "task", "share")} == {
        "source": "arc_challenge",
        "row": "1",
        "task": "mcqa",
        "share": 1.0,
    }
    question = " ".join([training_row["question"], *training_row["choices"]["text"]])
    assert " ".join(found["question"].split()) == question
    assert found["id"] not in {row["id"] for row in built_workspace.rows("data.sft", "lock.jsonl")}
    assert built_workspace.rows("data.votes", "contaminated.jsonl") == []
    after = built_workspace.node_states()
    again = {name for name, state in after.items() if state == "stale"}
    assert again == {n for n in after if n[:2] in ("M1", "M2") or n.endswith("/mcqa")}
    assert built_workspace.artifact("M3") == artifacts_before["M3"]
    assert built_workspace.artifact("M1") != artifacts_before["M1"]
    end = f"10 of 19 nodes to make in {built_workspace.folder}/runs"
    assert built_workspace.zephyr("plan", "lent.yaml").splitlines()[-1] == end
