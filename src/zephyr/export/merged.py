"""A whole model as a folder that plain transformers loads, with the prompts it was trained on."""

import shutil
from pathlib import Path
from typing import Any

from zephyr.errors import ZephyrError
from zephyr.model.load import Lineage, load
from zephyr.model.model import Model
from zephyr.model.precision import stored_in
from zephyr.model.quantize import is_stored


def load_whole(lineage: Lineage, store: Path) -> tuple[Model, list[str]]:
    """A model with its adapters added to its weights in float32, and what must be said of it.

    Raises:
        ZephyrError: its weights are quantized, so that nothing can be added to them exactly.
    """
    folder = lineage.folder(store)
    if is_stored(folder):
        raise ZephyrError(
            "the weights of this model are quantized",
            where=str(folder),
            todo="export its adapters with --to peft"
            if lineage.adapters
            else "export the model that it was quantized from, or this one with --to merged",
        )
    said = []
    if lineage.load is not None:
        said.append(
            f"Its adapters were trained on weights in {lineage.load}; here they are added to the"
            " weights as the base stores them, so that answers may differ from those measured."
        )
    model = load(Lineage(lineage.weights, None, lineage.adapters), store, token_budget=4096)
    model.merge()
    return model, said


def write_merged(lineage: Lineage, store: Path, folder: Path) -> tuple[Any, list[str]]:
    """Writes network, tokenizer, chat template and stop tokens.

    The weights have the dtype of the base's files; those of a quantized model are copied as they
    are. Gives the template of its prompts, and what must be said of it.

    Raises:
        ZephyrError: adapters lie on weights that are quantized.
    """
    source = lineage.folder(store)
    if is_stored(source) and not lineage.adapters:
        model = load(lineage, store, token_budget=4096)
        for path in source.iterdir():
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"):
                shutil.copyfile(path, folder / path.name)
        said: list[str] = []
    else:
        model, said = load_whole(lineage, store)
        model.causal.to(stored_in(source))
    ends = model.causal.generation_config
    ends.eos_token_id = sorted(model.template.stops)
    if ends.pad_token_id is None:
        ends.pad_token_id = model.template.stop
    if is_stored(source):
        ends.save_pretrained(folder)
    else:
        model.causal.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return model.template, said
