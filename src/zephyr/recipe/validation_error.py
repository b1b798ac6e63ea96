"""Validation errors in the words of a recipe: which key is wrong, what is allowed, the nearest."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zephyr.errors import ZephyrError, closest_name

KeyPath = tuple[str | int, ...]

KEYS_OF_OTHER_TOOLS = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch",
    "batch_size": "batch",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "warmup_steps": "warmup",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "clip",
    "adam_beta2": "beta2",
    "logging_steps": "log_every",
    "eval_steps": "evaluate_every",
    "max_seq_length": "max_length",
    "cutoff_len": "max_length",
    "r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "val_size": "holdout",
    "max_samples": "cap",
    "num_fewshot": "shots",
    "model_name_or_path": "base",
}
"""What TRL, PEFT, LLaMA-Factory and lm-evaluation-harness call a key of a recipe."""
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_TYPE_MESSAGES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text",
    "list": "must be a list",
    "tuple": "must be a list",
    "dict": "must be a mapping (keys with values)",
    "model": "must be a mapping (keys with values)",
}
"""What a value of another type should be, by the beginning of pydantic's type of error."""


def explain_validation_error(
    error: ValidationError,
    value: dict[str, Any],
    model: type[BaseModel],
    noun: str,
    find_location: Callable[[KeyPath], str],
) -> ZephyrError:
    """Turns pydantic's validation error into a `ZephyrError`: the first error, and where it is.

    `value` is what was validated, `noun` what its file is called.
    """
    errors = _root_errors(error, value)
    key_path, first = next((c for c in errors if c[1]["type"] == "extra_forbidden"), errors[0])
    where = find_location(key_path)
    key = ".".join(str(part) for part in key_path)
    subject = key or f"the {noun}"
    more_errors = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed, name = _allowed_keys(key_path[:-1], model), str(key_path[-1])
        synonym = KEYS_OF_OTHER_TOOLS.get(name)
        return ZephyrError(
            f"unknown key {key!r}{more_errors}",
            where=where,
            allowed=allowed,
            nearest=synonym if synonym in allowed else closest_name(name, allowed),
        )
    message = _describe_type(first)
    found = None if isinstance(first["input"], dict | list | BaseModel) else repr(first["input"])
    if first["type"] == "missing":
        missing = str(first["loc"][-1])
        return ZephyrError(f"{subject} lacks {missing!r}{more_errors}", where=where)
    todo = None
    if isinstance(first["input"], str) and _DECIMAL_COMMA.fullmatch(first["input"]):
        todo = f"write a decimal point: {first['input'].replace(',', '.')}"
    return ZephyrError(f"{subject}: {message}{more_errors}", where=where, found=found, todo=todo)


def _describe_type(error: ErrorDetails) -> str:
    """What is wrong with a value, in the words of a recipe."""
    kind, _, rest = error["type"].partition("_")
    if rest in ("type", "parsing", "from_float") and kind in _TYPE_MESSAGES:
        return _TYPE_MESSAGES[kind]
    message = error["msg"].removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("String should", "must")


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
