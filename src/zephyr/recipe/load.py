"""Loads a recipe from YAML, with overrides; errors name the file and line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from zephyr.errors import ZephyrError, unknown_name_error
from zephyr.recipe.schema import Recipe
from zephyr.recipe.yaml_positions import YamlLoader, read_mapping


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads the recipe in a file, with overrides such as `models.M1.tune.lr=1e-4` applied.

    `${NAME}` in a text is replaced by the environment variable of that name.

    Raises:
        ZephyrError: the file is missing, no valid YAML, or doesn't fit the schema.
    """
    document = read_mapping(path, "recipe", "recipes/embedded.yaml")
    value = document.value
    for override in overrides:
        _apply_override(value, override)
    if any(not override.startswith("run.") for override in overrides):
        value.pop("published", None)  # published scores are not of a changed recipe's models
    return document.validate(Recipe)


def find_recipe(name: str) -> Path:
    """Finds the file of a recipe by its path, or by the name of one that comes with Zephyr."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    package_folder = Path(__file__).parents[1]
    recipes_folder = next(
        f for f in (package_folder / "recipes", package_folder.parents[1] / "recipes") if f.is_dir()
    )
    names = sorted(p.stem for p in recipes_folder.glob("*.yaml"))
    if name not in names:
        raise unknown_name_error(
            "recipe", name, names, todo="give the path of a YAML file, or one of these"
        )
    return recipes_folder / f"{name}.yaml"


def _apply_override(recipe: dict[str, Any], override: str) -> None:
    """Applies a `key=value` override to the mapping of a recipe."""
    keys, equals, text = override.partition("=")
    if not equals or not keys:
        raise ZephyrError(
            "an override is written as key=value",
            found=override,
            allowed="for example models.M1.tune.lr=1e-4",
        )
    *parents, last = keys.split(".")
    node: Any = recipe
    for key in parents:
        node = _descend(node, key, override)
    try:
        value = yaml.load(text, Loader=YamlLoader)  # noqa: S506  # a SafeLoader with one more number
    except (yaml.YAMLError, ValueError) as error:
        raise ZephyrError("the value of this override can't be read", found=override) from error
    if isinstance(node, list):
        node[_list_index(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise _invalid_override(override, last)


def _descend(node: Any, key: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, key, override)]
    if isinstance(node, dict):
        return node.setdefault(key, {})
    raise _invalid_override(override, key)


def _list_index(items: list[Any], key: str, override: str) -> int:
    """The index in a list that `key` names: by number, or by the `name` of its item."""
    names = [str(item.get("name") if isinstance(item, dict) else item) for item in items]
    for i, name in enumerate(names):
        if key in (str(i), name):
            return i
    raise ZephyrError("this override leads nowhere", found=override, allowed=names)


def _invalid_override(override: str, key: str) -> ZephyrError:
    return ZephyrError("this override leads nowhere", found=f"{override} (at {key!r})")
