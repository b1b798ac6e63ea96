"""Behind a real nginx: with its defaults, and with the lines of docs/tutor.md."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.conftest import ROOT
from tests.tutor.conftest import start_server
from tests.tutor.page.actions import ask_question
from tests.workspace import Workspace
from zephyr.tutor.listen import PASSWORD_VARIABLE

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
PASSWORD = "a class of physics"
DOCS = (ROOT / "docs" / "tutor.md").read_text(encoding="utf-8")
[DOCUMENTED] = re.findall(r"```nginx\n(.*?)```", DOCS, re.DOTALL)
DEFAULT = "location / { proxy_pass http://127.0.0.1:8000; }"

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


class Proxy(NamedTuple):
    """Addresses of one tutor behind nginx: by its defaults, by our lines, and by these with TLS."""

    default: str
    documented: str
    tls: str


@pytest.fixture(scope="module")
def proxy(
    finished_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("nginx")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
        with start_server(finished_workspace, "M1", "M2", "--behind-proxy") as server:
            tutor = urlsplit(server.url).netloc
            ports = _free_ports(3)
            (folder / "nginx.conf").write_text(_nginx_conf(folder, tutor, ports))
            _make_certificate(folder)
            command = [str(NGINX), "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as nginx:
                try:
                    _wait_until_it_listens(nginx, ports[-1])
                    plain = [f"http://127.0.0.1:{port}" for port in ports[:2]]
                    yield Proxy(*plain, f"https://localhost:{ports[2]}")
                finally:
                    nginx.terminate()


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _nginx_conf(folder: Path, tutor: str, ports: list[int]) -> str:
    listens = [f"127.0.0.1:{port}" for port in ports]
    locations = [DEFAULT, DOCUMENTED, DOCUMENTED]
    tls = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
    servers = [
        f"server {{ listen {listen}; {location} }}".replace("127.0.0.1:8000", tutor)
        for listen, location in zip(listens, locations, strict=True)
    ]
    servers[2] = servers[2].replace(f"{listens[2]};", f"{listens[2]} ssl; {tls}")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = "access_log off;\n" + temporary + "\n".join(servers)
    return (
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{\n{http}\n}}\n"
    )


def _make_certificate(folder: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)


def _wait_until_it_listens(nginx: subprocess.Popen[str], port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and nginx.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.05)
    nginx.terminate()
    assert nginx.stderr is not None
    raise AssertionError(nginx.stderr.read())


def send(url: str, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
    """A request as the page at `url` sends it."""
    page = {"Origin": url, "Authorization": f"Bearer {PASSWORD}"}
    with httpx2.Client(base_url=url, verify=False, timeout=60) as http:  # its certificate is ours
        return http.request(method, path, headers={**page, **headers})


def test_the_page_and_its_modules_come_through_any_proxy(proxy: Proxy) -> None:
    for url in proxy:
        for path in ("/", "/teacher", "/page/main.js", "/page/style.css", "/healthz"):
            assert send(url, path).status_code == 200


def test_the_page_of_a_default_nginx_asks_by_the_browsers_word(proxy: Proxy) -> None:
    refused = send(proxy.default, "/tutor/session", "POST")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "foreign_origin")
    assert "proxy must pass on the host" in refused.json()["error"]["message"]
    same = {"Sec-Fetch-Site": "same-origin"}
    assert send(proxy.default, "/tutor/session", "POST", **same).status_code == 200


def test_the_lines_of_the_docs_are_enough(proxy: Proxy) -> None:
    for url in (proxy.documented, proxy.tls):
        assert send(url, "/tutor/session", "POST").status_code == 200
        evil = send(url, "/tutor/session", "POST", Origin="https://evil.example")
        assert evil.json()["error"]["code"] == "foreign_origin"
        assert send(url, "/tutor/config", "HEAD").status_code == 200
        wrong = send(url, "/v1/models", Authorization="Bearer wrong")
        assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")


def test_the_scheme_of_the_proxy_counts(proxy: Proxy) -> None:
    name = {"Host": "tutor.example"}
    assert "max-age" in send(proxy.tls, "/", **name).headers["strict-transport-security"]
    assert "strict-transport-security" not in send(proxy.documented, "/", **name).headers


def test_an_answer_is_streamed_through_it(proxy: Proxy) -> None:
    body = {"model": "M1", "messages": [{"role": "user", "content": "What is force?"}]}
    headers = {"Authorization": f"Bearer {PASSWORD}", "Origin": proxy.documented}
    body |= {"stream": True, "max_tokens": 8}
    with (
        httpx2.Client(base_url=proxy.documented, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response,
    ):
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) > 2


@pytest.mark.parametrize("kind", ["default", "documented"])
def test_a_browser_shows_the_page_and_asks(browser: Any, proxy: Proxy, kind: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(15_000)
    messages: list[str] = []
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(getattr(proxy, kind))
    page.get_by_label("The class password").fill(PASSWORD)
    page.keyboard.press("Enter")
    answer = ask_question(page, "What is force?")
    assert answer.inner_text().strip()
    page.get_by_role("tab", name="Quiz").click()  # which needs a session
    assert not page.get_by_text("another site").count()
    assert messages == []
    page.close()
