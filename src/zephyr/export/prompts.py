"""Whether other programs see the prompts that a model was trained on.

Training cuts a prompt into tokens part by part, so that what a student types never joins with what
stands around it. Other programs render a prompt as one text and cut that.
"""

from typing import Any

from zephyr.errors import ZephyrError
from zephyr.model.template import Template
from zephyr.records import Message, Role

_CONTENTS = ("What is force?", "2 + 23 = 25", "Энергия и сила, 力", "It's  kept.\n", "ok")
_ROLES: tuple[tuple[Role, ...], ...] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)


def compare(template: Template, plain: Any) -> list[str]:
    """What must be said of the prompts that another program makes with the tokenizer `plain`.

    Raises:
        ZephyrError: it cuts a plain text, or renders a conversation, in another way.
    """
    asked = other = 0
    for n, roles in enumerate(_ROLES * len(_CONTENTS)):
        said = [_CONTENTS[(n + i) % len(_CONTENTS)] for i in range(len(roles))]
        messages = [Message(role, text) for role, text in zip(roles, said, strict=True)]
        try:
            ours = template.prompt(messages).tolist()
        except ZephyrError:
            continue  # this template has no system message
        rows = [{"role": m.role, "content": m.content} for m in messages]
        wanted, text = (
            cutter.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
            for cutter in (template.tokenizer, plain)
        )
        if text != wanted or _cut(plain, said) != _cut(template.tokenizer, said):
            raise ZephyrError(
                "transformers reads this tokenizer in another way than training did",
                where="the tokenizer",
                found=f"a prompt {text!r}",
                allowed=repr(wanted),
            )
        asked += 1
        theirs = plain(text, add_special_tokens=False)["input_ids"]
        other += theirs != ours
    if not other:
        return []
    told = (
        f"Programs that cut a rendered prompt as one text cut {other} of {asked} trial prompts"
        " otherwise than training, which keeps messages apart."
    )
    return [told]


def _cut(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
