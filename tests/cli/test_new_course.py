"""A new course: its files can be used as they are, and every command of docs/my-course.md runs."""

import re
import shlex
import signal
import socket
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests import tiny
from tests.conftest import ROOT
from tests.workspace import Command, CommandOutput, Workspace, wait_for

PAGE = (ROOT / "docs" / "my-course.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny base model that has a chat template."""
    model = tiny.make_model("llama")
    model.causal.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.enable_socket
def test_all_commands_of_the_page_run_in_their_order(
    tmp_path: Path, base: Path, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEPHYR_RUNS", str(tmp_path / "biology" / "runs"))
    outputs: dict[str, CommandOutput] = {}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "cd":
            monkeypatch.chdir(arguments[0])
            continue
        assert program == "zephyr"
        if arguments[0] == "new":
            arguments += ["--base", str(base)]
        if arguments[0] == "serve":
            serve_and_stop(tmp_path / "biology", arguments)
            continue
        outputs[command] = zephyr(*arguments)
        assert outputs[command].code == 0, (command, outputs[command])
    run = outputs["zephyr run biology.yaml"].out
    assert all(f"done {m}/{t} " in run for m in ("M0", "M1", "M2") for t in ("lessons", "quiz"))
    assert "12 as a letter" in run
    assert "lessons    30    30" in outputs["zephyr data build biology.yaml"].out
    assert (tmp_path / "biology" / "runs" / "biology" / "report.html").is_file()
    [votes] = [o.out for c, o in outputs.items() if c.startswith("zephyr preferences")]
    assert "votes 1" in votes
    recipe = tmp_path / "biology" / "biology.yaml"
    [sources] = re.findall(r"```yaml\n(.*?)\n```", PAGE)
    recipe.write_text(recipe.read_text().replace("sources: [{path: pairs.jsonl}]", sources))
    again = zephyr("run", "biology.yaml")
    assert again.code == 0
    assert "done M2 " in again.out
    assert "done M1 " not in again.out  # its data have not changed


def serve_and_stop(folder: Path, arguments: list[str]) -> None:
    """Starts the server, reads its page and its models, and stops it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = Workspace(folder).start_command(*arguments, "--port", str(port))
    url = f"http://127.0.0.1:{port}"

    def is_answering() -> bool:
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{url}/healthz").status_code == 200
        return False

    try:
        wait_for(is_answering, process)
        config = httpx2.get(f"{url}/tutor/config").json()
        assert config["course"] == "biology"
        assert config["ways"] == ["ask", "compare", "quiz", "hint"]
        assert [m["id"] for m in httpx2.get(f"{url}/v1/models").json()["data"]] == ["M2", "M0"]
        vote(url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def vote(url: str) -> None:
    """A student compares two answers, and prefers the first."""
    session = httpx2.post(f"{url}/tutor/session", json={}).json()["session"]
    question = {"session": session, "messages": [{"role": "user", "content": "What is osmosis?"}]}
    events = httpx2.post(f"{url}/tutor/compare", json=question, timeout=60).text
    [comparison] = set(re.findall(r'"comparison": ?"([^"]+)"', events))
    body = {"session": session, "comparison": comparison, "overall": "A"}
    assert httpx2.post(f"{url}/tutor/vote", json=body).json()["stored"] is True


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, zephyr: Command) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    found = zephyr("new", str(tmp_path))
    assert (found.code, found.err.splitlines()[0]) == (2, "Error: something is there already")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    found = zephyr("new", str(tmp_path / "my course"))
    assert found.code == 2
    assert "this can't be its name" in found.err
