"""Load test of a class: what a server answers, keeps in memory, and has kept when it was killed.

python -m bench.serving.class_load [--users 100] [--seconds 60] [--hostile 0] [--recipe RECIPE]
    [--model NAME ...]

`zephyr serve` is a process of its own, and all goes over HTTP. After a first round, which warms it
up, memory is measured before and after the second. In the third the server is killed with SIGKILL:
every vote that it acknowledged must be in its log, and started again it must answer. Prints the
figures as JSON, and ends with 1 where something did not hold.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.serving.client import open_client
from bench.serving.hostile import HostileCrowd
from bench.serving.server import Server
from bench.serving.students import Classroom
from bench.shared.tables import percentile

MAX_GROWTH = 0.05
"""Share by which memory may grow from one round to the next."""
SETTLING_SECONDS, DRAIN_TIMEOUT = 3.0, 60.0
WARMUP = 0.5
"""Share of a round that warms the server up."""
SETTINGS = """\
course: Load
limits: {tokens: 32}
database: load.sqlite
"""


@dataclass(frozen=True)
class Plan:
    """What is served, from where, and to how many users."""

    recipe: str
    models: list[str]
    users: int
    seconds: float
    hostile: int = 0
    """Hostile clients beside the users, in the round that counts."""
    cwd: Path = field(default_factory=Path.cwd)
    environment: dict[str, str] = field(default_factory=dict)


async def measure(plan: Plan) -> dict[str, Any]:
    """All rounds; `failed` says what did not hold."""
    with tempfile.TemporaryDirectory(prefix="zephyr-load-") as name:
        folder = Path(name)
        (folder / "tutor.yaml").write_text(SETTINGS)
        votes: dict[str, str] = {}
        with _start(plan, folder) as server:
            await server.wait_until_listening()
            figures = await _rounds(plan, server, votes)
            figures["kill"] = await _kill(plan, server, votes)
        figures["log"] = _read_log(folder / "load.sqlite", votes)
        with _start(plan, folder) as server:
            await server.wait_until_listening()
            classroom = await _classroom(server.port)
            await classroom.attend(1, 0.5)
            figures["again"] = {
                "statuses": dict(classroom.statuses),
                "errors": dict(classroom.errors),
            }
            figures["again"]["stopped with"] = server.stop()
            figures["printed"] = server.output()[-2000:]
    figures["failed"] = failures(figures)
    return figures


def _start(plan: Plan, folder: Path) -> Server:
    command = [sys.executable, "-m", "zephyr", "serve", *plan.models, "--recipe", plan.recipe]
    command += ["--tutor", str(folder / "tutor.yaml"), "--port", "{port}"]
    return Server(command, folder / "server.log", plan.environment, plan.cwd)


async def _classroom(port: int) -> Classroom:
    """A classroom as the server describes it."""
    async with open_client(port) as client:
        models = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        config = await client.get("/tutor/config")
    return Classroom(port, models, config.json()["ways"] if config.status_code == 200 else [])


async def _rounds(plan: Plan, server: Server, votes: dict[str, str]) -> dict[str, Any]:
    """A round that warms up, and one that counts."""
    warmup = await _classroom(server.port)
    await warmup.attend(plan.users, plan.seconds * WARMUP)
    before = await _settled(server)
    classroom = await _classroom(server.port)
    crowd = HostileCrowd(server.port, classroom.models[0])
    attack = asyncio.create_task(crowd.attack(plan.hostile))
    start = time.monotonic()
    await classroom.attend(plan.users, plan.seconds, first=plan.users)
    seconds = time.monotonic() - start
    if attack.done():
        attack.result()  # it should last, if there are any: its error is ours
    attack.cancel()
    await asyncio.gather(attack, return_exceptions=True)
    after = await _settled(server)
    votes |= warmup.votes | classroom.votes
    first = classroom.first or [0.0]
    return {
        "users": plan.users,
        "seconds": round(seconds, 1),
        "models": classroom.models,
        "statuses": dict(sorted(classroom.statuses.items())),
        **dict(classroom.events),
        "first text, s": {
            "median": round(statistics.median(first), 3),
            "90 %": round(percentile(first, 0.9), 3),
            "slowest": round(max(first), 3),
        },
        "hostile": dict(sorted(crowd.outcomes.items())),
        "before": before,
        "after": after,
        "growth": round(after["memory"] / before["memory"] - 1, 4),
        "votes": len(classroom.votes),
        "errors": dict(warmup.errors + classroom.errors),
    }


async def _settled(server: Server) -> dict[str, int]:
    """Memory and open files, once the server has drained its requests."""
    end = time.monotonic() + DRAIN_TIMEOUT
    async with open_client(server.port) as client:
        while True:
            lines = (await client.get("/metrics")).text.splitlines()
            if {"zephyr_waiting 0.0", "zephyr_answering 0.0"} <= set(lines):
                break
            if time.monotonic() > end:
                raise SystemExit("answers that nobody waits for are still written after a minute")
            await asyncio.sleep(0.2)
    await asyncio.sleep(SETTLING_SECONDS)
    return {"memory": server.proportional_bytes(), "files": server.open_files()}


async def _kill(plan: Plan, server: Server, votes: dict[str, str]) -> dict[str, Any]:
    """SIGKILL at a random moment, while all are at work."""
    classroom = await _classroom(server.port)
    after = plan.seconds * WARMUP * random.Random(0).uniform(0.5, 1)

    async def kill() -> None:
        await asyncio.sleep(after)
        classroom.killed = True
        server.kill()

    await asyncio.gather(classroom.attend(plan.users, plan.seconds, first=2 * plan.users), kill())
    votes |= classroom.votes
    return {
        "after, s": round(after, 2),
        "votes": len(classroom.votes),
        "errors": dict(classroom.errors),
    }


def _read_log(path: Path, votes: dict[str, str]) -> dict[str, Any]:
    """What the log holds of the votes that were acknowledged."""
    if not path.exists():
        return {"integrity": "no log", "acknowledged": len(votes), "missing": sorted(votes)}
    with closing(sqlite3.connect(path)) as connection:
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        rows = connection.execute("SELECT key, body FROM events WHERE kind = 'vote'").fetchall()
    found = {key: json.loads(body)["overall"] for key, body in rows}
    missing = sorted(key for key, side in votes.items() if found.get(key) != side)
    counts = {"acknowledged": len(votes), "found": len(found)}
    return {"integrity": integrity, **counts, "missing": missing}


def failures(figures: dict[str, Any]) -> list[str]:
    """What did not hold."""
    log, again = figures["log"], figures["again"]
    answered = any(key.endswith(": 200") for key in again["statuses"])
    before, after = figures["before"]["files"], figures["after"]["files"]
    checks = {
        f"memory has grown by {figures['growth']:.1%}": figures["growth"] > MAX_GROWTH,
        f"{after} files are open, before the round fewer": after > before,
        f"of the log: {log}": log["acknowledged"] and (log["integrity"] != "ok" or log["missing"]),
        "started again, it answers nothing": not answered,
        "the server has printed a traceback": "Traceback" in figures["printed"],
    }
    return [
        *(f"{number} times: {text}" for text, number in figures["errors"].items()),
        *(f"before the kill: {text}" for text in figures["kill"]["errors"]),
        *(f"after the kill: {text}" for text in again["errors"]),
        *(text for text, has_failed in checks.items() if has_failed),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hostile", type=int, default=0, help="hostile clients beside the users")
    parser.add_argument("--recipe", default="embedded", help="one that has been run")
    parser.add_argument("--model", nargs="*", default=["M1", "M2"])
    given = parser.parse_args()
    plan = Plan(given.recipe, given.model, given.users, given.seconds, given.hostile)
    figures = asyncio.run(measure(plan))
    print(json.dumps(figures, indent=1))
    return int(bool(figures["failed"]))


if __name__ == "__main__":
    sys.exit(main())
