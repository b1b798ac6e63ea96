"""Context of a stage: what it is given beside its node and its input runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from zephyr.recipe.schema import Recipe

Progress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True)
class Context:
    """What a stage needs beside its node: recipe and folder, store, callbacks and process group.

    `token_budget` is the tokens of one forward; `progress` gets (done, total, metrics),
    `notify` what a person has to know. `record(name, value)` writes a fact of the run to `env.json`
    at once, and `resolve_once(name, compute)` gives the one that was recorded when the run was
    first begun, if one was: how the machine is used, on which a resumed run depends. Of a process
    `group` only rank 0 writes, and all of them resolve the same names, in the same order.
    """

    recipe: Recipe
    folder: Path
    store: Path
    token_budget: int
    record: Callable[[str, Any], None] = lambda name, value: None
    resolve_once: Callable[[str, Callable[[], Any]], Any] = lambda name, find: find()
    progress: Progress = lambda done, of, row: None
    should_stop: Callable[[], bool] = lambda: False
    notify: Callable[[str], None] = lambda text: None
    group: ProcessGroup = SINGLE_PROCESS

    def store_path(self, path: Path) -> str:
        """Path in the store that a finished run will have for what is being written at `path`."""
        relative = path.relative_to(self.store)
        return "/".join(part.removesuffix(".part") for part in relative.parts)
