"""Reads a recipe from YAML, so that whatever is wrong is said with its file and line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from zephyr.errors import ZephyrError, unknown
from zephyr.recipe.schema import Recipe
from zephyr.recipe.yaml_positions import Loader, read_mapping


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with overrides such as `models.M1.tune.lr=1e-4` put in.

    `${NAME}` in a text is the environment's variable of that name.

    Raises:
        ZephyrError: the file is missing, is no YAML, or says what a recipe can't say.
    """
    written = read_mapping(path, "recipe", "recipes/embedded.yaml")
    value = written.value
    for override in overrides:
        _override(value, override)
    if any(not override.startswith("run.") for override in overrides):
        value.pop("published", None)  # these are no longer the models that others measured
    return written.validated(Recipe)


def find_recipe(name: str) -> Path:
    """The file of a recipe given by its path, or by the name of one that comes with Zephyr."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    here = Path(__file__).parents[1]
    shipped = next(f for f in (here / "recipes", here.parents[1] / "recipes") if f.is_dir())
    names = sorted(p.stem for p in shipped.glob("*.yaml"))
    if name not in names:
        raise unknown("recipe", name, names, todo="give the path of a YAML file, or one of these")
    return shipped / f"{name}.yaml"


def _override(recipe: dict[str, Any], override: str) -> None:
    keys, equals, text = override.partition("=")
    if not equals or not keys:
        raise ZephyrError(
            "an override is written as key=value",
            found=override,
            allowed="for example models.M1.tune.lr=1e-4",
        )
    *parents, last = keys.split(".")
    here: Any = recipe
    for key in parents:
        here = _step(here, key, override)
    try:
        value = yaml.load(text, Loader=Loader)  # noqa: S506  # a SafeLoader with one more number
    except (yaml.YAMLError, ValueError) as error:
        raise ZephyrError("the value of this override can't be read", found=override) from error
    if isinstance(here, list):
        here[_position(here, last, override)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise _no_way(override, last)


def _step(here: Any, key: str, override: str) -> Any:
    if isinstance(here, list):
        return here[_position(here, key, override)]
    if isinstance(here, dict):
        return here.setdefault(key, {})
    raise _no_way(override, key)


def _position(items: list[Any], key: str, override: str) -> int:
    """The place in a list that `key` names: by number, or by the `name` of its item."""
    names = [str(item.get("name") if isinstance(item, dict) else item) for item in items]
    for i, name in enumerate(names):
        if key in (str(i), name):
            return i
    raise ZephyrError("this override leads nowhere", found=override, allowed=names)


def _no_way(override: str, key: str) -> ZephyrError:
    return ZephyrError("this override leads nowhere", found=f"{override} (at {key!r})")
