"""Fixtures: the tutor's pages in a browser, on a real server of the tiny recipe."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tutor.conftest import Server, start_server
from tests.tutor.page.actions import COURSE, HINTS
from tests.workspace import Workspace


@pytest.fixture(scope="package")
def tutor_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a course that the tiny models, which read 128 tokens, can keep up with."""
    path = tmp_path_factory.mktemp("course") / "tutor.yaml"
    hints = [{"name": name, "ask": f"{n}?"} for n, name in enumerate(HINTS)]
    limits = {"message": 120, "tokens": 24}
    settings = {"course": COURSE, "hints": hints, "limits": limits, "database": "events.sqlite"}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="package")
def server(finished_workspace: Workspace, tutor_yaml: Path) -> Iterator[Server]:
    with start_server(finished_workspace, "--tutor", str(tutor_yaml)) as found:
        yield found


OpenPage = Callable[..., Any]


@pytest.fixture
def console_messages() -> list[str]:
    """What the browser complained about; a test that expects some of it takes it away."""
    return []


@pytest.fixture
def open_page(browser: Any, server: Server, console_messages: list[str]) -> Iterator[OpenPage]:
    """Opens a page; at the end none may have complained, nor asked another server."""
    contexts = []
    requested_urls: list[str] = []

    def open_page(path: str = "", *, width: int = 1280, dark: bool = False) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: console_messages.append(message.text))
        page.on("pageerror", lambda error: console_messages.append(str(error)))
        page.on("request", lambda request: requested_urls.append(request.url))
        page.goto(f"{server.url}/{path}")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.harm") is None
        context.close()
    assert console_messages == []
    own_urls = (server.url, f"blob:{server.url}")
    assert [url for url in requested_urls if not url.startswith(own_urls)] == []
