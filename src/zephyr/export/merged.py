"""Merged export: a folder with LoRA merged into the weights, loadable with transformers."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from zephyr.errors import ZephyrError
from zephyr.export.transformers_4 import add_older_names
from zephyr.model.bnb_quantization import is_stored_quantized
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.model.precision import stored_dtype
from zephyr.model.text_part import text_part_note


def load_merged(lineage: Lineage, store: Path) -> tuple[Model, list[str]]:
    """Loads a model with its adapters merged (float32), and notes for its model card.

    Raises:
        ZephyrError: its weights are quantized, so that adapters can't be merged exactly.
    """
    folder = lineage.weights_folder(store)
    if is_stored_quantized(folder):
        raise ZephyrError(
            "the weights of this model are quantized",
            where=str(folder),
            todo="export its adapters with --to peft"
            if lineage.adapters
            else "export the model that it was quantized from, or this one with --to merged",
        )
    notes = [note] if (note := text_part_note(folder)) else []
    if lineage.quantization is not None:
        notes.append(
            f"Its adapters were trained on weights in {lineage.quantization}; here they are "
            "added to the"
            " weights as the base stores them, so that answers may differ from those measured."
        )
    model = load_model(replace(lineage, quantization=None), store, token_budget=4096)
    model.merge_adapters()
    return model, notes


def write_merged(lineage: Lineage, store: Path, folder: Path) -> tuple[Any, list[str]]:
    """Writes the merged model, tokenizer, chat template and stop tokens for transformers.

    The weights have the dtype of the base's files; quantized weights are copied unchanged. Returns
    the chat template, and notes for the model card.

    Raises:
        ZephyrError: the model has adapters on quantized weights.
    """
    source = lineage.weights_folder(store)
    if is_stored_quantized(source) and not lineage.adapters:
        model = load_model(lineage, store, token_budget=4096)
        for path in source.iterdir():
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"):
                shutil.copyfile(path, folder / path.name)
        notes: list[str] = []
    else:
        model, notes = load_merged(lineage, store)
        model.causal.to(stored_dtype(source))
    generation_config = model.causal.generation_config
    generation_config.eos_token_id = sorted(model.template.stop_token_ids)
    if generation_config.pad_token_id is None:
        generation_config.pad_token_id = model.template.stop_token_id
    if is_stored_quantized(source):
        generation_config.save_pretrained(folder)
    else:
        model.causal.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return model.template, [*notes, *add_older_names(folder)]
