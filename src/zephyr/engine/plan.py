"""The plan of a recipe: its nodes, the state of each, and why one is stale."""

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zephyr.data import sources
from zephyr.errors import ZephyrError
from zephyr.evaluate import harness
from zephyr.evaluate.tasks import get_task, resolve_few_shot_sources, resolve_sources
from zephyr.model.base_model import hash_base_model
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.load import find_recipe
from zephyr.recipe.schema import Recipe
from zephyr.runs import graph
from zephyr.runs.graph import Node
from zephyr.runs.store import Store, write_json

NodeState = Literal["fresh", "waiting", "stale", "missing", "unfinished", "failed", "damaged"]

STAGE_VERSIONS = {
    "mixture": 2,
    "base": 1,
    "pretrain": 1,
    "tune": 1,
    "align": 1,
    "quantize": 3,
}
"""Version of each stage, part of fingerprints: raised when its results change. Evaluations have the
version of their task."""


@dataclass(frozen=True)
class Plan:
    """The plan: a recipe's nodes in topological order, and the store that holds their runs."""

    recipe: Recipe
    folder: Path
    """The folder of the recipe, to which its paths are relative."""
    store: Store
    nodes: Mapping[str, Node]
    content_hashes: Mapping[str, str]
    """Content hashes of mixtures' records, as they are or were last known."""
    argument: str
    """What names the recipe in a command: its file, or the name of one that comes with Zephyr."""
    overrides: tuple[str, ...] = ()
    """What `--set` has changed in it."""

    @property
    def arguments(self) -> str:
        """The arguments by which a command is given the recipe, quoted for a shell."""
        changes = [word for override in self.overrides for word in ("--set", override)]
        return shlex.join([self.argument, *changes])

    def state(self, name: str) -> NodeState:
        """State of a node's run: fresh, waiting, stale, missing, unfinished, failed or damaged.

        It is damaged if files of its run are missing or truncated. It is waiting if the run is
        finished, but an input mixture has to be drawn again: the run stays fresh if that gives the
        same records.
        """
        node = self.nodes[name]
        run = self.store.find(node.fingerprint)
        if run.is_finished:
            if run.integrity_error is not None:
                return "damaged"
            return "fresh" if all(map(self._is_resolved, node.inputs.values())) else "waiting"
        if run.failure is not None:
            return "failed"
        if run.path.exists():
            return "unfinished"
        return "stale" if self.last_fingerprint(name) not in (None, node.fingerprint) else "missing"

    def _is_resolved(self, name: str) -> bool:
        """Whether all mixtures among a node and its ancestors have been drawn."""
        node = self.nodes[name]
        is_drawn = node.kind != "mixture" or self.store.find(node.fingerprint).is_finished
        return is_drawn and all(map(self._is_resolved, node.inputs.values()))

    def last_fingerprint(self, name: str) -> str | None:
        """The fingerprint of the node when the recipe was last run."""
        last_node = self.last_node(name)
        return last_node["fingerprint"] if last_node else None

    def last_node(self, name: str) -> dict[str, Any] | None:
        """The node as it was last made under this recipe, or else as it was last planned."""
        recorded = self._recorded_node(name)
        if recorded is not None and recorded.get("made") not in (None, recorded["fingerprint"]):
            made_run = self.store.find(recorded["made"])
            if made_run.is_finished:
                return dict(made_run.read("spec.json"))
        return recorded

    def _recorded_node(self, name: str) -> dict[str, Any] | None:
        """The node as `nodes.json` records it."""
        recorded = self.store.read_nodes(self.recipe.name) or {"nodes": []}
        return next((n for n in recorded["nodes"] if n["name"] == name), None)

    def last_seconds(self, name: str) -> float | None:
        """How long the node's last finished run took, perhaps of another fingerprint."""
        fingerprint = self._last_made_fingerprint(name)
        if fingerprint is None:
            return None
        with suppress(OSError, ValueError, KeyError):  # damaged, as its state says
            return float(self.store.find(fingerprint).read("env.json")["seconds"])
        return None

    def _last_made_fingerprint(self, name: str) -> str | None:
        """The fingerprint of the node's last finished run."""
        recorded = self._recorded_node(name) or {}
        for fingerprint in (
            self.nodes[name].fingerprint,
            recorded.get("fingerprint"),
            recorded.get("made"),
        ):
            if fingerprint is not None and self.store.find(fingerprint).is_finished:
                return str(fingerprint)
        return None

    def write_nodes(self) -> None:
        """Writes `nodes.json`, by which the report finds the runs.

        Raises:
            ZephyrError: the name belongs to a recipe in another file.
        """
        folder = self.store.recipe_folder(self.recipe.name)
        file = self._recipe_file()
        self.check_name_is_free()
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "recipe": self.recipe.name,
            "argument": self.arguments,
            "file": file,
            "seed": self.recipe.seed,
            "spec": self.recipe.spec(),
            "nodes": [
                node.to_json()
                | {
                    "content": self.content_hashes.get(name),
                    "made": self._last_made_fingerprint(name),
                }
                for name, node in self.nodes.items()
            ],
        }
        write_json(folder / "nodes.json", value)

    def _recipe_file(self) -> str | None:
        """The recipe's file, relative to the store, with which it may be moved; None if unknown."""
        with suppress(ZephyrError, ValueError):  # on Windows, another drive
            file = find_recipe(self.argument).resolve()
            return os.path.relpath(file, self.store.root.resolve())
        return None

    def check_name_is_free(self) -> None:
        """Checks that a copy of a recipe does not take the report of the recipe it was copied from.

        The name stays with the file that was run last, while that is there and asks something else.

        Raises:
            ZephyrError: the name belongs to a recipe in another file.
        """
        name, file = self.recipe.name, self._recipe_file()
        recorded = self.store.read_nodes(name) or {}
        other = recorded.get("file")
        if other in (None, file) or recorded["spec"] == self.recipe.spec():
            return
        other_path = (self.store.root.resolve() / other).resolve()
        if other_path.exists():
            raise ZephyrError(
                f"another recipe of the name {name} has its report here",
                where=str(self.store.recipe_folder(name)),
                found=f"{other_path}, and now {self.argument}",
                todo="give one of them another `name:`; what both ask is made once all the same",
            )


def make_plan(
    recipe: Recipe,
    folder: Path,
    store: Store,
    argument: str | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """Builds the plan of a recipe: its graph of nodes in topological order, with fingerprints.

    `argument` names the recipe in a command (default: its own name), whose `overrides` have been
    applied to it.

    Raises:
        ZephyrError: a name, a file or a folder that the recipe refers to does not exist.
    """

    def version(kind: str) -> int:
        task = kind.removeprefix("task:")
        return get_task(task).version if task != kind else STAGE_VERSIONS[kind]

    def source(spec: SourceSpec, use: Use, where: str) -> dict[str, Any]:
        return sources.source_fingerprint(
            spec, use=use, origin=recipe.origin, base=folder, where=where
        )

    def base(name: str, where: str) -> dict[str, Any]:
        return {"files": hash_base_model(name, folder, where)}

    recorded_nodes = (store.read_nodes(recipe.name) or {"nodes": []})["nodes"]
    contents: dict[str, str] = {n["name"]: n["content"] for n in recorded_nodes if n.get("content")}

    def content_hash(node: Node) -> str | None:
        """Content hash of a mixture's records, or of the last ones known, until it is drawn."""
        run = store.find(node.fingerprint)
        if run.is_finished:
            with suppress(OSError, ValueError):  # the report names damaged files
                contents[node.name] = run.read("artifact/manifest.json")["content"]
        return contents.get(node.name)

    resolver = graph.ContentResolver(
        version=version,
        source=source,
        base=base,
        task_sources=resolve_sources,
        task_record_kind=lambda task: get_task(task.name).record_kind,
        few_shot_sources=resolve_few_shot_sources,
        task_content=lambda task: harness.fingerprint_content(task, folder),
        content_hash=content_hash,
    )
    nodes = graph.build_graph(recipe, resolver)
    return Plan(recipe, folder, store, nodes, contents, argument or recipe.name, tuple(overrides))


def pending_nodes(plan: Plan, wanted: Collection[str] | None = None) -> list[str]:
    """Names of the pending nodes: those not fresh, of the wanted ones."""
    names = plan.nodes if wanted is None else [name for name in plan.nodes if name in wanted]
    return [name for name in names if plan.state(name) != "fresh"]


def with_ancestors(plan: Plan, name: str) -> set[str]:
    """A node and all its ancestors in the graph."""
    return {name}.union(*(with_ancestors(plan, used) for used in plan.nodes[name].inputs.values()))


def explain_changes(plan: Plan, name: str) -> list[str]:
    """Explains why a node is stale: what has changed since the last run, a line each."""
    node, last_node = plan.nodes[name], plan.last_node(name)
    if last_node is None:
        return ["it has not been run under this recipe"]
    if last_node["fingerprint"] == node.fingerprint:
        return ["nothing that goes into it has changed since the recipe was last run"]
    lines = [
        f"{key}: {_short(last_node['spec'].get(key))} -> {_short(node.spec.get(key))}"
        for key in sorted({*last_node["spec"], *node.spec})
        if last_node["spec"].get(key) != node.spec.get(key)
    ]
    for role, used in node.inputs.items():
        if last_node["inputs"].get(role) != used:
            lines.append(f"{role}: {last_node['inputs'].get(role)} -> {used}")
        elif plan.last_fingerprint(used) != plan.nodes[used].fingerprint:
            lines.append(f"{role}: {used} changed ({'; '.join(explain_changes(plan, used))})")
    return lines or [f"the program's version of {node.task or node.kind!r} has changed"]


def _short(value: Any) -> str:
    """Shortens a value to 60 characters."""
    text = "(not set)" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
