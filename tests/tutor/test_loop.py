"""The whole loop: served, compared, voted on, killed, exported, and learned from."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.conftest import CHROMIUM
from tests.tutor.conftest import start_server
from tests.tutor.page.actions import open_tab
from tests.workspace import WORDS, Workspace
from zephyr.tutor.events import EventLog

pytestmark = pytest.mark.enable_socket

Vote = Callable[[str, list[str]], list[str]]
SETTINGS = {"course": "Words", "temperature": 1.5, "limits": {"tokens": 16}}


@pytest.fixture
def vote(request: pytest.FixtureRequest) -> Vote:
    """Asks a server each question in Compare, votes for A, and gives the comparisons' ids.

    A student does so on the page; where no browser is installed, over HTTP.
    """
    if CHROMIUM is None:
        return _vote_over_http
    browser = request.getfixturevalue("browser")
    return lambda url, questions: _vote_on_page(browser, url, questions)


def _vote_on_page(browser: Any, url: str, questions: list[str]) -> list[str]:
    page = browser.new_page()
    page.set_default_timeout(15_000)
    page.goto(url)
    panel = open_tab(page, "Compare")
    acknowledged = []
    for question in questions:
        page.get_by_label("A question for both").fill(question)
        page.keyboard.press("Enter")
        panel.locator(".ballot").get_by_text("A is better").click()
        with page.expect_response("**/tutor/vote") as vote_response:
            panel.get_by_role("button", name="Send the vote").click()
        assert vote_response.value.json()["stored"] is True
        acknowledged.append(vote_response.value.request.post_data_json["comparison"])
        panel.get_by_role("button", name="Ask another").click()
    page.close()
    return acknowledged


def _vote_over_http(url: str, questions: list[str]) -> list[str]:
    acknowledged = []
    with httpx2.Client(base_url=url, timeout=60) as http:
        session = http.post("/tutor/session").json()["session"]
        for question in questions:
            comparison = _compare(http, session, question)
            body = {"session": session, "comparison": comparison, "overall": "A"}
            assert http.post("/tutor/vote", json=body).json()["stored"] is True
            acknowledged.append(comparison)
    return acknowledged


def _compare(http: httpx2.Client, session: str, question: str) -> str:
    """The id of a comparison whose answers have both come."""
    body = {"session": session, "messages": [{"role": "user", "content": question}]}
    with http.stream("POST", "/tutor/compare", json=body) as response:
        assert response.status_code == 200
        *_, last, done = [line for line in response.iter_lines() if line]
    assert done == "data: [DONE]"
    return str(json.loads(last.removeprefix("data: "))["comparison"])


def test_what_a_class_prefers_is_learned(
    finished_workspace: Workspace, tmp_path: Path, vote: Vote
) -> None:
    workspace = finished_workspace.copy(tmp_path / "copy")
    (workspace.folder / "tutor.yaml").write_text(yaml.safe_dump(SETTINGS))
    with start_server(workspace, "M0", "M1", "--tutor", "tutor.yaml") as server:
        acknowledged = vote(server.url, [f"What is {word}?" for word in WORDS])
        os.kill(server.process.pid, signal.SIGKILL)

    database = workspace.runs / "tutor.sqlite"
    with sqlite3.connect(database) as log:
        assert log.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    log.close()
    events = EventLog(database)
    assert [vote.key for vote in events.list_events("vote")] == acknowledged
    assert [event.key for event in events.list_events("comparison")] == acknowledged
    events.close()

    arguments = ("preferences", "export", "--out", "class.json", "--tutor", "tutor.yaml")
    assert workspace.run_command(*arguments) == "class.json: questions 8, votes 8\n"
    rows = json.loads((workspace.folder / "class.json").read_text())
    assert [row["question_complete"] for row in rows] == [f"What is {w}?" for w in WORDS]

    recipe = yaml.safe_load(workspace.recipe_path.read_text())
    recipe["data"]["class"] = {
        "kind": "pair",
        "clean": "report",
        "sources": [{"name": "votes", "path": "class.json"}],
    }
    align = {"data": "class", "steps": 4, "batch": 4, "lr": 1e-3, "log_every": 1}
    recipe["models"]["M3"] = {"from": "M1", "align": align}
    workspace.recipe_path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    before = workspace.fingerprints()
    workspace.run_command("run", "tiny.yaml")
    after = workspace.fingerprints()
    assert {name: after[name] for name in before} == before  # nothing else was made again
    manifest = json.loads(
        (workspace.run_folder("data.class") / "artifact" / "manifest.json").read_text()
    )
    assert manifest["sources"]["votes"]["seen"] == 8
    assert manifest["sources"]["votes"]["kept"] >= 6  # two answers may be the same, or empty
    losses = [
        json.loads(line)["loss"]
        for line in (workspace.run_folder("M3") / "metrics.jsonl").read_text().splitlines()
        if "loss" in json.loads(line)
    ]
    assert losses[-1] < losses[0]
    assert (workspace.run_folder("M3/gsm8k") / "artifact" / "scores.json").exists()

    with (
        start_server(workspace, "M1", "M3", "--tutor", "tutor.yaml") as server,
        httpx2.Client(base_url=server.url, timeout=60) as http,
    ):
        models = http.get("/tutor/config").json()["models"]
        assert models == [
            {"id": "M1", "about": "M0, tuned on chat"},
            {"id": "M3", "about": "M1, aligned on class"},
        ]
        http.headers["Authorization"] = f"Bearer {server.token}"
        assert http.get("/teacher/summary").json()["votes"] == 8
