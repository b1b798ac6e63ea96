"""Loads YAML with source positions; validation errors name the file, line and nearest key.

Recipes and the settings of the tutor are read by this; `noun` is what a file is called in errors.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zephyr.errors import ZephyrError, closest_name

KeyPath = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class YamlLoader(yaml.SafeLoader):
    """A YAML 1.1 safe loader that also parses `5e-5` as a number."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class YamlDocument(NamedTuple):
    """A parsed YAML document, and the line number of every key."""

    noun: str
    path: Path
    value: dict[str, Any]
    lines: dict[KeyPath, int]

    def validate(self, model: type[ModelT]) -> ModelT:
        """Validates the document with a pydantic model.

        Raises:
            ZephyrError: it doesn't fit the model's schema.
        """
        try:
            return model.model_validate(self.value)
        except ValidationError as error:
            raise _validation_error(error, self, model) from None


def read_mapping(path: Path, noun: str, example: str) -> YamlDocument:
    """Reads a YAML mapping; `${NAME}` in a text is replaced by the environment variable.

    Raises:
        ZephyrError: the file is missing, is no YAML, or holds something else.
    """
    if not path.is_file():
        raise ZephyrError(
            f"this {noun} is not there", where=str(path), todo="give the path of a YAML file"
        )
    too_deep = ZephyrError(
        f"this {noun} is nested without end", where=str(path), todo="remove aliases"
    )
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=YamlLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        found = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        raise ZephyrError("this file is not valid YAML", where=line, found=found) from error
    except RecursionError:
        raise too_deep from None
    if node is None:
        raise ZephyrError(f"this {noun} is empty", where=str(path), todo=f"see {example}")
    document = YamlDocument(noun, path, {}, {})
    try:
        value = _construct_value(node, (), document)
    except RecursionError:
        raise too_deep from None
    if not isinstance(value, dict):
        raise ZephyrError(f"a {noun} is a mapping", where=f"{path}:1", found=type(value).__name__)
    return document._replace(value=value)


def _construct_value(node: yaml.Node, key_path: KeyPath, document: YamlDocument) -> Any:
    """Constructs the plain value of a YAML node; records the line of every key."""
    document.lines.setdefault(key_path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct_value(item, (*key_path, i), document) for i, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in mapping:
                raise ZephyrError(f"the key {key!r} stands twice", where=f"{document.path}:{line}")
            document.lines[(*key_path, key)] = line
            mapping[key] = _construct_value(value_node, (*key_path, key), document)
        return mapping
    where = f"{document.path}:{node.start_mark.line + 1}"
    loader = YamlLoader("")
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # a date with a thirteenth month, a foreign tag
        raise ZephyrError("this value can't be read", where=where, found=node.value) from error
    finally:
        loader.dispose()
    return _expand_variables(value, where, document.noun) if isinstance(value, str) else value


def _expand_variables(text: str, where: str, noun: str) -> str:
    """Expands `${NAME}` to environment variables."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ZephyrError(
                f"the variable {name} is not set",
                where=where,
                found=text,
                todo=f"export {name}=... before you run this {noun}",
            )
        return os.environ[name]

    return _VARIABLE.sub(replace, text)


def _validation_error(
    error: ValidationError, document: YamlDocument, model: type[BaseModel]
) -> ZephyrError:
    """Turns pydantic's validation error into a `ZephyrError`: the first error, with its line."""
    errors = _root_errors(error, document.value)
    key_path, first = next((c for c in errors if c[1]["type"] == "extra_forbidden"), errors[0])
    line = next(
        (
            document.lines[key_path[:n]]
            for n in range(len(key_path), -1, -1)
            if key_path[:n] in document.lines
        ),
        1,
    )
    where = f"{document.path}:{line}"
    key = ".".join(str(part) for part in key_path)
    subject = key or f"the {document.noun}"
    more_errors = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = _allowed_keys(key_path[:-1], model)
        return ZephyrError(
            f"unknown key {key!r}{more_errors}",
            where=where,
            allowed=allowed,
            nearest=closest_name(str(key_path[-1]), allowed),
        )
    message = first["msg"].removeprefix("Value error, ")
    found = None if isinstance(first["input"], dict | list | BaseModel) else repr(first["input"])
    if first["type"] == "missing":
        missing = str(first["loc"][-1])
        return ZephyrError(f"{subject} lacks {missing!r}{more_errors}", where=where)
    return ZephyrError(f"{subject}: {message}{more_errors}", where=where, found=found)


def _root_errors(
    error: ValidationError, value: dict[str, Any]
) -> list[tuple[KeyPath, ErrorDetails]]:
    """Root errors, one for each key, without those of enclosing keys that follow from them."""
    error_by_path: dict[KeyPath, ErrorDetails] = {}
    missing_by_path: dict[KeyPath, ErrorDetails] = {}
    for detail in error.errors():
        key_path = _file_key_path(detail["loc"], value)
        if detail["type"] == "missing":
            missing_by_path[(*key_path, detail["loc"][-1])] = detail
        else:
            error_by_path.setdefault(key_path, detail)
    paths = [*error_by_path, *missing_by_path]
    innermost = [p for p in paths if not any(q != p and q[: len(p)] == p for q in paths)]
    return [
        (p, error_by_path[p]) if p in error_by_path else (p[:-1], missing_by_path[p])
        for p in innermost
    ]


def _file_key_path(loc: Iterable[Any], value: Any) -> KeyPath:
    """The key path in the file of a pydantic `loc`, without union and type names."""
    parts = []
    node = value
    for part in loc:
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            node = node[part]
        else:
            continue
        parts.append(part)
    return tuple(parts)


def _allowed_keys(key_path: KeyPath, model: type[BaseModel]) -> list[str]:
    """The keys that are allowed at a path of a file, by the JSON schema."""
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

    node = schema
    for part in key_path:
        if isinstance(part, int):
            node = resolve(node["items"])
        else:
            property_schema = node.get("properties", {}).get(part)
            item_schema = node.get("additionalProperties") or next(
                iter(node.get("patternProperties", {}).values()), None
            )
            node = resolve(property_schema or item_schema or {})
    return sorted(node.get("properties", {}))
