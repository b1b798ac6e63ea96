"""A Modelfile for Ollama: a GGUF, the prompt in the syntax of Go's templates, and the stops.

A template of Jinja can't be turned into one of Go in general. It is known by what it renders: if
that is what one of the forms below renders, conversation by conversation, its Go template is used.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.model.template import Template

Messages = Sequence[tuple[str, str]]
"""Roles and contents of a conversation."""

_TURNS: tuple[Messages, ...] = (
    (("user", "Q1"),),
    (("system", "S"), ("user", "Q1")),
    (("user", "Q1"), ("assistant", "A1"), ("user", "Q2")),
    (("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2")),
)


class _Form(NamedTuple):
    """A form of prompts: what it renders, and the template of Go that renders the same."""

    name: str
    default_system: str | None
    go: str


def modelfile(template: Template, gguf: str) -> str:
    """What `ollama create` reads, beside a file of weights called `gguf`.

    Raises:
        ZephyrError: the chat template is of none of the known forms.
    """
    form = _form_of(template)
    stops = [template.tokenizer.decode([token]) for token in sorted(template.stops)]
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{form.go}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    return "\n".join([*lines, "PARAMETER temperature 0", ""])


def _form_of(template: Template) -> _Form:
    tokenizer = template.tokenizer
    found = [_rendered(tokenizer, messages) for messages in _TURNS]
    end = tokenizer.eos_token
    if found == [_plain(messages, end) for messages in _TURNS]:
        return _Form("plain", None, _go_plain(end))
    start, close = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\nQ1"
    default = None
    if found[0].startswith(start) and close in found[0]:
        default = found[0].removeprefix(start).partition(close)[0]
    if found == [_chatml(messages, default) for messages in _TURNS]:
        return _Form("ChatML", default, _go_chatml(default))
    raise ZephyrError(
        "no template for Ollama is known that renders what this chat template does",
        found=repr(found[-1]),
        allowed="plain (Human: … / Assistant: …), ChatML (<|im_start|> … <|im_end|>)",
        todo="export with --to gguf, which carries the chat template itself",
    )


def _rendered(tokenizer: Any, messages: Messages) -> str:
    """A prompt without the token at its start, which Ollama's runtime puts there itself."""
    turns = [{"role": role, "content": content} for role, content in messages]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    starts = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if starts else text


# -- the forms ------------------------------------------------------------------------------------


def _plain(messages: Messages, end: str) -> str:
    shapes = {"system": "{}\n", "user": "Human: {}\nAssistant:", "assistant": " {}" + end + "\n"}
    return "".join(shapes[role].replace("{}", content) for role, content in messages)


def _go_plain(end: str) -> str:
    return (
        '{{ range .Messages }}{{ if eq .Role "system" }}{{ .Content }}\n'
        '{{ else if eq .Role "user" }}Human: {{ .Content }}\nAssistant:'
        f"{{{{ else }}}} {{{{ .Content }}}}{_literal(end)}\n{{{{ end }}}}{{{{ end }}}}"
    )


def _chatml(messages: Messages, default: str | None) -> str:
    if default is not None and messages[0][0] != "system":
        messages = (("system", default), *messages)
    said = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return f"{said}<|im_start|>assistant\n"


def _go_chatml(default: str | None) -> str:
    first = ""
    if default is not None:
        first = (
            '{{ if and (eq $i 0) (ne .Role "system") }}<|im_start|>system\n'
            f"{_literal(default)}<|im_end|>\n{{{{ end }}}}"
        )
    return (
        f"{{{{ range $i, $m := .Messages }}}}{first}<|im_start|>{{{{ .Role }}}}\n"
        "{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    )


def _literal(text: str) -> str:
    """Text that a template of Go writes as it is; quoted, it can end neither that nor the file."""
    quoted = json.dumps(text, ensure_ascii=False)
    for mark in "{}":
        quoted = quoted.replace(mark, f"\\u{ord(mark):04x}")
    return f"{{{{ {quoted} }}}}"
