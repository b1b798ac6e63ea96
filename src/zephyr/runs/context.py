"""Context of a stage: recipe, store, callbacks and process group."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from zephyr.recipe.schema import Recipe

Progress = Callable[[str, int, int, dict[str, Any]], None]
"""Progress callback: (phase, done, total, metrics); a total of 0 is not known."""


@dataclass(frozen=True)
class Context:
    """What a stage gets besides node and inputs: recipe, store, callbacks and process group.

    `token_budget` is the tokens of one batch; `progress` gets (phase, done, total, metrics),
    `notify` warnings for the user. `record(name, value)` writes a value to the run's `env.json` at
    once, and `resolve_once(name, compute)` gives the value recorded when the run first began, else
    computes and records it (dtype, layout ...), so that resuming is exact. Of a process `group`
    only rank 0 writes, and all ranks resolve the same names, in the same order.
    """

    recipe: Recipe
    folder: Path
    store: Path
    token_budget: int
    record: Callable[[str, Any], None] = lambda name, value: None
    resolve_once: Callable[[str, Callable[[], Any]], Any] = lambda name, find: find()
    progress: Progress = lambda phase, done, total, row: None
    should_stop: Callable[[], bool] = lambda: False
    notify: Callable[[str], None] = lambda text: None
    group: ProcessGroup = SINGLE_PROCESS

    def store_path(self, path: Path) -> str:
        """Path in the store that a `path` in an unfinished run will have once it is finished."""
        relative = path.relative_to(self.store)
        return "/".join(part.removesuffix(".part") for part in relative.parts)
