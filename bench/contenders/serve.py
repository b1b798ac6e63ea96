"""One server: started, asked by one user and by several at once over HTTP, stopped.

What is asked, and of which command, is in the job; the same requests go to every server. Answers
are streamed, and none ends before its limit: the models are made so (`bench/endless.py`).
"""

import asyncio
import hashlib
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.client import free_port, request
from bench.server import Server

PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Serving:
    """`command` starts the server, with `{port}` where the port goes; `model` is how it names it.

    Each load is a number of users, and how many requests they make together: a user makes one after
    the other. After `patience` seconds no user begins another.
    """

    command: list[str]
    environment: dict[str, str]
    versions: list[str]
    model: str
    prompts: list[str]
    warming: list[str]
    tokens: int
    loads: list[tuple[int, int]]
    patience: float
    folder: str
    device: str
    memory: int


class Heard(NamedTuple):
    """One answer: when it was asked for, when its first text came and its last, and its tokens."""

    asked: float
    first: float
    last: float
    prompt: int
    tokens: int
    text: str


async def hear(port: int, serving: Serving, prompt: str, limit: int) -> Heard:
    """Asks for an answer of `limit` tokens.

    Raises:
        SystemExit: the answer is an error, or has fewer tokens than it was to have.
    """
    body = {
        "model": serving.model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": limit,
    }
    asked = time.perf_counter()
    first = 0.0
    pieces: list[str] = []
    usage: dict[str, int] = {}
    async with request(port, "POST", PATH, body) as reply:
        if reply.status != 200:
            raise SystemExit(f"{reply.status}: {(await reply.content())[:2000]!r}")
        async for event in reply.events():
            if "error" in event:
                raise SystemExit(f"an answer ended in an error: {event}")
            piece = "".join(c["delta"].get("content") or "" for c in event["choices"])
            if piece and not pieces:
                first = time.perf_counter()
            if piece:
                pieces.append(piece)
            usage = event.get("usage") or usage
    last = time.perf_counter()
    text = "".join(pieces)
    if usage.get("completion_tokens") != limit:
        raise SystemExit(f"an answer of {limit} tokens was wanted, and came with {usage}")
    if prompt in text:
        raise SystemExit("an answer begins with the prompt: its first text tells nothing")
    return Heard(asked, first or last, last, usage["prompt_tokens"], limit, text)


async def load(port: int, serving: Serving, users: int, requests: int) -> dict[str, Any]:
    """What `users` at once make of so many requests."""
    waiting = list(enumerate(serving.prompts[:requests]))[::-1]
    heard: dict[int, Heard] = {}
    begin = time.perf_counter()

    async def user() -> None:
        while waiting and time.perf_counter() - begin < serving.patience:
            at, prompt = waiting.pop()
            heard[at] = await hear(port, serving, prompt, serving.tokens)

    await asyncio.gather(*(user() for _ in range(users)))
    answers = [heard[at] for at in sorted(heard)]
    seconds = max(a.last for a in answers) - min(a.asked for a in answers)
    tokens = sum(a.tokens for a in answers)
    return {
        "users": users,
        "answers": len(answers),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "first": [a.first - a.asked for a in answers],
        "between": [(a.last - a.first) / max(1, a.tokens - 1) for a in answers],
        "prompt_tokens": statistics.mean(a.prompt for a in answers),
        "said": [hashlib.sha256(a.text.encode()).hexdigest()[:16] for a in answers],
    }


async def measure(serving: Serving) -> dict[str, Any]:
    port = free_port()
    command = [part.format(port=port) for part in serving.command]
    log = Path(serving.folder) / "server.log"
    cwd = Path(serving.folder)
    with Server(command, port, log, cwd=cwd, environment=serving.environment) as server:
        try:
            await server.listening()
            await hear(port, serving, serving.warming[0], 1)
            started = time.monotonic() - server.began
            for users in {users for users, _ in serving.loads}:
                await asyncio.gather(
                    *(hear(port, serving, prompt, 8) for prompt in serving.warming[:users])
                )
            loaded = server.resident_bytes()
            loads = [await load(port, serving, *each) for each in serving.loads]
            return {
                "start": started,
                "loads": loads,
                "loaded_bytes": loaded,
                "peak_bytes": server.peak_bytes(),
                "own_bytes": server.own_bytes(),
            }
        except SystemExit as error:
            raise SystemExit(f"{error}\n{server.printed()}") from None


def versions(python: str, names: list[str]) -> dict[str, str]:
    """The versions of packages that an interpreter sees."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"  # noqa: E501  # a line of Python
    done = subprocess.run([python, "-c", code, *names], check=True, stdout=subprocess.PIPE)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main() -> None:
    source, goal = map(Path, sys.argv[1:])
    serving = Serving(**json.loads(source.read_text()))
    result = asyncio.run(measure(serving))
    result["versions"] = versions(serving.command[0], serving.versions)
    goal.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
