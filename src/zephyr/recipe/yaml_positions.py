"""Loads YAML with source positions, so that errors name the file and line of a key.

Recipes and the settings of the tutor are read by this; `noun` is what a file is called in errors.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from zephyr.errors import ZephyrError
from zephyr.recipe.validation_error import KeyPath, explain_validation_error

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
            raise explain_validation_error(
                error, self.value, model, self.noun, self.where
            ) from None

    def where(self, key_path: KeyPath) -> str:
        """The file and line of a key, or of the innermost key around it that has one."""
        for length in range(len(key_path), -1, -1):
            if key_path[:length] in self.lines:
                return f"{self.path}:{self.lines[key_path[:length]]}"
        return f"{self.path}:1"


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
