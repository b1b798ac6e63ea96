"""Brings a recipe's runs up to date: what is there already is kept, the rest is made.

Stages run in worker processes, `run.jobs` of them side by side, each on its share of the cores.
The engine itself computes nothing and never imports torch.
"""

import multiprocessing
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from zephyr import graph
from zephyr.data import sources
from zephyr.errors import ZephyrError
from zephyr.evaluate.task import find, sources_of
from zephyr.graph import Node
from zephyr.model.base import content
from zephyr.recipe import Recipe, Source, Use
from zephyr.store import Store, write_json
from zephyr.worker import Order, Report, work

State = Literal["fresh", "waiting", "stale", "missing", "unfinished", "failed"]

VERSIONS = {
    "mixture": 2,
    "base": 1,
    "pretrain": 1,
    "tune": 1,
    "align": 1,
    "quantize": 1,
}
"""Raised when a stage's results change; evaluations carry the version of their task."""

PATIENCE = 5.0
"""Seconds in which a worker with nothing to do has to end."""

WEIGHT = {"pretrain": 60, "tune": 20, "align": 20, "quantize": 2, "evaluation": 4}
"""How long kinds take beside each other: what many others wait for is made first."""


@dataclass(frozen=True)
class Plan:
    """The nodes of a recipe, and what is there of each."""

    recipe: Recipe
    folder: Path
    """Where the recipe lies: its relative paths start there."""
    store: Store
    nodes: Mapping[str, Node]
    contents: Mapping[str, str]
    """Hashes of the records of mixtures, as they are or were before they are drawn again."""

    def state(self, name: str) -> State:
        """Whether a node's run is there, was made from other inputs, or is not there.

        It is waiting if it is there, and a mixture that it was made of has to be drawn again: it
        stays if that gives the same records.
        """
        node = self.nodes[name]
        run = self.store.find(node.fingerprint)
        if run.finished:
            return "fresh" if all(map(self._settled, node.inputs.values())) else "waiting"
        if run.failure is not None:
            return "failed"
        if run.path.exists():
            return "unfinished"
        return "stale" if self.last(name) not in (None, node.fingerprint) else "missing"

    def _settled(self, name: str) -> bool:
        """Whether all mixtures that a node is made of are drawn."""
        node = self.nodes[name]
        drawn = node.kind != "mixture" or self.store.find(node.fingerprint).finished
        return drawn and all(map(self._settled, node.inputs.values()))

    def last(self, name: str) -> str | None:
        """The fingerprint under which the node was known when the recipe was last run."""
        before = self.before(name)
        return before["fingerprint"] if before else None

    def before(self, name: str) -> dict[str, Any] | None:
        """The node as it was last made under this recipe, or else as it was last to be made."""
        known = self._known(name)
        if known is not None and known.get("made") not in (None, known["fingerprint"]):
            made = self.store.find(known["made"])
            if made.finished:
                return dict(made.read("spec.json"))
        return known

    def _known(self, name: str) -> dict[str, Any] | None:
        """What `nodes.json` says of the node."""
        known = self.store.nodes(self.recipe.name) or {"nodes": []}
        return next((n for n in known["nodes"] if n["name"] == name), None)

    def _made(self, name: str) -> str | None:
        """The fingerprint under which the node was last made."""
        known = self._known(name) or {}
        for mark in (self.nodes[name].fingerprint, known.get("fingerprint"), known.get("made")):
            if mark is not None and self.store.find(mark).finished:
                return str(mark)
        return None

    def record(self) -> None:
        """Writes `nodes.json`, by which the report finds the runs."""
        folder = self.store.recipe_folder(self.recipe.name)
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "spec": self.recipe.spec(),
            "nodes": [
                node.to_json() | {"content": self.contents.get(name), "made": self._made(name)}
                for name, node in self.nodes.items()
            ],
        }
        write_json(folder / "nodes.json", value)


def plan(recipe: Recipe, folder: Path, store: Store) -> Plan:
    """What a recipe asks for.

    Raises:
        ZephyrError: a name, a file or a folder that the recipe cites is not there.
    """

    def version(kind: str) -> int:
        task = kind.removeprefix("task:")
        return find(task).version if task != kind else VERSIONS[kind]

    def source(spec: Source, use: Use, where: str) -> dict[str, Any]:
        return sources.fingerprint(spec, use=use, origin=recipe.origin, base=folder, where=where)

    def base(name: str, where: str) -> dict[str, Any]:
        return {"files": content(name, folder, where)}

    known = (store.nodes(recipe.name) or {"nodes": []})["nodes"]
    contents: dict[str, str] = {n["name"]: n["content"] for n in known if n.get("content")}

    def drawn(node: Node) -> str | None:
        """Its records, or those that it had: until it is drawn again they count as the same."""
        run = store.find(node.fingerprint)
        if run.finished:
            contents[node.name] = run.read("artifact/manifest.json")["content"]
        return contents.get(node.name)

    describe = graph.Describer(
        version=version, source=source, base=base, task_sources=sources_of, drawn=drawn
    )
    return Plan(recipe, folder, store, graph.build(recipe, describe), contents)


@dataclass
class Outcome:
    """What became of the nodes that had to be made."""

    made: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """Not tried, since something they need has failed."""
    stopped: bool = False


Listener = Callable[[Report], None]


def todo(plan: Plan, wanted: Collection[str] | None = None) -> list[str]:
    """The nodes that have to be made: all that are not fresh, or those of them that are wanted."""
    names = plan.nodes if wanted is None else [name for name in plan.nodes if name in wanted]
    return [name for name in names if plan.state(name) != "fresh"]


def needed(plan: Plan, name: str) -> set[str]:
    """A node, and all that it is made of."""
    return {name}.union(*(needed(plan, used) for used in plan.nodes[name].inputs.values()))


def run(start: Plan, wanted: Collection[str] | None, listener: Listener) -> tuple[Outcome, Plan]:
    """Makes the nodes that are wanted (all, if None) and not fresh; the store must be locked.

    Mixtures are made first, for it depends on their records what else is fresh: gives the plan as
    it is then. `listener` hears of every start, progress and end. A node that fails takes only
    those with it that need it. KeyboardInterrupt lets training write its checkpoints.
    """
    outcome = Outcome()
    current = start
    first = todo(start, wanted)
    if first:
        with _workers(start, start.recipe.run.jobs) as crew:
            mixtures = [name for name in first if start.nodes[name].kind == "mixture"]
            _Schedule(start, crew, list(mixtures), listener, outcome).run()
            if mixtures:
                current = plan(start.recipe, start.folder, start.store)
                _refuse_changed(start, current, mixtures)
            if outcome.made:
                current.record()
            fate = {*outcome.made, *outcome.failed, *outcome.broken}
            rest = [name for name in todo(current, wanted) if name not in fate]
            schedule = _Schedule(current, crew, rest, listener, outcome)
            if not outcome.stopped:
                for name in mixtures:
                    if name not in outcome.made:
                        schedule.skip_dependents(name)
                schedule.run()
    return outcome, current


def _refuse_changed(start: Plan, current: Plan, mixtures: Iterable[str]) -> None:
    for name in mixtures:
        if start.nodes[name].fingerprint != current.nodes[name].fingerprint:
            raise ZephyrError(
                "a source has changed while it was drawn",
                where=name,
                todo="run this again when nothing writes to its files",
            )


def changes(plan: Plan, name: str) -> list[str]:
    """What differs between a node now and when the recipe was last run, a line each."""
    node, before = plan.nodes[name], plan.before(name)
    if before is None:
        return ["it has not been run under this recipe"]
    if before["fingerprint"] == node.fingerprint:
        return ["nothing that goes into it has changed since the recipe was last run"]
    lines = [
        f"{key}: {_short(before['spec'].get(key))} -> {_short(node.spec.get(key))}"
        for key in sorted({*before["spec"], *node.spec})
        if before["spec"].get(key) != node.spec.get(key)
    ]
    for role, used in node.inputs.items():
        if before["inputs"].get(role) != used:
            lines.append(f"{role}: {before['inputs'].get(role)} -> {used}")
        elif plan.last(used) != plan.nodes[used].fingerprint:
            lines.append(f"{role}: {used} changed ({'; '.join(changes(plan, used))})")
    return lines or [f"the program's version of {node.task or node.kind!r} has changed"]


def _short(value: Any) -> str:
    text = "(not set)" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass
class _Crew:
    """The worker processes, by the connection to each, and the cores that they share."""

    processes: dict[Connection, Any]
    stop: Any
    cores: int
    jobs: int


@contextmanager
def _workers(plan: Plan, jobs: int) -> Iterator[_Crew]:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    jobs = min(jobs, cores)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Threads that spin for long while they wait make a step many times slower as soon as something
    # else runs; threads that never spin make it slower on an idle machine (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    processes: dict[Connection, Any] = {}
    for _ in range(jobs):
        ours, theirs = context.Pipe()
        arguments = (theirs, stop, plan.recipe, plan.folder, plan.store.root)
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        processes[ours] = process
    try:
        yield _Crew(processes, stop, cores, jobs)
    finally:
        for connection in processes:
            with suppress(OSError):
                connection.send(None)  # an idle worker ends by itself
            connection.close()
        for process in processes.values():
            process.join(timeout=0 if stop.is_set() else PATIENCE)
            process.terminate()
            process.join()


@dataclass
class _Schedule:
    plan: Plan
    crew: _Crew
    todo: list[str]
    listener: Listener
    outcome: Outcome
    busy: dict[Connection, str] = field(default_factory=dict)

    def run(self) -> None:
        while True:
            try:
                self._give_work()
                if not self.busy:
                    return
                self._hear()
            except KeyboardInterrupt:
                self._stop()
                return

    def _give_work(self) -> None:
        idle = [c for c in self.crew.processes if c not in self.busy]
        for connection in idle:
            ready = [name for name in self.todo if self._ready(name)]
            if not ready:
                return
            name = max(ready, key=lambda n: (self._height(n), -list(self.plan.nodes).index(n)))
            node = self.plan.nodes[name]
            inputs = {r: self.plan.nodes[used].fingerprint for r, used in node.inputs.items()}
            self.todo.remove(name)
            self.busy[connection] = name
            self.listener(Report(name, "started"))
            connection.send(Order(node, inputs, self._threads(node)))

    def _threads(self, node: Node) -> int:
        """A share of the cores; all of them for what everything else waits for."""
        return self.crew.cores if node.kind == "pretrain" else self.crew.cores // self.crew.jobs

    def _ready(self, name: str) -> bool:
        made = set(self.outcome.made)
        waiting = {*self.todo, *self.busy.values()}
        return all(
            used in made or used not in waiting for used in self.plan.nodes[name].inputs.values()
        )

    def _height(self, name: str) -> int:
        """How much work waits for a node, itself included, along the longest way."""
        own = WEIGHT.get(self.plan.nodes[name].kind, 1)
        after = [n for n in self.todo if name in self.plan.nodes[n].inputs.values()]
        return own + max((self._height(n) for n in after), default=0)

    def _hear(self) -> None:
        sentinels = {p.sentinel: c for c, p in self.crew.processes.items()}
        for heard in wait([*self.busy, *sentinels]):
            if isinstance(heard, Connection) and heard in self.busy:
                try:
                    self._take(heard, heard.recv())
                except EOFError:
                    self._lost(heard)
            elif isinstance(heard, int):
                connection = sentinels[heard]
                if connection in self.busy and not connection.poll():
                    self._lost(connection)

    def _take(self, connection: Connection, report: Report) -> None:
        if report.state != "progress":
            del self.busy[connection]
        if report.state == "done":
            self.outcome.made.append(report.node)
        elif report.state in ("failed", "broken"):
            fate = self.outcome.failed if report.state == "failed" else self.outcome.broken
            fate[report.node] = report.text
            self.skip_dependents(report.node)
        self.listener(report)

    def _lost(self, connection: Connection) -> None:
        """A worker has died: the machine has no memory left, or somebody has killed it."""
        process = self.crew.processes.pop(connection)
        process.join()
        name = self.busy[connection]
        text = f"the process that made {name} ended with code {process.exitcode}"
        if process.exitcode == -9:
            text += (
                "\n  to do:   it was killed; if memory ran out, lower run.token_budget or run.jobs"
            )
        self.plan.store.fail(self.plan.store.find(self.plan.nodes[name].fingerprint), text)
        self._take(connection, Report(name, "failed", text=text))
        if not self.crew.processes and self.todo:
            self.outcome.skipped += self.todo
            self.todo.clear()

    def skip_dependents(self, name: str) -> None:
        for other in [n for n in self.todo if name in self.plan.nodes[n].inputs.values()]:
            if other in self.todo:
                self.todo.remove(other)
                self.outcome.skipped.append(other)
                self.skip_dependents(other)

    def _stop(self) -> None:
        """Lets trainings write a checkpoint; whatever else is half done is dropped."""
        self.outcome.stopped = True
        self.crew.stop.set()
        training = {"pretrain", "tune", "align"}
        pending = {c for c, n in self.busy.items() if self.plan.nodes[n].kind in training}
        while pending:
            for heard in wait(list(pending)):
                assert isinstance(heard, Connection)
                try:
                    report = heard.recv()
                except EOFError:
                    pending.discard(heard)
                    continue
                if report.state != "progress":
                    pending.discard(heard)
                    if report.state == "done":
                        self.outcome.made.append(report.node)
