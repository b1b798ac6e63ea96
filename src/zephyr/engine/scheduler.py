"""Scheduler: brings a recipe's runs up to date in worker processes; finished runs are kept.

Stages run in worker processes, `run.jobs` of them side by side, each on its share of the cores.
With `run.processes` (distributed training) the first worker is rank 0, and rank workers take part
in every training; nothing else runs beside it. The scheduler itself never imports torch.
"""

import multiprocessing
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from zephyr.distributed.rendezvous import launched_world_size, local_world_size, rank_envs
from zephyr.engine.environment import available_cores
from zephyr.engine.plan import Plan, make_plan, pending_nodes
from zephyr.engine.rank_worker import run_rank_worker
from zephyr.engine.worker import (
    TRAINING_KINDS,
    Job,
    WorkerMessage,
    run_worker,
    set_thread_environment,
)
from zephyr.errors import ZephyrError
from zephyr.runs.graph import Node
from zephyr.train.tracking import check_trackers_installed

WORKER_EXIT_SECONDS = 30.0
"""Seconds in which an idle worker has to exit."""

RESUMABLE_PHASES = ("training", "hold-out", "sample generations")
"""Phases of a stage at whose end a checkpoint is written when it is asked to stop."""

KIND_COST = {"pretrain": 60, "tune": 20, "align": 20, "quantize": 2, "evaluation": 4}
"""Relative cost of node kinds: the node on the longest critical path is made first."""


@dataclass
class Outcome:
    """The outcome of a scheduler run: which nodes were made, failed, broke or were skipped."""

    made: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """Not made, since an input has failed."""
    stopped: bool = False


Listener = Callable[[WorkerMessage], None]
"""Callback that gets every message of the workers."""


def run_plan(
    initial_plan: Plan, wanted: Collection[str] | None, listener: Listener
) -> tuple[Outcome, Plan]:
    """Runs a plan: makes the wanted nodes (None: all) that are not fresh; lock the store first.

    Bases are checked first, so that one that is refused is so before data are read; then mixtures
    are made, for it depends on their records what else is fresh: returns the updated plan.
    `listener` gets every start, progress and end. When a node fails only its dependents are
    skipped. On KeyboardInterrupt trainings write a checkpoint; a second one does not wait for it.
    """
    outcome = Outcome()
    current_plan = initial_plan
    pending = pending_nodes(initial_plan, wanted)
    check_trackers_installed(initial_plan.recipe.run.track)
    if pending or launched_world_size() > 1:  # rank workers that wait for messages must exit
        with _start_workers(initial_plan, initial_plan.recipe.run.jobs) as pool:
            mixtures = [name for name in pending if initial_plan.nodes[name].kind == "mixture"]
            bases = [name for name in pending if initial_plan.nodes[name].kind == "base"]
            _Scheduler(initial_plan, pool, [*bases, *mixtures], listener, outcome).run()
            if mixtures:
                current_plan = make_plan(
                    initial_plan.recipe,
                    initial_plan.folder,
                    initial_plan.store,
                    initial_plan.argument,
                    initial_plan.overrides,
                )
                _check_mixtures_unchanged(initial_plan, current_plan, mixtures)
            if outcome.made:
                current_plan.write_nodes()
            attempted = {*outcome.made, *outcome.failed, *outcome.broken}
            rest = [name for name in pending_nodes(current_plan, wanted) if name not in attempted]
            schedule = _Scheduler(current_plan, pool, rest, listener, outcome)
            if not outcome.stopped:
                for name in (*bases, *mixtures):
                    if name not in outcome.made:
                        schedule.skip_dependents(name)
                schedule.run()
    return outcome, current_plan


def _check_mixtures_unchanged(start: Plan, current: Plan, mixtures: Iterable[str]) -> None:
    for name in mixtures:
        if start.nodes[name].fingerprint != current.nodes[name].fingerprint:
            raise ZephyrError(
                "a source has changed while it was drawn",
                where=name,
                todo="run this again when nothing writes to its files",
            )


@dataclass
class _WorkerPool:
    """The pool of worker processes, by the connection to each, and how many jobs it began with."""

    processes: dict[Connection, Any]
    rank_workers: list[Any]
    stop_event: Any
    jobs: int
    leader: Connection
    """The connection to the first worker, which is rank 0 of distributed training."""


@contextmanager
def _start_workers(plan: Plan, jobs: int) -> Iterator[_WorkerPool]:
    """Starts worker processes, and rank workers for distributed training; kills them at exit."""
    jobs = min(jobs, available_cores())
    set_thread_environment()
    context = multiprocessing.get_context("spawn")
    stop_event = context.Event()
    processes: dict[Connection, Any] = {}
    rank_workers: list[Any] = []
    processes_per_training = plan.recipe.run.processes
    rank_env_list = (
        []
        if processes_per_training == 1
        else [{}]
        if launched_world_size() > 1
        else rank_envs(processes_per_training)
    )
    try:
        for worker_env in rank_env_list[1:]:
            rank_workers.append(
                context.Process(target=run_rank_worker, args=(worker_env,), daemon=True)
            )
            rank_workers[-1].start()
        for rank_env in [*rank_env_list[:1], *[None] * jobs][:jobs]:
            parent_end, worker_end = context.Pipe()
            arguments = (
                worker_end,
                stop_event,
                plan.recipe,
                plan.folder,
                plan.store.root,
                rank_env,
            )
            process = context.Process(target=run_worker, args=arguments, daemon=True)
            process.start()
            worker_end.close()
            processes[parent_end] = process
        yield _WorkerPool(processes, rank_workers, stop_event, jobs, next(iter(processes)))
        for connection in processes:
            with suppress(OSError):
                connection.send(None)  # an idle worker exits by itself
        for process in [*processes.values(), *rank_workers]:
            process.join(timeout=0 if stop_event.is_set() else WORKER_EXIT_SECONDS)
    finally:
        for connection in processes:
            connection.close()
        for process in [*processes.values(), *rank_workers]:
            process.kill()  # a worker ignores SIGTERM
            process.join()


@dataclass
class _Scheduler:
    """Schedules pending nodes on idle workers, in topological order, critical path first."""

    plan: Plan
    pool: _WorkerPool
    pending: list[str]
    listener: Listener
    outcome: Outcome
    busy: dict[Connection, str] = field(default_factory=dict)
    phases: dict[str, str] = field(default_factory=dict)
    """The phase that each busy node is in, as far as it has said."""

    def run(self) -> None:
        while True:
            try:
                self._dispatch()
                if not self.busy:
                    self.outcome.skipped += self.pending  # the worker that could make it has died
                    self.pending.clear()
                    return
                self._wait_for_messages()
            except KeyboardInterrupt:
                self._stop()
                return

    def _dispatch(self) -> None:
        """Sends each idle worker the ready node with the longest critical path."""
        idle = [c for c in self.pool.processes if c not in self.busy]
        for connection in idle:
            free = [name for name in self.pending if self._has_room(name, connection)]
            ready = [name for name in free if self._is_ready(name)]
            if not ready:
                continue
            name = max(
                ready, key=lambda n: (self._critical_path_cost(n), -list(self.plan.nodes).index(n))
            )
            node = self.plan.nodes[name]
            inputs = {r: self.plan.nodes[used].fingerprint for r, used in node.inputs.items()}
            self.pending.remove(name)
            self.busy[connection] = name
            self.listener(WorkerMessage(name, "started"))
            connection.send(Job(node, inputs, self._thread_count(node)))

    def _is_distributed(self, name: str) -> bool:
        """Whether several processes (ranks) train the node together."""
        return self.plan.recipe.run.processes > 1 and self.plan.nodes[name].kind in TRAINING_KINDS

    def _has_room(self, name: str, connection: Connection) -> bool:
        """Whether a node may start now: on the first worker if distributed, alone if exclusive."""
        if self._is_distributed(name) and connection != self.pool.leader:
            return False
        if self._is_exclusive(name):
            return not self.busy
        return not any(map(self._is_exclusive, self.busy.values()))

    def _is_exclusive(self, name: str) -> bool:
        """Whether nothing else may run beside the node (exclusive)."""
        return self.plan.nodes[name].is_exclusive or self._is_distributed(name)

    def _thread_count(self, node: Node) -> int:
        """Number of threads for a node: a share of the cores, or all of them."""
        if self._is_distributed(node.name):
            return max(1, available_cores() // local_world_size(self.plan.recipe.run.processes))
        if node.kind == "pretrain" or node.is_exclusive:
            return available_cores()
        return available_cores() // self.pool.jobs

    def _is_ready(self, name: str) -> bool:
        """Whether all inputs of a node are made."""
        made = set(self.outcome.made)
        waiting = {*self.pending, *self.busy.values()}
        return all(
            used in made or used not in waiting for used in self.plan.nodes[name].inputs.values()
        )

    def _critical_path_cost(self, name: str) -> int:
        """Cost of the critical path from a node on, itself included."""
        own_cost = KIND_COST.get(self.plan.nodes[name].kind, 1)
        after = [n for n in self.pending if name in self.plan.nodes[n].inputs.values()]
        return own_cost + max((self._critical_path_cost(n) for n in after), default=0)

    def _wait_for_messages(self) -> None:
        """Waits for messages or deaths of busy workers, and handles them."""
        watched = [(c, self.pool.processes[c]) for c in self.busy]
        if self.pool.leader in self.busy:
            watched += [(self.pool.leader, process) for process in self.pool.rank_workers]
        sentinels = {process.sentinel: (c, process) for c, process in watched}
        for ready in wait([*self.busy, *sentinels]):
            if isinstance(ready, Connection) and ready in self.busy:
                try:
                    message = ready.recv()
                except EOFError:
                    self._handle_dead_worker(ready, self.pool.processes[ready])
                    continue
                if (dead_worker := self._dead_rank_worker(message)) is not None:
                    self._handle_dead_worker(ready, dead_worker)
                else:
                    self._handle_message(ready, message)
            elif isinstance(ready, int):
                connection, process = sentinels[ready]
                if connection in self.busy and not connection.poll():
                    self._handle_dead_worker(connection, process)

    def _dead_rank_worker(self, message: WorkerMessage) -> Any:
        """The dead rank worker that made a distributed training fail, if any.

        Rank 0 may report the closed connection before the death is seen here.
        """
        if message.state != "failed" or not self._is_distributed(message.node):
            return None
        dead_sentinels = wait([process.sentinel for process in self.pool.rank_workers], timeout=1)
        return next((f for f in self.pool.rank_workers if f.sentinel in dead_sentinels), None)

    def _handle_message(self, connection: Connection, message: WorkerMessage) -> None:
        if message.is_final:
            del self.busy[connection]
        elif message.phase:
            self.phases[message.node] = message.phase
        if message.state == "done":
            self.outcome.made.append(message.node)
        elif message.state in ("failed", "broken"):
            failures = self.outcome.failed if message.state == "failed" else self.outcome.broken
            failures[message.node] = message.text
            self.skip_dependents(message.node)
        self.listener(message)

    def _handle_dead_worker(self, connection: Connection, dead: Any) -> None:
        """Handles a worker that was killed (out of memory, or by a person): its node has failed.

        Without one of its rank workers, rank 0 can't train either, and is killed.
        """
        process = self.pool.processes.pop(connection)
        if not process.is_alive():
            dead = process  # rank workers exit with rank 0
        process.kill()
        process.join()
        dead.join()
        name = self.busy[connection]
        verb = "made" if dead is process else "helped to make"
        text = f"the process that {verb} {name} ended with code {dead.exitcode}"
        if dead.exitcode == -9:
            text += (
                "\n  to do:   it was killed; if memory ran out, lower run.token_budget or run.jobs"
            )
        self.plan.store.fail(self.plan.store.find(self.plan.nodes[name].fingerprint), text)
        self._handle_message(connection, WorkerMessage(name, "failed", text=text))
        if connection == self.pool.leader:
            for rank_worker in self.pool.rank_workers:
                rank_worker.kill()

    def skip_dependents(self, name: str) -> None:
        """Skips all pending nodes that depend on one that has failed."""
        for other in [n for n in self.pending if name in self.plan.nodes[n].inputs.values()]:
            if other in self.pending:
                self.pending.remove(other)
                self.outcome.skipped.append(other)
                self.skip_dependents(other)

    def _stop(self) -> None:
        """Stops: trainings write a checkpoint, other unfinished stages are dropped.

        A second KeyboardInterrupt waits for no checkpoint: trainings resume from their last one.
        """
        self.outcome.stopped = True
        with suppress(KeyboardInterrupt):
            self.pool.stop_event.set()
            for connection in list(self.busy):
                with suppress(EOFError):
                    while connection in self.busy and connection.poll():
                        self._handle_message(connection, connection.recv())
            training = {c for c, name in self.busy.items() if self._is_resumable(name)}
            for name in [self.busy[connection] for connection in training] or [""]:
                self.listener(WorkerMessage(name, "stopping"))
            self._wait_for_checkpoints(training)

    def _is_resumable(self, name: str) -> bool:
        """Whether a node has something to save when it stops: it is past its preparations."""
        is_training = self.plan.nodes[name].kind in TRAINING_KINDS
        return is_training and self.phases.get(name) in RESUMABLE_PHASES

    def _wait_for_checkpoints(self, training: set[Connection]) -> None:
        while training:
            for ready in wait(list(training)):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except EOFError:
                    training.discard(ready)
                    continue
                if message.is_final:
                    training.discard(ready)
                    if message.state == "done":
                        self.outcome.made.append(message.node)
