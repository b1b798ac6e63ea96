"""The plan of a recipe: its nodes, what is there of each, and why one would be made again."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zephyr.data import sources
from zephyr.evaluate import harness
from zephyr.evaluate.tasks import examples_of, find, sources_of
from zephyr.model.base import content
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.schema import Recipe
from zephyr.runs import graph
from zephyr.runs.graph import Node
from zephyr.runs.store import Store, write_json

State = Literal["fresh", "waiting", "stale", "missing", "unfinished", "failed", "damaged"]

VERSIONS = {
    "mixture": 2,
    "base": 1,
    "pretrain": 1,
    "tune": 1,
    "align": 1,
    "quantize": 3,
}
"""Raised when a stage's results change; evaluations carry the version of their task."""


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

        It is damaged if files of its run are missing or cut off. It is waiting if it is there, and
        a mixture that it was made of has to be drawn again: it stays if that gives the same
        records.
        """
        node = self.nodes[name]
        run = self.store.find(node.fingerprint)
        if run.finished:
            if run.flaw is not None:
                return "damaged"
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


def make_plan(recipe: Recipe, folder: Path, store: Store) -> Plan:
    """What a recipe asks for.

    Raises:
        ZephyrError: a name, a file or a folder that the recipe cites is not there.
    """

    def version(kind: str) -> int:
        task = kind.removeprefix("task:")
        return find(task).version if task != kind else VERSIONS[kind]

    def source(spec: SourceSpec, use: Use, where: str) -> dict[str, Any]:
        return sources.fingerprint(spec, use=use, origin=recipe.origin, base=folder, where=where)

    def base(name: str, where: str) -> dict[str, Any]:
        return {"files": content(name, folder, where)}

    known = (store.nodes(recipe.name) or {"nodes": []})["nodes"]
    contents: dict[str, str] = {n["name"]: n["content"] for n in known if n.get("content")}

    def drawn(node: Node) -> str | None:
        """Its records, or those that it had: until it is drawn again they count as the same."""
        run = store.find(node.fingerprint)
        if run.finished:
            with suppress(OSError, ValueError):  # the report says what is damaged
                contents[node.name] = run.read("artifact/manifest.json")["content"]
        return contents.get(node.name)

    describe = graph.Describer(
        version=version,
        source=source,
        base=base,
        task_sources=sources_of,
        task_examples=examples_of,
        task_content=lambda task: harness.content(task, folder),
        drawn=drawn,
    )
    return Plan(recipe, folder, store, graph.build(recipe, describe), contents)


def todo(plan: Plan, wanted: Collection[str] | None = None) -> list[str]:
    """The nodes that have to be made: all that are not fresh, or those of them that are wanted."""
    names = plan.nodes if wanted is None else [name for name in plan.nodes if name in wanted]
    return [name for name in names if plan.state(name) != "fresh"]


def needed(plan: Plan, name: str) -> set[str]:
    """A node, and all that it is made of."""
    return {name}.union(*(needed(plan, used) for used in plan.nodes[name].inputs.values()))


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
