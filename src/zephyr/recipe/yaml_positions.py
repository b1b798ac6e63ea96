"""YAML files that are said to be wrong with their file, line and nearest key.

A recipe and the settings of the tutor are read by this; `what` is what a file is called in errors.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zephyr.errors import ZephyrError, nearest

Place = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Loader(yaml.SafeLoader):
    """YAML 1.1 that also takes `5e-5` for a number, as everybody who writes it means."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class Written(NamedTuple):
    """What a file says, and the line of every key."""

    what: str
    path: Path
    value: dict[str, Any]
    lines: dict[Place, int]

    def validated(self, model: type[Model]) -> Model:
        """The value as a model has it.

        Raises:
            ZephyrError: it says what the model can't say.
        """
        try:
            return model.model_validate(self.value)
        except ValidationError as error:
            raise _explain(error, self, model) from None


def read_mapping(path: Path, what: str, example: str) -> Written:
    """The mapping in a file; `${NAME}` in a text is the environment's variable of that name.

    Raises:
        ZephyrError: the file is missing, is no YAML, or holds something else.
    """
    if not path.is_file():
        raise ZephyrError(
            f"this {what} is not there", where=str(path), todo="give the path of a YAML file"
        )
    too_deep = ZephyrError(
        f"this {what} is nested without end", where=str(path), todo="remove aliases"
    )
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        found = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        raise ZephyrError("this file is not valid YAML", where=line, found=found) from error
    except RecursionError:
        raise too_deep from None
    if node is None:
        raise ZephyrError(f"this {what} is empty", where=str(path), todo=f"see {example}")
    written = Written(what, path, {}, {})
    try:
        value = _value(node, (), written)
    except RecursionError:
        raise too_deep from None
    if not isinstance(value, dict):
        raise ZephyrError(f"a {what} is a mapping", where=f"{path}:1", found=type(value).__name__)
    return written._replace(value=value)


def _value(node: yaml.Node, at: Place, file: Written) -> Any:
    """The plain value of a YAML node; remembers the line of every key."""
    file.lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, i), file) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in found:
                raise ZephyrError(f"the key {key!r} stands twice", where=f"{file.path}:{line}")
            file.lines[(*at, key)] = line
            found[key] = _value(value_node, (*at, key), file)
        return found
    where = f"{file.path}:{node.start_mark.line + 1}"
    loader = Loader("")
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # a date with a thirteenth month, a foreign tag
        raise ZephyrError("this value can't be read", where=where, found=node.value) from error
    finally:
        loader.dispose()
    return _expand(value, where, file.what) if isinstance(value, str) else value


def _expand(text: str, where: str, what: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ZephyrError(
                f"the variable {name} is not set",
                where=where,
                found=text,
                todo=f"export {name}=... before you run this {what}",
            )
        return os.environ[name]

    return _VARIABLE.sub(replace, text)


def _explain(error: ValidationError, file: Written, model: type[BaseModel]) -> ZephyrError:
    """The first thing that is wrong, in the words of the file."""
    errors = _causes(error, file.value)
    at, first = next((c for c in errors if c[1]["type"] == "extra_forbidden"), errors[0])
    line = next((file.lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in file.lines), 1)
    where = f"{file.path}:{line}"
    key = ".".join(str(part) for part in at)
    subject = key or f"the {file.what}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = _fields(at[:-1], model)
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
        return ZephyrError(f"{subject} lacks {missing!r}{more}", where=where)
    return ZephyrError(f"{subject}: {message}{more}", where=where, found=found)


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
    """The parts of a pydantic location that are keys of the file, not names of its types."""
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


def _fields(at: Place, model: type[BaseModel]) -> list[str]:
    """The keys that are allowed at a place of a file."""
    schema = model.model_json_schema(by_alias=True)
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
