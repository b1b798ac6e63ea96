"""A class under load: what a server answers, keeps in memory, and has kept when it was killed.

python -m bench.load [--users 100] [--seconds 60] [--recipe RECIPE] [--model NAME ...]

`zephyr serve` is a process of its own, and all goes over HTTP. After a first round, which warms it
up, memory is measured before and after the second. In the third the server is killed with SIGKILL:
every vote that it acknowledged must be in its log, and started again it must answer. Prints the
figures as JSON, and ends with 1 where something did not hold.
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import free_port, request
from bench.page_serving import percentile
from bench.server import Server
from bench.students import Class, attend

GROWTH = 0.05
"""Share by which memory may grow from one round to the next."""
SETTLING = 3.0
WARMING = 0.5
"""Share of a round that warms the server up."""
SETTINGS = """\
course: Load
limits: {tokens: 32}
database: load.sqlite
"""


@dataclass(frozen=True)
class Plan:
    """What is served, from where, and by whom it is asked."""

    recipe: str
    models: list[str]
    users: int
    seconds: float
    cwd: Path
    environment: dict[str, str]
    seed: int = 0


async def measure(plan: Plan) -> dict[str, Any]:
    """All rounds; `failed` says what did not hold."""
    with tempfile.TemporaryDirectory(prefix="zephyr-load-") as name:
        folder = Path(name)
        (folder / "tutor.yaml").write_text(SETTINGS)
        votes: dict[str, str] = {}
        with _start(plan, folder) as server:
            await server.listening()
            figures = await _rounds(plan, server, votes)
            figures["kill"] = await _kill(plan, server, votes)
        figures["log"] = _log(folder / "load.sqlite", votes)
        with _start(plan, folder) as server:
            await server.listening()
            room = await _enter(server.port)
            await attend(room, 1, 0.5)
            figures["again"] = {"statuses": dict(room.statuses), "errors": dict(room.errors)}
            figures["again"]["stopped with"] = server.stop()
            figures["printed"] = server.printed()[-2000:]
    figures["failed"] = failed(figures)
    return figures


def _start(plan: Plan, folder: Path) -> Server:
    port = free_port()
    return Server(
        [
            *(sys.executable, "-m", "zephyr", "serve", *plan.models, "--recipe", plan.recipe),
            *("--tutor", str(folder / "tutor.yaml"), "--port", str(port)),
        ],
        port,
        folder / "server.log",
        cwd=plan.cwd,
        environment=plan.environment,
    )


async def _enter(port: int) -> Class:
    """A class as the server describes it."""
    async with request(port, "GET", "/v1/models") as reply:
        models = [model["id"] for model in (await reply.json())["data"]]
    async with request(port, "GET", "/tutor/config") as reply:
        ways = (await reply.json())["ways"] if reply.status == 200 else []
    return Class(port, models, ways)


async def _rounds(plan: Plan, server: Server, votes: dict[str, str]) -> dict[str, Any]:
    """A round that warms up, and one that counts."""
    warm = await _enter(server.port)
    await attend(warm, plan.users, plan.seconds * WARMING)
    before = await _settled(server)
    room = await _enter(server.port)
    start = time.monotonic()
    await attend(room, plan.users, plan.seconds, first=plan.users)
    seconds = time.monotonic() - start
    after = await _settled(server)
    votes |= warm.votes | room.votes
    return {
        "users": plan.users,
        "seconds": round(seconds, 1),
        "models": room.models,
        "statuses": dict(sorted(room.statuses.items())),
        **dict(room.events),
        "first text, s": {
            "median": round(statistics.median(room.first or [0.0]), 3),
            "90 %": round(percentile(room.first or [0.0], 0.9), 3),
        },
        "before": before,
        "after": after,
        "growth": round(after["memory"] / before["memory"] - 1, 4),
        "votes": len(room.votes),
        "errors": dict(warm.errors + room.errors),
    }


async def _settled(server: Server) -> dict[str, int]:
    """Memory and open files, once nothing is asked any more."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        async with request(server.port, "GET", "/metrics") as reply:
            text = (await reply.content()).decode()
        if {"zephyr_waiting 0.0", "zephyr_answering 0.0"} <= set(text.splitlines()):
            break
        await asyncio.sleep(0.2)
    else:
        raise SystemExit("answers that nobody waits for are still being written after a minute")
    await asyncio.sleep(SETTLING)
    return {"memory": server.proportional_bytes(), "files": server.files()}


async def _kill(plan: Plan, server: Server, votes: dict[str, str]) -> dict[str, Any]:
    """SIGKILL at a moment that is drawn, while all are at work."""
    room = await _enter(server.port)
    after = plan.seconds * WARMING * random.Random(plan.seed).uniform(0.5, 1)

    async def kill() -> None:
        await asyncio.sleep(after)
        room.over = True
        server.kill()

    await asyncio.gather(attend(room, plan.users, plan.seconds, first=2 * plan.users), kill())
    votes |= room.votes
    return {"after, s": round(after, 2), "votes": len(room.votes), "errors": dict(room.errors)}


def _log(path: Path, votes: dict[str, str]) -> dict[str, Any]:
    """What the log holds of the votes that were acknowledged."""
    if not path.exists():
        return {"integrity": "no log", "acknowledged": len(votes), "missing": sorted(votes)}
    with closing(sqlite3.connect(path)) as connection:
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        rows = connection.execute("SELECT key, body FROM events WHERE kind = 'vote'").fetchall()
    found = {key: json.loads(body)["overall"] for key, body in rows}
    missing = sorted(key for key, side in votes.items() if found.get(key) != side)
    return {
        "integrity": integrity,
        "acknowledged": len(votes),
        "found": len(found),
        "missing": missing,
    }


def failed(figures: dict[str, Any]) -> list[str]:
    """What did not hold."""
    log, again = figures["log"], figures["again"]
    found = [
        *(f"{number} times: {text}" for text, number in figures["errors"].items()),
        *(f"before the kill: {text}" for text in figures["kill"]["errors"]),
        *(f"after the kill: {text}" for text in again["errors"]),
    ]
    if figures["growth"] > GROWTH:
        found.append(f"memory has grown by {figures['growth']:.1%}")
    if figures["after"]["files"] > figures["before"]["files"]:
        found.append(f"{figures['after']['files']} files are open, before the round fewer")
    if log["acknowledged"] and (log["integrity"] != "ok" or log["missing"]):
        found.append(f"of the log: {log}")
    if not any(key.endswith(": 200") for key in again["statuses"]):
        found.append("started again, it answers nothing")
    if "Traceback" in figures["printed"]:
        found.append("the server has printed a traceback")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--recipe", default="embedded", help="one that has been run")
    parser.add_argument("--model", nargs="*", default=["M1", "M2"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plan = Plan(
        given.recipe,
        given.model,
        given.users,
        given.seconds,
        Path.cwd(),
        dict(os.environ),
        given.seed,
    )
    figures = asyncio.run(measure(plan))
    print(json.dumps(figures, indent=1))
    return int(bool(figures["failed"]))


if __name__ == "__main__":
    sys.exit(main())
