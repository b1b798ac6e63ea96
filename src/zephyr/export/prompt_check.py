"""Prompt check: whether other programs tokenize prompts as training did.

Training tokenizes each message separately, so that no token spans a student's text and the chat
template around it. Other programs render a prompt as one text and tokenize that.
"""

from typing import Any

from zephyr.errors import ZephyrError
from zephyr.model.template import ChatTemplate
from zephyr.records import Message, Role

_TRIAL_CONTENTS = ("What is force?", "2 + 23 = 25", "Энергия и сила, 力", "It's  kept.\n", "ok")
_TRIAL_ROLES: tuple[tuple[Role, ...], ...] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)


def check_prompts(template: ChatTemplate, plain_tokenizer: Any) -> list[str]:
    """Checks prompts as rendered and tokenized by another program; returns notes for the card.

    Raises:
        ZephyrError: it tokenizes a text, or renders a conversation, differently.
    """
    prompt_count = mismatches = 0
    for n, roles in enumerate(_TRIAL_ROLES * len(_TRIAL_CONTENTS)):
        contents = [_TRIAL_CONTENTS[(n + i) % len(_TRIAL_CONTENTS)] for i in range(len(roles))]
        messages = [Message(role, text) for role, text in zip(roles, contents, strict=True)]
        try:
            ids = template.encode_prompt(messages).tolist()
        except ZephyrError:
            continue  # this template has no system message
        rows = [{"role": m.role, "content": m.content} for m in messages]
        expected, text = (
            tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
            for tokenizer in (template.tokenizer, plain_tokenizer)
        )
        if text != expected or _tokenize(plain_tokenizer, contents) != _tokenize(
            template.tokenizer, contents
        ):
            raise ZephyrError(
                "transformers reads this tokenizer in another way than training did",
                where="the tokenizer",
                found=f"a prompt {text!r}",
                allowed=repr(expected),
            )
        prompt_count += 1
        plain_ids = plain_tokenizer(text, add_special_tokens=False)["input_ids"]
        mismatches += plain_ids != ids
    if not mismatches:
        return []
    note = (
        f"Programs that cut a rendered prompt as one text cut {mismatches} of {prompt_count} "
        "trial prompts"
        " otherwise than training, which keeps messages apart."
    )
    return [note]


def _tokenize(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
