"""`zephyr new`: a folder for a course, with a recipe, settings and example files to replace."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from zephyr.cli.console import out
from zephyr.errors import ZephyrError

_EXAMPLES = ("lessons.csv", "quiz.csv", "pairs.jsonl")


def new(
    folder: Annotated[Path, typer.Argument(help="A folder that is new, or empty.")],
    base: Annotated[
        str, typer.Option(help="The base model: a name, an id of the hub, a folder or a GGUF file.")
    ] = "smollm2-135m-instruct",
) -> None:
    """Makes the folder of a course: a recipe, the tutor's settings, and examples of your files."""
    write_course(folder, base)
    name = folder.resolve().name
    out.print(
        f"{folder}: {name}.yaml (the recipe), tutor.yaml (what students see), and examples of "
        f"your files: {', '.join(_EXAMPLES)}\nNext:\n  cd {folder}\n"
        f"  zephyr data fetch {name}.yaml     # brings the base model\n"
        f"  zephyr run {name}.yaml            # trains, asks, and writes the report\n"
        "  zephyr serve --tutor tutor.yaml",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def write_course(folder: Path, base: str) -> None:
    """Writes the files of a course named after its folder, whose models come from `base`.

    Raises:
        ZephyrError: the folder holds something, or its name can't be that of a recipe.
    """
    from pydantic import TypeAdapter, ValidationError

    from zephyr.recipe.part import Name

    name = folder.resolve().name
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ZephyrError(
            "a course is named after its folder, and this can't be its name",
            found=name,
            allowed="letters, digits, dots, - and _, at most 64, the first a letter or digit",
        ) from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ZephyrError(
            "something is there already",
            where=str(folder),
            todo="name a folder that is new, or empty",
        )
    template = files("zephyr.cli") / "course_template"
    if Path(base).exists():
        base = str(Path(base).resolve())
    folder.mkdir(parents=True, exist_ok=True)
    for source, target in (("recipe.yaml", f"{name}.yaml"), ("tutor.yaml", "tutor.yaml")):
        text = (template / source).read_text(encoding="utf-8")
        text = text.replace("NAME", name).replace("BASE", json.dumps(base, ensure_ascii=False))
        (folder / target).write_text(text, encoding="utf-8")
    for example in _EXAMPLES:
        (folder / example).write_bytes((template / example).read_bytes())
