"""Installs six real clients, unmodified, and runs each against `zephyr serve` of the tiny recipe.

    python -m tests.clients.run_clients [--folder FOLDER]

The clients are openai, litellm, langchain-openai and llm (pip, in an environment of their own), and
openai and the Vercel AI SDK (npm). Each asks for an answer, streams one, sends a history back with
the answer that it got, and must raise its own class of error where a conversation is too long. It
needs the network, Node and some minutes, and is not run by the tests. With `--folder` what was
installed and run there before is used again. Prints a line a client; ends with 1 where one failed.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from bench.serving.server import Server
from tests.workspace import Workspace, make_workspace

PYTHON_PACKAGES = ("openai", "litellm", "langchain-openai", "llm")
NODE_PACKAGES = ("openai", "ai", "@ai-sdk/openai-compatible")
CLIENTS = {
    "openai for Python": ("python", "openai_client.py"),
    "litellm": ("python", "litellm_client.py"),
    "langchain-openai": ("python", "langchain_client.py"),
    "llm": ("python", "llm_client.py"),
    "openai for Node": ("node", "openai_client.mjs"),
    "Vercel AI SDK": ("node", "ai_sdk_client.mjs"),
}
SOURCES = Path(__file__).parent


def install(folder: Path) -> None:
    """Installs the packages of both languages, unless they are there."""
    if not (folder / "venv").exists():
        venv.create(folder / "venv", with_pip=True)
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, *PYTHON_PACKAGES])
    if not (folder / "node_modules").exists():
        (folder / "package.json").write_text('{"private": true}')
        npm = ["npm", "install", "--no-fund", "--no-audit", "--silent"]
        _run([*npm, "--prefix", str(folder), *NODE_PACKAGES], folder)


def versions(folder: Path) -> dict[str, str]:
    """The installed version of each package."""
    listed = _run([str(folder / "venv/bin/python"), "-m", "pip", "list", "--format", "json"])
    found = {one["name"]: one["version"] for one in json.loads(listed)}
    python = {f"{name} (Python)": found[name] for name in PYTHON_PACKAGES}
    node = {
        f"{name} (Node)": json.loads(
            (folder / "node_modules" / name / "package.json").read_text(encoding="utf-8")
        )["version"]
        for name in NODE_PACKAGES
    }
    return python | node


def run_client(folder: Path, name: str, url: str) -> str:
    """What a client printed when it failed; empty where all went well."""
    language, file = CLIENTS[name]
    program = str(folder / "venv/bin/python") if language == "python" else "node"
    source = folder / file  # Node looks for packages beside the file
    source.write_text((SOURCES / file).read_text(encoding="utf-8"), encoding="utf-8")
    environment = {**os.environ, "BASE_URL": f"{url}/v1", "LLM_USER_PATH": str(folder / "llm")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [program, str(source)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-3000:]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="zephyr-clients-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        install(folder)
        workspace = Workspace(folder / "workspace")
        if not (workspace.runs / "tiny" / "report.html").exists():
            make_workspace(workspace.folder).run_command("run", "tiny.yaml")
        print(json.dumps(versions(folder), indent=2))
        return asyncio.run(_run_all(folder, workspace))


async def _run_all(folder: Path, workspace: Workspace) -> int:
    command = [sys.executable, "-m", "zephyr", "serve", "M1", "M2", "--recipe", "tiny.yaml"]
    environment = {"ZEPHYR_RUNS": str(workspace.runs), "OMP_NUM_THREADS": "1"}
    failed = 0
    with Server(
        [*command, "--port", "{port}"], folder / "server.log", environment, workspace.folder
    ) as server:
        await server.wait_until_listening()
        for name in CLIENTS:
            problem = run_client(folder, name, f"http://127.0.0.1:{server.port}")
            print(f"{name}: {'failed' if problem else 'ok'}\n{problem}".strip(), flush=True)
            failed += bool(problem)
    return 1 if failed else 0


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
