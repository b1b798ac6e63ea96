"""Reads a recipe from YAML, so that whatever is wrong is said with its file and line."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zephyr.errors import ZephyrError, nearest, unknown
from zephyr.recipe import Recipe

Place = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 that also takes `5e-5` for a number, as everybody who writes it means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with overrides such as `models.M1.tune.lr=1e-4` put in.

    `${NAME}` in a text is the environment's variable of that name.

    Raises:
        ZephyrError: the file is missing, is no YAML, or says what a recipe can't say.
    """
    if not path.is_file():
        raise ZephyrError(
            "this recipe is not there", where=str(path), todo="give the path of a YAML file"
        )
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        what = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        raise ZephyrError("this file is not valid YAML", where=line, found=what) from error
    except RecursionError:
        raise _too_deep(path) from None
    if node is None:
        raise ZephyrError("this recipe is empty", where=str(path), todo="see recipes/embedded.yaml")
    lines: dict[Place, int] = {}
    try:
        value = _value(node, (), lines, path)
    except RecursionError:
        raise _too_deep(path) from None
    if not isinstance(value, dict):
        raise ZephyrError("a recipe is a mapping", where=f"{path}:1", found=type(value).__name__)
    for override in overrides:
        _override(value, override)
    if any(not override.startswith("run.") for override in overrides):
        value.pop("published", None)  # these are no longer the models that others measured
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise _explain(error, path, lines, value) from None


def _too_deep(path: Path) -> ZephyrError:
    return ZephyrError("this recipe is nested without end", where=str(path), todo="remove aliases")


def find_recipe(name: str) -> Path:
    """The file of a recipe given by its path, or by the name of one that comes with Zephyr."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    here = Path(__file__).parent
    shipped = next(f for f in (here / "recipes", here.parents[1] / "recipes") if f.is_dir())
    names = sorted(p.stem for p in shipped.glob("*.yaml"))
    if name not in names:
        raise unknown("recipe", name, names, todo="give the path of a YAML file, or one of these")
    return shipped / f"{name}.yaml"


def _value(node: yaml.Node, at: Place, lines: dict[Place, int], path: Path) -> Any:
    """The plain value of a YAML node; remembers the line of every key."""
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, i), lines, path) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in found:
                raise ZephyrError(f"the key {key!r} stands twice", where=f"{path}:{line}")
            lines[(*at, key)] = line
            found[key] = _value(value_node, (*at, key), lines, path)
        return found
    where = f"{path}:{node.start_mark.line + 1}"
    loader = _Loader("")
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # a date with a thirteenth month, a foreign tag
        raise ZephyrError("this value can't be read", where=where, found=node.value) from error
    finally:
        loader.dispose()
    return _expand(value, where) if isinstance(value, str) else value


def _expand(text: str, where: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ZephyrError(
                f"the variable {name} is not set",
                where=where,
                found=text,
                todo=f"export {name}=... before you run this recipe",
            )
        return os.environ[name]

    return _VARIABLE.sub(replace, text)


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
        value = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader with one more number
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


def _explain(
    error: ValidationError, path: Path, lines: dict[Place, int], value: dict[str, Any]
) -> ZephyrError:
    """The first thing that is wrong, in the words of a recipe."""
    errors = _causes(error, value)
    at, first = next((c for c in errors if c[1]["type"] == "extra_forbidden"), errors[0])
    line = next((lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in lines), 1)
    where = f"{path}:{line}"
    key = ".".join(str(part) for part in at)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = _fields(at[:-1])
        return ZephyrError(
            f"unknown key {key!r}{more}",
            where=where,
            allowed=allowed,
            nearest=nearest(str(at[-1]), allowed),
        )
    message = first["msg"].removeprefix("Value error, ")
    found = None if isinstance(first["input"], dict | list | BaseModel) else repr(first["input"])
    if first["type"] == "missing":
        missing = str(first["loc"][-1])
        return ZephyrError(f"{key or 'the recipe'} lacks {missing!r}{more}", where=where)
    return ZephyrError(f"{key or 'the recipe'}: {message}{more}", where=where, found=found)


def _causes(error: ValidationError, value: dict[str, Any]) -> list[tuple[Place, ErrorDetails]]:
    """What is wrong, one for each place, without what only follows from it further up."""
    found: dict[Place, ErrorDetails] = {}
    missing: dict[Place, ErrorDetails] = {}
    for each in error.errors():
        at = _present(each["loc"], value)
        if each["type"] == "missing":
            missing[(*at, each["loc"][-1])] = each
        else:
            found.setdefault(at, each)
    places = [*found, *missing]
    inmost = [p for p in places if not any(q != p and q[: len(p)] == p for q in places)]
    return [(p, found[p]) if p in found else (p[:-1], missing[p]) for p in inmost]


def _present(loc: Iterable[Any], value: Any) -> Place:
    """The parts of a pydantic location that are keys of the recipe, not names of its types."""
    parts = []
    here = value
    for part in loc:
        if (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        ):
            here = here[part]
        else:
            continue
        parts.append(part)
    return tuple(parts)


def _fields(at: Place) -> list[str]:
    """The keys that are allowed at a place of a recipe."""
    schema = Recipe.model_json_schema(by_alias=True)
    definitions = schema["$defs"]

    def resolve(part: dict[str, Any]) -> dict[str, Any]:
        options = [part, *part.get("anyOf", ())]
        for option in options:
            if "$ref" in option:
                return dict(definitions[option["$ref"].rsplit("/", 1)[-1]])
            if option.get("type") in ("object", "array"):
                return dict(option)
        return part

    here = schema
    for part in at:
        if isinstance(part, int):
            here = resolve(here["items"])
        else:
            inner = here.get("properties", {}).get(part)
            named = here.get("additionalProperties") or next(
                iter(here.get("patternProperties", {}).values()), None
            )
            here = resolve(inner or named or {})
    return sorted(here.get("properties", {}))
