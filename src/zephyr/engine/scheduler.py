"""Brings a recipe's runs up to date: what is there already is kept, the rest is made.

Stages run in worker processes, `run.jobs` of them side by side, each on its share of the cores.
With `run.processes` the first worker leads followers, which take part in every training; nothing
else runs beside it. The engine itself computes nothing and never imports torch.
"""

import multiprocessing
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from zephyr.distributed.rendezvous import given_size, processes_here, seats
from zephyr.engine.environment import cores
from zephyr.engine.plan import Plan, make_plan, todo
from zephyr.engine.rank_worker import follow
from zephyr.engine.worker import TRAINING, Order, Report, calm_threads, work
from zephyr.errors import ZephyrError
from zephyr.runs.graph import Node
from zephyr.train.tracking import refuse_missing

PATIENCE = 30.0
"""Seconds in which a worker with nothing to do has to end."""

WEIGHT = {"pretrain": 60, "tune": 20, "align": 20, "quantize": 2, "evaluation": 4}
"""How long kinds take beside each other: what many others wait for is made first."""


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


def run(start: Plan, wanted: Collection[str] | None, listener: Listener) -> tuple[Outcome, Plan]:
    """Makes the nodes that are wanted (all, if None) and not fresh; the store must be locked.

    Mixtures are made first, for it depends on their records what else is fresh: gives the plan as
    it is then. `listener` hears of every start, progress and end. A node that fails takes only
    those with it that need it. KeyboardInterrupt lets training write its checkpoints.
    """
    outcome = Outcome()
    current = start
    first = todo(start, wanted)
    refuse_missing(start.recipe.run.track)
    if first or given_size() > 1:  # who waits for orders must be sent home
        with _workers(start, start.recipe.run.jobs) as crew:
            mixtures = [name for name in first if start.nodes[name].kind == "mixture"]
            _Schedule(start, crew, list(mixtures), listener, outcome).run()
            if mixtures:
                current = make_plan(start.recipe, start.folder, start.store)
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


@dataclass
class _Crew:
    """The worker processes, by the connection to each, and how many there were at first."""

    processes: dict[Connection, Any]
    followers: list[Any]
    stop: Any
    jobs: int
    leader: Connection
    """The connection to the first worker."""


@contextmanager
def _workers(plan: Plan, jobs: int) -> Iterator[_Crew]:
    jobs = min(jobs, cores())
    calm_threads()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    processes: dict[Connection, Any] = {}
    followers: list[Any] = []
    together = plan.recipe.run.processes
    places = [] if together == 1 else [{}] if given_size() > 1 else seats(together)
    try:
        for place in places[1:]:
            followers.append(context.Process(target=follow, args=(place,), daemon=True))
            followers[-1].start()
        for seat in [*places[:1], *[None] * jobs][:jobs]:
            ours, theirs = context.Pipe()
            arguments = (theirs, stop, plan.recipe, plan.folder, plan.store.root, seat)
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
        yield _Crew(processes, followers, stop, jobs, next(iter(processes)))
        for connection in processes:
            with suppress(OSError):
                connection.send(None)  # an idle worker ends by itself
        for process in [*processes.values(), *followers]:
            process.join(timeout=0 if stop.is_set() else PATIENCE)
    finally:
        for connection in processes:
            connection.close()
        for process in [*processes.values(), *followers]:
            process.kill()  # a worker does not hear of SIGTERM
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
                    self.outcome.skipped += self.todo  # who could make it has died
                    self.todo.clear()
                    return
                self._hear()
            except KeyboardInterrupt:
                self._stop()
                return

    def _give_work(self) -> None:
        idle = [c for c in self.crew.processes if c not in self.busy]
        for connection in idle:
            free = [name for name in self.todo if self._has_room(name, connection)]
            ready = [name for name in free if self._ready(name)]
            if not ready:
                continue
            name = max(ready, key=lambda n: (self._height(n), -list(self.plan.nodes).index(n)))
            node = self.plan.nodes[name]
            inputs = {r: self.plan.nodes[used].fingerprint for r, used in node.inputs.items()}
            self.todo.remove(name)
            self.busy[connection] = name
            self.listener(Report(name, "started"))
            connection.send(Order(node, inputs, self._threads(node)))

    def _together(self, name: str) -> bool:
        """Whether several processes make it."""
        return self.plan.recipe.run.processes > 1 and self.plan.nodes[name].kind in TRAINING

    def _has_room(self, name: str, connection: Connection) -> bool:
        """What several processes make is led by the first worker, and runs alone."""
        if self._together(name) and connection != self.crew.leader:
            return False
        if self._alone(name):
            return not self.busy
        return not any(map(self._alone, self.busy.values()))

    def _alone(self, name: str) -> bool:
        """Whether nothing else may run beside it."""
        return self.plan.nodes[name].alone or self._together(name)

    def _threads(self, node: Node) -> int:
        """A share of the cores; all of them for what everything else waits for."""
        if self._together(node.name):
            return max(1, cores() // processes_here(self.plan.recipe.run.processes))
        if node.kind == "pretrain" or node.alone:
            return cores()
        return cores() // self.crew.jobs

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
        watched = [(c, self.crew.processes[c]) for c in self.busy]
        if self.crew.leader in self.busy:
            watched += [(self.crew.leader, follower) for follower in self.crew.followers]
        sentinels = {process.sentinel: (c, process) for c, process in watched}
        for heard in wait([*self.busy, *sentinels]):
            if isinstance(heard, Connection) and heard in self.busy:
                try:
                    report = heard.recv()
                except EOFError:
                    self._lost(heard, self.crew.processes[heard])
                    continue
                if (gone := self._gone(report)) is not None:
                    self._lost(heard, gone)
                else:
                    self._take(heard, report)
            elif isinstance(heard, int):
                connection, process = sentinels[heard]
                if connection in self.busy and not connection.poll():
                    self._lost(connection, process)

    def _gone(self, report: Report) -> Any:
        """The follower by whose death a training has failed, if it was that.

        A leader may notice its closed connection before its end is seen here.
        """
        if report.state != "failed" or not self._together(report.node):
            return None
        gone = wait([follower.sentinel for follower in self.crew.followers], timeout=1)
        return next((f for f in self.crew.followers if f.sentinel in gone), None)

    def _take(self, connection: Connection, report: Report) -> None:
        if report.ends:
            del self.busy[connection]
        if report.state == "done":
            self.outcome.made.append(report.node)
        elif report.state in ("failed", "broken"):
            fate = self.outcome.failed if report.state == "failed" else self.outcome.broken
            fate[report.node] = report.text
            self.skip_dependents(report.node)
        self.listener(report)

    def _lost(self, connection: Connection, dead: Any) -> None:
        """A worker has died: the machine has no memory left, or somebody has killed it.

        Or one of its followers has, without which it can go on with no training.
        """
        process = self.crew.processes.pop(connection)
        if not process.is_alive():
            dead = process  # followers end with their leader
        process.kill()
        process.join()
        dead.join()
        name = self.busy[connection]
        did = "made" if dead is process else "helped to make"
        text = f"the process that {did} {name} ended with code {dead.exitcode}"
        if dead.exitcode == -9:
            text += (
                "\n  to do:   it was killed; if memory ran out, lower run.token_budget or run.jobs"
            )
        self.plan.store.fail(self.plan.store.find(self.plan.nodes[name].fingerprint), text)
        self._take(connection, Report(name, "failed", text=text))
        if connection == self.crew.leader:
            for follower in self.crew.followers:
                follower.kill()

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
        pending = {c for c, n in self.busy.items() if self.plan.nodes[n].kind in TRAINING}
        while pending:
            for heard in wait(list(pending)):
                assert isinstance(heard, Connection)
                try:
                    report = heard.recv()
                except EOFError:
                    pending.discard(heard)
                    continue
                if report.ends:
                    pending.discard(heard)
                    if report.state == "done":
                        self.outcome.made.append(report.node)
