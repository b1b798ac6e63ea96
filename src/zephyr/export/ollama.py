"""Ollama export: a Modelfile for a GGUF, with the chat template as a Go template, and stops.

A Jinja template can't be converted to a Go template in general. Trial conversations are rendered:
if the output equals that of a known format, the Go template of that format is used.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError
from zephyr.model.template import ChatTemplate

Messages = Sequence[tuple[str, str]]
"""Roles and contents of a conversation."""

_TRIAL_CONVERSATIONS: tuple[Messages, ...] = (
    (("user", "Q1"),),
    (("system", "S"), ("user", "Q1")),
    (("user", "Q1"), ("assistant", "A1"), ("user", "Q2")),
    (("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2")),
)


class _PromptFormat(NamedTuple):
    """A known prompt format, and the Go template that renders the same."""

    name: str
    default_system: str | None
    go_template: str


MAX_CONTEXT_TOKENS = 32_768
"""Largest `num_ctx` of a Modelfile: Ollama reserves the memory of a whole KV cache at the start."""


def choose_num_ctx(context_length: int) -> int:
    """The context that Ollama is told to keep: the model's own, up to `MAX_CONTEXT_TOKENS`."""
    return min(context_length, MAX_CONTEXT_TOKENS)


def build_modelfile(template: ChatTemplate, gguf: str, context_length: int) -> str:
    """Builds the Modelfile for `ollama create`, for the GGUF file called `gguf` beside it.

    Without `num_ctx` Ollama keeps 2,048 to 4,096 tokens, and drops the beginning in silence.

    Raises:
        ZephyrError: the chat template is none of the known formats.
    """
    prompt_format = _detect_prompt_format(template)
    stops = [template.tokenizer.decode([token]) for token in sorted(template.stop_token_ids)]
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{prompt_format.go_template}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines.append(f"PARAMETER num_ctx {choose_num_ctx(context_length)}")
    return "\n".join([*lines, "PARAMETER temperature 0", ""])


def _detect_prompt_format(template: ChatTemplate) -> _PromptFormat:
    tokenizer = template.tokenizer
    found = [_render_prompt(tokenizer, messages) for messages in _TRIAL_CONVERSATIONS]
    end = tokenizer.eos_token
    if found == [_render_plain(messages, end) for messages in _TRIAL_CONVERSATIONS]:
        return _PromptFormat("plain", None, _plain_go_template(end))
    start, close = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\nQ1"
    default = None
    if found[0].startswith(start) and close in found[0]:
        default = found[0].removeprefix(start).partition(close)[0]
    if found == [_render_chatml(messages, default) for messages in _TRIAL_CONVERSATIONS]:
        return _PromptFormat("ChatML", default, _chatml_go_template(default))
    raise ZephyrError(
        "no template for Ollama is known that renders what this chat template does",
        found=repr(found[-1]),
        allowed="plain (Human: … / Assistant: …), ChatML (<|im_start|> … <|im_end|>)",
        todo="export with --to gguf, which carries the chat template itself",
    )


def _render_prompt(tokenizer: Any, messages: Messages) -> str:
    """Renders a prompt without its BOS token, which Ollama adds itself."""
    turns = [{"role": role, "content": content} for role, content in messages]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    has_bos = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if has_bos else text


# -- known formats --------------------------------------------------------------------------------


def _render_plain(messages: Messages, end: str) -> str:
    shapes = {"system": "{}\n", "user": "Human: {}\nAssistant:", "assistant": " {}" + end + "\n"}
    return "".join(shapes[role].replace("{}", content) for role, content in messages)


def _plain_go_template(end: str) -> str:
    return (
        '{{ range .Messages }}{{ if eq .Role "system" }}{{ .Content }}\n'
        '{{ else if eq .Role "user" }}Human: {{ .Content }}\nAssistant:'
        f"{{{{ else }}}} {{{{ .Content }}}}{_go_literal(end)}\n{{{{ end }}}}{{{{ end }}}}"
    )


def _render_chatml(messages: Messages, default: str | None) -> str:
    if default is not None and messages[0][0] != "system":
        messages = (("system", default), *messages)
    rendered = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return f"{rendered}<|im_start|>assistant\n"


def _chatml_go_template(default: str | None) -> str:
    first = ""
    if default is not None:
        first = (
            '{{ if and (eq $i 0) (ne .Role "system") }}<|im_start|>system\n'
            f"{_go_literal(default)}<|im_end|>\n{{{{ end }}}}"
        )
    return (
        f"{{{{ range $i, $m := .Messages }}}}{first}<|im_start|>{{{{ .Role }}}}\n"
        "{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    )


def _go_literal(text: str) -> str:
    """A text as a quoted Go template literal (escaped against template injection)."""
    quoted = json.dumps(text, ensure_ascii=False)
    for mark in "{}":
        quoted = quoted.replace(mark, f"\\u{ord(mark):04x}")
    return f"{{{{ {quoted} }}}}"
