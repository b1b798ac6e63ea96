"""Shared fixtures; all tests run offline, on one thread."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_process import fork_workers
from tests.workspace import Command, CommandOutput, Workspace, run_once, tiny_recipe
from zephyr.cli import app as cli

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "120"}
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["ZEPHYR_CACHE"] = tempfile.mkdtemp(prefix="zephyr-cache-")

# a shell that starts tests in the background has them ignore what Ctrl-C sends, and their children
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


def pytest_collection_finish() -> None:
    """What is imported stays: nobody need look for garbage in it all the time."""
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that ask for it are skipped where it is absent."""
    folder = Path(os.environ.get("ZEPHYR_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not at {folder}; set ZEPHYR_REAL_DATA")
    return folder.resolve()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, without a window."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def finished_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the tiny recipe has been run; tests must not change it."""
    return run_once(tmp_path_factory.getbasetemp(), "finished", tiny_recipe())


@pytest.fixture
def zephyr(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line within this process; its workers are forks of it, and start at once."""
    fork_workers(monkeypatch.setattr)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})  # one worker of one thread

    def run(*arguments: str) -> CommandOutput:
        monkeypatch.setattr(sys, "argv", ["zephyr", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = int(error.code or 0)
        return CommandOutput(code, *capfd.readouterr())

    return run
