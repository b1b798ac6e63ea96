"""The adapters of a model as one, in PEFT's files, its tokenizer beside."""

import shutil
from pathlib import Path

from zephyr.engine.plan import Plan
from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.model.load import Lineage


def write_adapter(plan: Plan, name: str, folder: Path) -> str:
    """Writes a model that has been made as one PEFT adapter; gives the base that it belongs on.

    That is the recipe's `base`, as it is written there, or the name of a model that the recipe has
    made whole.

    Raises:
        ZephyrError: the model has no adapter, or its adapters can't be one.
    """
    if not (adapters := _adapters(plan, name)):
        raise ZephyrError(
            f"{name} has no adapter: all its weights are its own",
            allowed=[other for other in plan.recipe.models if _adapters(plan, other)] or "(none)",
        )
    under = name
    while _adapters(plan, under):
        parent = plan.nodes[under].parent
        assert parent is not None, "an adapter lies on a model"
        under = parent
    base = plan.recipe.models[under].base or under
    adapter.save_as_one(adapters, folder, base)
    for file in adapters[-1].iterdir():
        if file.name not in (adapter.CONFIG, adapter.WEIGHTS):
            shutil.copy(file, folder)
    return base


def _adapters(plan: Plan, name: str) -> list[Path]:
    """The adapters of a model, bottom to top; none where it has not been made."""
    run = plan.store.find(plan.nodes[name].fingerprint)
    if not run.finished:
        return []
    return [plan.store.root / path for path in Lineage.read(run.artifact).adapters]
