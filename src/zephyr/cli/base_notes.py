"""What is to be known of a recipe's base models before training: GGUF export, and licences."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from zephyr.cli.console import out

if TYPE_CHECKING:
    from zephyr.recipe.schema import Recipe


def print_base_notes(recipe: "Recipe", folder: Path) -> None:
    """Prints what is to be known of the base models at hand."""
    for line in describe_bases(recipe, folder):
        out.print(line, highlight=False, markup=False)


def describe_bases(recipe: "Recipe", folder: Path) -> list[str]:
    """A line for each base model at hand: whether it can be exported as GGUF, and its licence."""
    from zephyr.errors import ZephyrError
    from zephyr.model.base_model import find_base_licence, locate_base_model

    lines = []
    for name, model in recipe.models.items():
        if model.base is None:
            continue
        try:
            path = locate_base_model(model.base, folder, f"models.{name}.base")
        except ZephyrError:
            continue  # a recipe that is run or checked says so by itself
        licence = find_base_licence(model.base, folder, path)
        lines.append(
            f"{name}: {_describe_gguf(path)}; {licence or 'its licence is not known here'}"
        )
    if lines:
        lines.append(
            "What is made of them stands under their licences, and those of the data in it: "
            "the model card lists both."
        )
    return lines


def _describe_gguf(path: Path) -> str:
    """Whether what is made of a base can be exported as GGUF, by its config and tokenizer alone."""
    from transformers import AutoConfig

    from zephyr.errors import ZephyrError
    from zephyr.export.gguf_families import FAMILIES
    from zephyr.export.gguf_file import check_gguf_support
    from zephyr.model.gguf_base import SUFFIX, read_gguf_metadata
    from zephyr.model.tokenizer import load_tokenizer

    try:
        if path.suffix == SUFFIX:
            found = read_gguf_metadata(path).values["general.architecture"]
            if found in {family.architecture for family in FAMILIES.values()}:
                return "can be exported as GGUF, for Ollama and llama.cpp"
            return f"can't be exported as GGUF ({found} can't be written here)"
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        check_gguf_support(config, load_tokenizer(path))
    except ZephyrError as error:
        found = next((line for line in str(error).splitlines() if "found:" in line), "")
        reason = textwrap.shorten(f"{error.problem}{found.replace('  found:  ', ':')}", 120)
        return f"can't be exported as GGUF ({reason})"
    except (OSError, ValueError) as error:
        return f"its config can't be read ({type(error).__name__})"
    return "can be exported as GGUF, for Ollama and llama.cpp"
