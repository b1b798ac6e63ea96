"""PEFT export: the stacked LoRA adapters of a model as one, with the tokenizer."""

import shutil
from pathlib import Path

from zephyr.engine.plan import Plan
from zephyr.errors import ZephyrError
from zephyr.export.transformers_4 import add_older_names
from zephyr.model import adapter
from zephyr.model.load import Lineage


def write_peft_adapter(plan: Plan, name: str, folder: Path) -> str:
    """Writes the adapters of a finished model as one PEFT adapter; returns its base model.

    The base model is the recipe's `base`, or the name of a model whose weights the recipe trained.

    Raises:
        ZephyrError: the model has no adapter, or its adapters can't be combined.
    """
    if not (adapters := _adapter_folders(plan, name)):
        raise ZephyrError(
            f"{name} has no adapter: all its weights are its own",
            allowed=[other for other in plan.recipe.models if _adapter_folders(plan, other)]
            or "(none)",
        )
    base_model = name
    while _adapter_folders(plan, base_model):
        parent = plan.nodes[base_model].parent
        assert parent is not None, "an adapter lies on a model"
        base_model = parent
    base = plan.recipe.models[base_model].base or base_model
    adapter.save_concatenated(adapters, folder, base)
    for file in adapters[-1].iterdir():
        if file.name not in (adapter.CONFIG_FILE, adapter.WEIGHTS_FILE):
            shutil.copy(file, folder)
    add_older_names(folder)
    return base


def _adapter_folders(plan: Plan, name: str) -> list[Path]:
    """The adapter folders of a model, bottom to top; none if it is not finished."""
    run = plan.store.find(plan.nodes[name].fingerprint)
    if not run.is_finished:
        return []
    return [plan.store.root / path for path in Lineage.read(run.artifact).adapters]
