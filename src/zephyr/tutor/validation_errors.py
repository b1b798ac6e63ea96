"""Validation errors as OpenAI words them: the field, what is wrong with it, and OpenAI's code."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

JSON_TYPES: Mapping[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}
EXPECTED_TYPES: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer of 64 bits",
    "int_from_float": "an integer",
    "float_type": "a decimal",
    "float_parsing": "a decimal",
    "finite_number": "a finite number",
    "bool_type": "a boolean",
    "bool_parsing": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
"""What a value should have been, by pydantic's type of error."""

BOUNDS: Mapping[str, tuple[str, str, str]] = {
    "greater_than": ("gt", ">", "below minimum"),
    "greater_than_equal": ("ge", ">=", "below minimum"),
    "less_than": ("lt", "<", "above maximum"),
    "less_than_equal": ("le", "<=", "above maximum"),
}
LENGTHS: Mapping[str, tuple[str, str, str]] = {
    "string_too_long": ("a string", "max", "too long"),
    "string_too_short": ("a string", "min", "too short"),
    "too_long": ("an array", "max", "too long"),
    "too_short": ("an array", "min", "too short"),
}


class FieldError(NamedTuple):
    """What is wrong with a request: the message, OpenAI's code, and the field."""

    message: str
    code: str
    param: str | None


def describe_errors(errors: Sequence[Mapping[str, Any]], body: Any) -> FieldError:
    """The first of pydantic's errors of a request in OpenAI's words, with the number of others."""
    first = _describe(errors[0], body)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return first._replace(message=first.message + more)


def _describe(error: Mapping[str, Any], body: Any) -> FieldError:
    kind, context = str(error["type"]), error.get("ctx", {})
    if "problem" in context:
        return FieldError(context["problem"], kind, context["param"])
    if kind == "value_error":  # of a validator of ours, which says all
        return FieldError(str(context["error"]), "invalid_value", None)
    if kind == "json_invalid":
        message = f"We could not parse the JSON body of your request: {context['error']}."
        return FieldError(message, "invalid_json", None)
    param = _field_path(error, body)
    name = f"'{param}'" if param else "the request body"
    message, code = _word(error, kind, context, name)
    return FieldError(message, code, param)


def _word(
    error: Mapping[str, Any], kind: str, context: Mapping[str, Any], name: str
) -> tuple[str, str]:
    """The message and the code of an error of the field `name`."""
    value = error.get("input")
    if kind == "missing":
        message, code = f"Missing required parameter: {name}.", "missing_required_parameter"
    elif kind == "extra_forbidden":
        message = f"Unsupported parameter: {name} is not supported by this server; leave it out."
        code = "unsupported_parameter"
    elif kind == "literal_error":
        message = f"Invalid value for {name}: {_shorten(value)}. "
        message += f"Supported values are: {context['expected']}."
        code = "invalid_value"
    elif kind in BOUNDS:
        key, sign, side = BOUNDS[kind]
        number = "integer" if isinstance(value, int) else "decimal"
        message = f"Invalid {name}: {number} {side} value. "
        message += f"Expected a value {sign} {context[key]}, but got {_shorten(value)} instead."
        code = f"{number}_{side[:9].replace(' ', '_')}_value"
    elif kind in LENGTHS:
        noun, end, wrong = LENGTHS[kind]
        length = len(value) if isinstance(value, str | list) else context["actual_length"]
        message = f"Invalid {name}: {noun.split()[1]} {wrong}. Expected {noun} with {end}imum "
        message += (
            f"length {context[f'{end}_length']}, but got {noun} with length {length} instead."
        )
        code = f"{noun.split()[1]}_{'above_max' if end == 'max' else 'below_min'}_length"
    elif kind in EXPECTED_TYPES:
        found = JSON_TYPES.get(type(value), "something else")
        message = f"Invalid type for {name}: expected {EXPECTED_TYPES[kind]}, "
        message, code = f"{message}but got {found} instead.", "invalid_type"
    else:
        message, code = f"Invalid value for {name}: {error['msg']}.", "invalid_value"
    return message, code


def _field_path(error: Mapping[str, Any], body: Any) -> str | None:
    """The field's path in the request, as `messages[1].content`.

    What is not in the body is no field, but the name of a type in the schema, or a part that a text
    was read as.
    """
    origin, *steps = error["loc"]
    value, path = body, ""
    for step in steps:
        if isinstance(step, int):
            if isinstance(value, list) and step < len(value):
                value = value[step]
                path += f"[{step}]"
        elif origin != "body" or (error["type"] == "missing" and step is steps[-1]):
            path += f".{step}" if path else step
        elif isinstance(value, dict) and step in value:
            value = value[step]
            path += f".{step}" if path else step
    return path or None


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
