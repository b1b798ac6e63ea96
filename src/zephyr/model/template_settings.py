"""Settings of a chat template (Jinja): thinking off or on, and one date for every day.

They are written in front of the template itself, so that whatever renders it (training, evaluation,
chat, the server, programs that read an export) gives the same prompts, today and on another day.
"""

import re
from typing import Any

import jinja2

from zephyr.errors import ZephyrError
from zephyr.recipe.models import Thinking

FIXED_DATE = "26 Jul 2024"
"""The date of prompts, where a template asks for today's: the one that Llama 3's template writes
where no clock is at hand."""

_STRFTIME = {
    "%d": "26",
    "%-d": "26",
    "%e": "26",
    "%j": "208",
    "%A": "Friday",
    "%a": "Fri",
    "%m": "07",
    "%-m": "7",
    "%B": "July",
    "%b": "Jul",
    "%Y": "2024",
    "%y": "24",
    "%F": "2024-07-26",
    "%D": "07/26/24",
    "%x": "07/26/24",
    "%T": "12:00:00",
    "%X": "12:00:00",
    "%H": "12",
    "%I": "12",
    "%M": "00",
    "%S": "00",
    "%p": "PM",
}
"""The directives of `strftime` at noon of the fixed date."""

_HEADER = re.compile(r"\A\{# settings of Zephyr #\}.*?\{# end of settings #\}\n", re.DOTALL)
_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates switch thinking off or on (Qwen3, SmolLM3, …; Granite, DeepSeek)."""

_MARK = r"[<\[][^<>\[\]\s]*think[^<>\[\]\s]*[>\]]|<\|channel>thought|<channel\|>"
_THOUGHT_MARK = re.compile(_MARK, re.IGNORECASE)
"""What begins or ends a thought: <think>, </think>, [THINK], <|START_THINKING|>, Gemma 4's."""
_MARK_WITH_SPACE = re.compile(rf"\s*(?:{_MARK})\s*", re.IGNORECASE)
_PLACEHOLDERS = {role: f"\ue000{role}\ue001" for role in ("system", "user", "assistant")}
_TRIAL_ROLES = (
    (("user",), True),
    (("system", "user"), True),
    (("user", "assistant", "user"), True),
    (("user", "assistant"), False),
)


def write_settings(tokenizer: Any, thinking: Thinking) -> tuple[str, ...]:
    """Writes thinking and the fixed date in front of a tokenizer's chat template, where it needs.

    Returns notes that say what was set.

    Raises:
        ZephyrError: a thought can't be switched off, or there is none to be switched on.
    """
    where = str(tokenizer.name_or_path)
    try:
        source = _HEADER.sub("", tokenizer.get_chat_template())
    except ValueError as error:
        raise ZephyrError(
            "the tokenizer has several chat templates, and none is the default",
            where=where,
            found=", ".join(tokenizer.chat_template),
            todo="name one of them `default` in tokenizer_config.json",
        ) from error
    statements, notes = [], []
    if "strftime_now" in source:
        replaced = "".join(f" | replace('{key}', '{text}')" for key, text in _STRFTIME.items())
        statements.append(
            f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}"
        )
        notes.append(
            f"the chat template writes today's date: every prompt has {FIXED_DATE} instead"
        )
    plain = _render_trials(tokenizer, "".join(statements) + source)
    has_switch = False
    for name in _SWITCHES:
        renderings = {
            value: _render_trials(tokenizer, "".join(statements) + source, **{name: value == "on"})
            for value in ("off", "on")
        }
        has_switch |= renderings["off"] != renderings["on"]
        if renderings["off"] != renderings["on"] and renderings[thinking] != plain:
            value = "true" if thinking == "on" else "false"
            statements.append(f"{{% set {name} = {value} %}}")
            notes.append(f"the chat template can think: {name} is {value} in every prompt")
    header = (
        "{# settings of Zephyr #}" + "".join(statements) + "{# end of settings #}\n"
        if statements
        else ""
    )
    [prompt, *_] = _render_trials(tokenizer, header + source)
    tail = prompt.rpartition(_PLACEHOLDERS["user"])[2]
    if thinking == "off" and opens_thought(tail):
        raise ZephyrError(
            "the generation prompt of this chat template opens a thought",
            where=where,
            found=repr(tail),
            allowed="a template whose thinking can be switched off, as Qwen3's",
            todo="set `thinking: on` beside `base` to evaluate and serve it (it can't be tuned), "
            "or take another base model",
        )
    if thinking == "on" and not has_switch and not opens_thought(tail):
        raise ZephyrError(
            "this chat template has no thinking that could be switched on",
            where=where,
            found=f"no {' or '.join(_SWITCHES)} in it",
            todo="leave out `thinking: on`",
        )
    if statements or source != tokenizer.get_chat_template():
        tokenizer.chat_template = header + source
    return tuple(notes)


def opens_thought(text: str) -> bool:
    """Whether a text ends within a thought: the last mark in it begins one."""
    marks = _THOUGHT_MARK.findall(text)
    return bool(marks) and not _ends_thought(marks[-1])


def remove_thought_marks(text: str) -> str:
    """A rendered text without the marks of thoughts and the blanks around them."""
    return _MARK_WITH_SPACE.sub("", text).rstrip()


def remove_thought(text: str, *, is_open: bool = False) -> str:
    """The answer after the thought in a model's text; empty where the thought does not end.

    `is_open` says that the prompt has opened the thought.
    """
    marks = list(_THOUGHT_MARK.finditer(text))
    ends = [mark.end() for mark in marks if _ends_thought(mark.group())]
    if ends:
        return text[ends[-1] :].lstrip()
    return "" if marks or is_open else text


def _ends_thought(mark: str) -> bool:
    return mark[1] == "/" or mark == "<channel|>" or "END" in mark


def _render_trials(tokenizer: Any, source: str, **variables: bool) -> list[str]:
    """Trial conversations as a template renders them; empty where it refuses their roles."""
    texts = []
    for roles, add_generation_prompt in _TRIAL_ROLES:
        try:
            text = tokenizer.apply_chat_template(
                [{"role": role, "content": _PLACEHOLDERS[role]} for role in roles],
                chat_template=source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
        except jinja2.TemplateError:
            text = ""
        texts.append(text)
    return texts
