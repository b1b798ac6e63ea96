"""Serving worker: starts one server, sends it the requests of one user and of several, stops it.

The same requests go to every server. Answers are streamed, and none ends before its limit, for the
models are endless (`bench.shared.models`).
"""

import asyncio
import hashlib
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from httpx2 import AsyncClient

from bench.serving.client import CHAT, EventStream, event_text, open_client
from bench.serving.server import Server
from bench.shared.worker import Job, main

WARMUP_TOKENS = 8
PRINT_VERSIONS = (
    "import importlib.metadata as m, json, sys;"
    "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
)


class Answer(NamedTuple):
    """An answer: times of its request, its first text and its end; its tokens, and its text."""

    start: float
    first: float
    end: float
    prompt_tokens: int
    tokens: int
    text: str


async def request(client: AsyncClient, job: Job, prompt: str, tokens: int) -> Answer:
    """Requests an answer of so many tokens.

    Raises:
        SystemExit: the answer is an error, or has fewer tokens.
    """
    body = {
        "model": job.model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": tokens,
    }
    start = time.perf_counter()
    first = 0.0
    text = ""
    usage: dict[str, int] = {}
    async with client.stream("POST", CHAT, json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {(await response.aread())[:2000]!r}")
        async for event in EventStream(response):
            if "error" in event:
                raise SystemExit(f"an answer ended in an error: {event}")
            piece = event_text(event)
            if piece and not text:
                first = time.perf_counter()
            text += piece
            usage = event.get("usage") or usage
    end = time.perf_counter()
    if usage.get("completion_tokens") != tokens:
        raise SystemExit(f"an answer of {tokens} tokens was wanted, and came with {usage}")
    if prompt in text:
        raise SystemExit("an answer begins with the prompt: the time of its first text is void")
    return Answer(start, first or end, end, usage["prompt_tokens"], tokens, text)


async def measure_load(client: AsyncClient, job: Job, users: int, requests: int) -> dict[str, Any]:
    """Throughput and latencies of so many requests by so many users at once."""
    waiting = list(enumerate(job.prompts[:requests]))[::-1]
    found: dict[int, Answer] = {}
    start = time.perf_counter()

    async def user() -> None:
        while waiting and time.perf_counter() - start < job.max_seconds:
            at, prompt = waiting.pop()
            found[at] = await request(client, job, prompt, job.tokens)

    await asyncio.gather(*(user() for _ in range(users)))
    answers = [found[at] for at in sorted(found)]
    seconds = max(a.end for a in answers) - min(a.start for a in answers)
    tokens = sum(a.tokens for a in answers)
    return {
        "users": users,
        "answers": len(answers),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "first": [a.first - a.start for a in answers],
        "between": [(a.end - a.first) / max(1, a.tokens - 1) for a in answers],
        "prompt_tokens": statistics.mean(a.prompt_tokens for a in answers),
        "texts": [_digest(a.text) for a in answers],
    }


def _digest(text: str) -> str:
    """Digest of a text, without the half character at its end that not all servers send."""
    return hashlib.sha256(text.rstrip("\ufffd").encode()).hexdigest()[:16]


async def measure_server(job: Job) -> dict[str, Any]:
    folder = Path(job.folder)
    with Server(job.command, folder / "server.log", job.environment, folder) as server:
        try:
            await server.wait_until_listening()
            async with open_client(server.port) as client:
                await request(client, job, job.warmup[0], 1)
                start = time.monotonic() - server.start_time
                for users, _ in job.loads:
                    warmup = (request(client, job, p, WARMUP_TOKENS) for p in job.warmup[:users])
                    await asyncio.gather(*warmup)
                loads = [await measure_load(client, job, *load) for load in job.loads]
            return {"start": start, "loads": loads, "peak_bytes": server.peak_bytes()}
        except SystemExit as error:
            raise SystemExit(f"{error}\n{server.output()}") from None


def run(job: Job) -> dict[str, Any]:
    result = asyncio.run(measure_server(job))
    command = [job.command[0], "-c", PRINT_VERSIONS, *job.packages]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return {**result, "versions": json.loads(done.stdout)}


if __name__ == "__main__":
    main(run)
