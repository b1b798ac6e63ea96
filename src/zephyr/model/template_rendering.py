"""Renders a chat template (Jinja): control ids and content slots; checks that answers end.

A template that can't be trained or served with is refused when its tokenizer is loaded.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jinja2

from zephyr.errors import ZephyrError
from zephyr.model.example import TokenIds, to_token_ids
from zephyr.model.template_settings import opens_thought, remove_thought_marks, write_settings
from zephyr.model.tokenizer import find_added_ids
from zephyr.recipe.models import Thinking

PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\nAssistant:' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}"
)
"""The default chat template: roles as plain words, for a base model without special tokens."""

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")


class ContentSlot(NamedTuple):
    """Where a message's content goes; `leading_space` is the space that its first word takes."""

    message: int
    leading_space: str


Skeleton = tuple[ContentSlot | tuple[int, ...], ...]
"""A rendered conversation: content slots, and the token ids of the control text between them."""


class TemplateRenderer:
    """Renders the chat template of a tokenizer for roles, with thinking off or on.

    `start_ids` are what the tokenizer writes before a text, `ending_ids` what the template writes
    after an answer, up to its stop token and with it. `settings` says what of the template was set.
    """

    def __init__(self, tokenizer: Any, thinking: Thinking) -> None:
        """Writes the settings into the tokenizer's template, and checks it.

        Raises:
            ZephyrError: the tokenizer has no end token, or its template is of no use here.
        """
        if tokenizer.eos_token_id is None:
            raise ZephyrError(
                "the tokenizer has no end token",
                where=str(tokenizer.name_or_path),
                todo="set `eos_token` in its tokenizer_config.json: an answer must be able to end",
            )
        self.tokenizer = tokenizer
        self.start_ids, _ = find_added_ids(tokenizer)
        if tokenizer.chat_template is None:
            writes_bos = self.start_ids[:1] == (tokenizer.bos_token_id,)
            tokenizer.chat_template = (
                "{{ bos_token }}" if writes_bos else ""
            ) + PLAIN_CHAT_TEMPLATE
        self.settings = write_settings(tokenizer, thinking)
        self.skeleton = lru_cache(maxsize=None)(self._make_skeleton)
        self.ending_ids = self._find_ending()
        self.prompts_are_prefixes = self._check_prefixes()

    @cached_property
    def control_ids(self) -> set[int]:
        """The ids that the template, or the tokenizer of its own, writes around contents."""
        ids = set(self.start_ids)
        for roles in (("user", "assistant", "user"), ("system", "user", "assistant", "user")):
            with suppress(ZephyrError):  # a template may refuse a system message
                for part in self.skeleton(roles, True):
                    ids |= set() if isinstance(part, ContentSlot) else set(part)
        return ids

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the generation prompt opens a thought."""
        return opens_thought(self._render(("user",), True).rpartition("\ue001")[2])

    def _render(self, roles: Sequence[str], add_generation_prompt: bool) -> str:
        """The template's text for some roles, with a numbered placeholder for each content."""
        messages = [{"role": r, "content": f"\ue000{i}\ue001"} for i, r in enumerate(roles)]
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise ZephyrError(
                "the tokenizer's chat template refuses this conversation",
                found=f"roles {', '.join(roles)}: {error}",
                todo="leave out the system message, or let user and assistant take turns",
            ) from error
        return text

    def _make_skeleton(
        self, roles: tuple[str, ...], add_generation_prompt: bool = False
    ) -> Skeleton:
        """The rendered template of some roles: content slots, and token ids of the control text."""
        pieces = _PLACEHOLDER.split(self._render(roles, add_generation_prompt))
        control, slots = pieces[::2], [int(p) for p in pieces[1::2]]
        if slots != list(range(len(roles))):
            raise ZephyrError(
                "the tokenizer's chat template drops or repeats messages",
                where=str(self.tokenizer.name_or_path),
                found=f"messages {slots} of {len(roles)}",
            )
        skeleton: list[ContentSlot | tuple[int, ...]] = []
        for before, slot in zip(control, [*slots, None], strict=True):
            stripped = before.rstrip(" ") if slot is not None else before
            encoded = (
                self.tokenizer(stripped, add_special_tokens=False)["input_ids"] if stripped else ()
            )
            skeleton.append(tuple(encoded))
            if slot is not None:
                skeleton.append(ContentSlot(slot, before[len(stripped) :]))
        return tuple(skeleton)

    def _find_ending(self) -> TokenIds:
        """The token ids written after an answer, up to the first special token, which stops it."""
        ending_control = self.skeleton(("user", "assistant"))[-1]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for length, token in enumerate(ending_control, start=1):
            if token in special:
                return to_token_ids(ending_control[:length])
        raise ZephyrError(
            "the chat template does not end an answer with a special token",
            where=str(self.tokenizer.name_or_path),
            found=repr(self.tokenizer.decode(list(ending_control))),
            todo="mend `chat_template`: a model can't learn to stop without an end token",
        )

    def _check_prefixes(self) -> bool:
        """Whether each prompt is the start of the conversations that go on from it.

        Raises:
            ZephyrError: what stands before an answer is not what asks for one, thoughts aside.
        """
        are_prefixes = True
        for roles in (("user", "assistant"), ("user", "assistant", "user", "assistant")):
            whole, skeleton = self._render(roles, False), self.skeleton(roles)
            slots = [i for i, part in enumerate(skeleton) if isinstance(part, ContentSlot)]
            for answer in range(1, len(roles), 2):
                prompt = self.skeleton(roles[:answer], True)
                are_prefixes &= skeleton[: slots[answer]] == prompt
            before = whole.partition(f"\ue000{len(roles) - 1}\ue001")[0]
            asking = self._render(roles[:-1], True)
            if skeleton[: slots[-1]] != prompt and (
                remove_thought_marks(before) != remove_thought_marks(asking)
            ):
                raise ZephyrError(
                    "the prompt of a conversation is not the start of the whole conversation",
                    where=str(self.tokenizer.name_or_path),
                    found=f"roles {', '.join(roles)}: {asking!r} and {before!r}",
                    todo="mend `chat_template`: training and chat would see different prompts",
                )
        return are_prefixes
