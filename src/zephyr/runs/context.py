"""What a stage is given beside its node and its inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zephyr.distributed.process_group import ALONE, Group
from zephyr.recipe.schema import Recipe

Progress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True)
class Context:
    """What a stage needs beside its node: the recipe and its folder, the store, and the machine.

    `token_budget` is the tokens of one forward; `progress` hears (done, of, numbers), and `tell`
    what a person has to know. `keep(name, value)` writes a fact of the run to `env.json` at once,
    and `settle(name, find)` gives the one that was kept when the run was first begun, if one was:
    how the machine is used, on which a resumed run depends. Of a `group` that trains together only
    the main process writes, and all of them settle the same, in the same order.
    """

    recipe: Recipe
    folder: Path
    store: Path
    token_budget: int
    keep: Callable[[str, Any], None] = lambda name, value: None
    settle: Callable[[str, Callable[[], Any]], Any] = lambda name, find: find()
    progress: Progress = lambda done, of, row: None
    stop: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda text: None
    group: Group = ALONE

    def inside_store(self, path: Path) -> str:
        """Where a finished run will hold what is being written at `path`."""
        inside = path.relative_to(self.store)
        return "/".join(part.removesuffix(".part") for part in inside.parts)
