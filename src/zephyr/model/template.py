"""Chat template: encodes conversations to token ids, prompts, completions and loss masks.

The chat template of the tokenizer (Jinja) is rendered with placeholders for the contents; what is
between them is control text, encoded with its special tokens, and the contents are encoded apart
with special tokens split. So `<|im_start|>` typed by a student stays text (no special-token
injection), and the ids of a prompt are the same in training, evaluation and chat. A tokenizer
without a chat template gets `PLAIN_CHAT_TEMPLATE`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jinja2
import numpy as np

from zephyr.errors import ZephyrError
from zephyr.model.example import Completion, Example, LossMask, TokenIds, to_token_ids
from zephyr.records import Chat, Message, Pair, Record

PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\nAssistant:' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}"
)
"""The default chat template: roles as plain words, for a base model without special tokens."""

CONVERSATIONS_PER_CALL = 2048
"""Conversations that are encoded in one call: enough to keep all cores busy. A tokenizer holds some
hundred bytes for each token until its call ends."""

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")


class _ContentSlot(NamedTuple):
    """Where a message's content goes; `leading_space` is the space that its first word takes."""

    message: int
    leading_space: str


class ChatTemplate:
    """Encodes conversations to token ids with the chat template of one tokenizer.

    `stop_token_ids` are the ids at which an answer ends; `ending_ids` is what is written after
    one, up to its stop token and with it.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Checks the tokenizer and its chat template.

        Raises:
            ZephyrError: the tokenizer has no end token, or its chat template does not end an
                answer with one, or the prompt of a conversation is not the start of the whole.
        """
        if tokenizer.eos_token_id is None:
            raise ZephyrError(
                "the tokenizer has no end token",
                where=str(tokenizer.name_or_path),
                todo="set `eos_token` in its tokenizer_config.json: an answer must be able to end",
            )
        self._writes_bos = tokenizer.bos_token is not None and _tokenizer_writes_bos(tokenizer)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = (
                "{{ bos_token }}" if self._writes_bos else ""
            ) + PLAIN_CHAT_TEMPLATE
        self.tokenizer = tokenizer
        self._skeleton = lru_cache(maxsize=None)(self._make_skeleton)
        self.ending_ids = self._find_ending()
        self.stop_token_id = int(self.ending_ids[-1])
        self.stop_token_ids = frozenset({self.stop_token_id, tokenizer.eos_token_id})
        self._check_prefixes()

    def encode_prompt(self, messages: Sequence[Message]) -> TokenIds:
        """Token ids [T] of a prompt, generation prompt included; `messages` ends with the user."""
        return self._encode_prompts([messages])[0]

    def encode_text(self, text: str) -> TokenIds:
        """Token ids [T] of a raw text prompt (text completion, no chat), at least one.

        It begins with the BOS token where the tokenizer adds one; special tokens in the text are
        encoded as plain text.
        """
        tokens = next(self._encode_texts([text]))
        if self._writes_bos or not len(tokens):
            bos_token_id = self.tokenizer.bos_token_id
            tokens = np.concatenate(
                [
                    to_token_ids([self.stop_token_id if bos_token_id is None else bos_token_id]),
                    tokens,
                ]
            )
        return tokens

    def make_examples(self, records: Iterable[Record]) -> list[Example]:
        """An example for each chat (a loss mask on assistant turns) or pair (chosen, rejected)."""
        records = list(records)
        chats = [r for r in records if isinstance(r, Chat)]
        pairs = [r for r in records if isinstance(r, Pair)]
        assert len(chats) + len(pairs) == len(records), "only chats and pairs are conversations"
        examples_by_kind = (
            iter(self._make_chat_examples(chats)),
            iter(self._make_pair_examples(pairs)),
        )
        return [
            next(examples_by_kind[0] if isinstance(r, Chat) else examples_by_kind[1])
            for r in records
        ]

    def make_chat_example(self, chat: Chat) -> Example:
        """An SFT example: the prompt to the first answer, the rest with a loss mask on answers."""
        return self._make_chat_examples([chat])[0]

    def make_pair_example(self, pair: Pair) -> Example:
        """A DPO example: the prompt, and chosen and rejected completions, each with its end."""
        return self._make_pair_examples([pair])[0]

    def encode_answers(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids [T] of each answer as it follows a prompt, without the end token."""
        return [c.ids[: len(c.ids) - len(self.ending_ids)] for c in self._make_completions(texts)]

    def decode(self, answer: TokenIds) -> str:
        """Decodes a chat answer to text, without end token and the template's leading space."""
        text = self.decode_continued_text(answer)
        leading_space = next(
            s.leading_space
            for s in self._skeleton(("user", "assistant"))[::-1]
            if isinstance(s, _ContentSlot)
        )
        return text.removeprefix(leading_space)

    def decode_continued_text(self, tokens: TokenIds) -> str:
        """Decodes the completion of a raw text prompt (no chat), without stop tokens."""
        kept = [i for i in tokens.tolist() if i not in self.stop_token_ids]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return text

    # -- conversations ------------------------------------------------------------------------

    def _make_chat_examples(self, chats: Sequence[Chat]) -> list[Example]:
        """SFT examples: prompt up to the first answer; loss mask on answers and stop tokens."""
        examples = []
        for chat, parts in zip(chats, self._encode([c.messages for c in chats]), strict=True):
            prompt: list[TokenIds] = []
            completion_ids: list[TokenIds] = []
            loss_masks: list[LossMask] = []
            for position, (slot, tokens) in enumerate(parts):
                is_answer = slot is not None and chat.messages[slot.message].role == "assistant"
                if not completion_ids and not is_answer:
                    prompt.append(tokens)
                    continue
                completion_ids.append(tokens)
                loss_masks.append(np.full(len(tokens), is_answer))
                if is_answer:
                    ending, remaining = self._split_ending(parts[position + 1])
                    parts[position + 1] = _EncodedPart(None, remaining)
                    completion_ids.append(ending)
                    loss_masks.append(np.arange(len(ending)) == len(ending) - 1)
            while not loss_masks[-1].any():  # what stands after the last answer
                completion_ids.pop()
                loss_masks.pop()
            completion = Completion(np.concatenate(completion_ids), np.concatenate(loss_masks))
            examples.append(Example(np.concatenate(prompt), (completion,)))
        return examples

    def _make_pair_examples(self, pairs: Sequence[Pair]) -> list[Example]:
        """DPO examples: a prompt, and a chosen and a rejected completion."""
        prompts = self._encode_prompts([pair.prompt for pair in pairs])
        answers = self._make_completions(
            [text for pair in pairs for text in (pair.chosen, pair.rejected)]
        )
        return [
            Example(prompt, (chosen, rejected))
            for prompt, chosen, rejected in zip(prompts, answers[::2], answers[1::2], strict=True)
        ]

    def _make_completions(self, texts: Sequence[str]) -> list[Completion]:
        """Answers as completions of a prompt, each with its end token, all in the loss mask."""
        conversations = [(Message("user", ""), Message("assistant", text)) for text in texts]
        completions = []
        for parts in self._encode(conversations):
            position = next(i for i, p in enumerate(parts) if p.slot and p.slot.message == 1)
            tokens = np.concatenate(
                [parts[position].tokens, self._split_ending(parts[position + 1])[0]]
            )
            completions.append(Completion(tokens, np.ones(len(tokens), dtype=np.bool_)))
        return completions

    def _split_ending(self, control: "_EncodedPart") -> tuple[TokenIds, TokenIds]:
        """The control text after an answer: up to the stop token and with it, and the rest."""
        end = int(np.flatnonzero(control.tokens == self.stop_token_id)[0]) + 1
        return control.tokens[:end], control.tokens[end:]

    def _encode_prompts(self, conversations: Sequence[Sequence[Message]]) -> list[TokenIds]:
        for messages in conversations:
            assert messages[-1].role == "user", "a prompt ends with the user"
        encoded = self._encode(conversations, add_generation_prompt=True)
        return [np.concatenate([part.tokens for part in parts]) for parts in encoded]

    def _encode(
        self, conversations: Sequence[Sequence[Message]], *, add_generation_prompt: bool = False
    ) -> Iterator[list["_EncodedPart"]]:
        """The encoded parts of each conversation; one block is encoded while the last is used."""
        blocks = [
            conversations[i : i + CONVERSATIONS_PER_CALL]
            for i in range(0, len(conversations), CONVERSATIONS_PER_CALL)
        ]
        if len(blocks) < 2:
            yield from self._encode_block(conversations, add_generation_prompt)
            return
        with ThreadPoolExecutor(1) as executor:  # one alone: a tokenizer is not thread-safe
            next_block = executor.submit(self._encode_block, blocks[0], add_generation_prompt)
            for block in [*blocks[1:], ()]:
                parts = next_block.result()
                next_block = executor.submit(self._encode_block, block, add_generation_prompt)
                yield from parts

    def _encode_block(
        self, conversations: Sequence[Sequence[Message]], add_generation_prompt: bool
    ) -> list[list["_EncodedPart"]]:
        """The encoded parts of some conversations, contents in one call, special tokens split."""
        skeletons = [
            self._skeleton(tuple(m.role for m in c), add_generation_prompt) for c in conversations
        ]
        texts = [
            part.leading_space + messages[part.message].content
            for messages, skeleton in zip(conversations, skeletons, strict=True)
            for part in skeleton
            if isinstance(part, _ContentSlot)
        ]
        if not texts:
            return []
        contents = self._encode_texts(texts)
        return [
            [
                _EncodedPart(part, next(contents))
                if isinstance(part, _ContentSlot)
                else _EncodedPart(None, to_token_ids(part))
                for part in skeleton
            ]
            for skeleton in skeletons
        ]

    def _encode_texts(self, texts: list[str]) -> Iterator[TokenIds]:
        """Token ids of each text; special tokens typed in it are encoded as plain text."""
        if not self.tokenizer.is_fast:
            options = {"add_special_tokens": False, "split_special_tokens": True}
            return map(to_token_ids, self.tokenizer(texts, **options)["input_ids"])
        backend = self.tokenizer.backend_tokenizer  # called directly, for it need not find offsets
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        return (
            to_token_ids(e.ids) for e in backend.encode_batch_fast(texts, add_special_tokens=False)
        )

    def _make_skeleton(
        self, roles: tuple[str, ...], add_generation_prompt: bool = False
    ) -> tuple[_ContentSlot | tuple[int, ...], ...]:
        """The rendered template of some roles: content slots, and token ids of the control text."""
        messages = [{"role": r, "content": f"\ue000{i}\ue001"} for i, r in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise ZephyrError(
                "the tokenizer's chat template refuses this conversation",
                found=f"roles {', '.join(roles)}: {error}",
                todo="leave out the system message, or let user and assistant take turns",
            ) from error
        pieces = _PLACEHOLDER.split(text)
        control, slots = pieces[::2], [int(p) for p in pieces[1::2]]
        if slots != list(range(len(roles))):
            raise ZephyrError(
                "the tokenizer's chat template drops or repeats messages",
                where=str(self.tokenizer.name_or_path),
                found=f"messages {slots} of {len(roles)}",
            )
        skeleton: list[_ContentSlot | tuple[int, ...]] = []
        for before, slot in zip(control, [*slots, None], strict=True):
            stripped = before.rstrip(" ") if slot is not None else before
            encoded = (
                self.tokenizer(stripped, add_special_tokens=False)["input_ids"] if stripped else ()
            )
            skeleton.append(tuple(encoded))
            if slot is not None:
                skeleton.append(_ContentSlot(slot, before[len(stripped) :]))
        return tuple(skeleton)

    # -- checks of the chat template ----------------------------------------------------------

    def _find_ending(self) -> TokenIds:
        """The token ids written after an answer, up to the first special token, which stops it."""
        ending_control = self._skeleton(("user", "assistant"))[-1]
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

    def _check_prefixes(self) -> None:
        """Checks that an encoded prompt is a prefix of the encoded conversation."""
        turns = [("user", "assistant"), ("user", "assistant", "user", "assistant")]
        for roles in turns:
            full_skeleton = self._skeleton(roles)
            prompt = self._skeleton(roles[:-1], True)
            answer_position = full_skeleton.index(
                next(s for s in full_skeleton[::-1] if isinstance(s, _ContentSlot))
            )
            if full_skeleton[:answer_position] != prompt:
                raise ZephyrError(
                    "the prompt of a conversation is not the start of the whole conversation",
                    where=str(self.tokenizer.name_or_path),
                    found=f"roles {', '.join(roles)}",
                    todo="mend `chat_template`: training and chat would see different prompts",
                )


class _EncodedPart(NamedTuple):
    """The ids of a content (with its slot) or of control text."""

    slot: _ContentSlot | None
    tokens: TokenIds


def _tokenizer_writes_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer adds a BOS token."""
    start = tokenizer("")["input_ids"][:1]
    return bool(start) and start[0] == tokenizer.bos_token_id
