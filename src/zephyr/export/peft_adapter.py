"""PEFT export: the stacked LoRA adapters of a model as one, with the tokenizer."""

import re
import shutil
from pathlib import Path

from zephyr.engine.plan import Plan
from zephyr.errors import ZephyrError
from zephyr.export.transformers_4 import add_older_names
from zephyr.model import adapter
from zephyr.model.load import Lineage
from zephyr.model.text_part import whole_prefix
from zephyr.runs.store import read_json, write_json


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
    lineage = Lineage.read(plan.store.find(plan.nodes[name].fingerprint).artifact)
    if prefix := whole_prefix(lineage.weights_folder(plan.store.root)):
        rename_for_whole(folder, prefix)
    for file in adapters[-1].iterdir():
        if file.name not in (adapter.CONFIG_FILE, adapter.WEIGHTS_FILE):
            shutil.copy(file, folder)
    add_older_names(folder)
    return base


def rename_for_whole(folder: Path, prefix: str) -> None:
    """Renames a text part's adapter for the multimodal network that it is a part of.

    `prefix` is that of the text part's modules there. Targets become an expression that matches no
    layer of a tower.
    """
    from safetensors.torch import load_file, save_file

    weights, config = folder / adapter.WEIGHTS_FILE, read_json(folder / adapter.CONFIG_FILE)
    start = "base_model.model."
    renamed = {
        f"{start}{prefix}{key.removeprefix(start).removeprefix('model.')}": value
        for key, value in load_file(weights).items()
    }
    save_file(renamed, weights, metadata={"format": "pt"})
    names = "|".join(re.escape(target) for target in config["target_modules"])
    targets = rf"{re.escape(prefix)}(?:.*\.)?(?:{names})"
    write_json(folder / adapter.CONFIG_FILE, config | {"target_modules": targets})


def _adapter_folders(plan: Plan, name: str) -> list[Path]:
    """The adapter folders of a model, bottom to top; none if it is not finished."""
    run = plan.store.find(plan.nodes[name].fingerprint)
    if not run.is_finished:
        return []
    return [plan.store.root / path for path in Lineage.read(run.artifact).adapters]
