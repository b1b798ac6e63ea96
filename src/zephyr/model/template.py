"""The only maker of prompts: messages to token ids, with the boundary between prompt and answer.

The chat template of the tokenizer (Jinja) is rendered with placeholders where the contents go;
what stands between them is control text, encoded with its special tokens, and the contents are
encoded apart with special tokens split. So `<|im_start|>` typed by a student stays text, and the
ids of a prompt are the same in training, evaluation and chat. A tokenizer without a chat template
gets `PLAIN`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jinja2
import numpy as np

from zephyr.errors import ZephyrError
from zephyr.model.fork import Continuation, Fork, Ids, Marks, ids
from zephyr.records import Chat, Message, Pair, Record

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\nAssistant:' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}"
)
"""Markers as plain words, for a base model that has never seen special ones; eos ends an answer."""

BLOCK = 2048
"""Conversations that are encoded in one call: enough to keep all cores busy. A tokenizer holds some
hundred bytes for each token until its call ends."""

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")


class _Slot(NamedTuple):
    """Where the content of a message goes; `lead` is the space that belongs to its first word."""

    message: int
    lead: str


class Template:
    """Renders conversations for one tokenizer.

    `stops` are the ids at which an answer ends; `ending` is what is written after one, up to its
    stop token and with it.
    """

    def __init__(self, tokenizer: Any) -> None:
        """
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
        self._bos = tokenizer.bos_token is not None and _starts_with_bos(tokenizer)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = ("{{ bos_token }}" if self._bos else "") + PLAIN
        self.tokenizer = tokenizer
        self._skeleton = lru_cache(maxsize=None)(self._make_skeleton)
        self.ending = self._find_ending()
        self.stop = int(self.ending[-1])
        self.stops = frozenset({self.stop, tokenizer.eos_token_id})
        self._check_prefixes()

    def prompt(self, messages: Sequence[Message]) -> Ids:
        """The ids [time] after which a model is to answer; `messages` ends with the user."""
        return self._prompts([messages])[0]

    def text(self, text: str) -> Ids:
        """The ids [time] of a text that is to go on, at least one: no conversation.

        It begins with the start token where the tokenizer writes one; special tokens that stand in
        it are text.
        """
        tokens = next(self._encode_texts([text]))
        if self._bos or not len(tokens):
            start = self.tokenizer.bos_token_id
            tokens = np.concatenate([ids([self.stop if start is None else start]), tokens])
        return tokens

    def forks(self, records: Iterable[Record]) -> list[Fork]:
        """A fork for each chat (every assistant turn supervised) or pair (chosen, rejected)."""
        records = list(records)
        chats = [r for r in records if isinstance(r, Chat)]
        pairs = [r for r in records if isinstance(r, Pair)]
        assert len(chats) + len(pairs) == len(records), "only chats and pairs are conversations"
        made = iter(self._chat_forks(chats)), iter(self._pair_forks(pairs))
        return [next(made[0] if isinstance(r, Chat) else made[1]) for r in records]

    def chat_fork(self, chat: Chat) -> Fork:
        """The conversation up to its first answer, and the rest with the answers supervised."""
        return self._chat_forks([chat])[0]

    def pair_fork(self, pair: Pair) -> Fork:
        """The prompt, and the chosen and the rejected answer, each with its end."""
        return self._pair_forks([pair])[0]

    def answers(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of answers as they follow a prompt, without their end."""
        return [c.ids[: len(c.ids) - len(self.ending)] for c in self._answers(texts)]

    def decode(self, answer: Ids) -> str:
        """The text of an answer without its end token, and without the space that belongs to it."""
        text = self.decode_text(answer)
        lead = next(
            s.lead for s in self._skeleton(("user", "assistant"))[::-1] if isinstance(s, _Slot)
        )
        return text.removeprefix(lead)

    def decode_text(self, tokens: Ids) -> str:
        """The text of what goes on from another, without end tokens."""
        kept = [i for i in tokens.tolist() if i not in self.stops]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return text

    # -- conversations ------------------------------------------------------------------------

    def _chat_forks(self, chats: Sequence[Chat]) -> list[Fork]:
        forks = []
        for chat, parts in zip(chats, self._encode([c.messages for c in chats]), strict=True):
            prompt: list[Ids] = []
            rest: list[Ids] = []
            marks: list[Marks] = []
            for position, (slot, tokens) in enumerate(parts):
                answer = slot is not None and chat.messages[slot.message].role == "assistant"
                if not rest and not answer:
                    prompt.append(tokens)
                    continue
                rest.append(tokens)
                marks.append(np.full(len(tokens), answer))
                if answer:
                    ending, after = self._ended(parts[position + 1])
                    parts[position + 1] = _Part(None, after)
                    rest.append(ending)
                    marks.append(np.arange(len(ending)) == len(ending) - 1)
            while not marks[-1].any():  # what stands after the last answer
                rest.pop()
                marks.pop()
            whole = Continuation(np.concatenate(rest), np.concatenate(marks))
            forks.append(Fork(np.concatenate(prompt), (whole,)))
        return forks

    def _pair_forks(self, pairs: Sequence[Pair]) -> list[Fork]:
        prompts = self._prompts([pair.prompt for pair in pairs])
        answers = self._answers([text for pair in pairs for text in (pair.chosen, pair.rejected)])
        return [
            Fork(prompt, (chosen, rejected))
            for prompt, chosen, rejected in zip(prompts, answers[::2], answers[1::2], strict=True)
        ]

    def _answers(self, texts: Sequence[str]) -> list[Continuation]:
        """Answers as the continuation of a prompt, each with its end token, all supervised."""
        probe = [(Message("user", ""), Message("assistant", text)) for text in texts]
        answers = []
        for parts in self._encode(probe):
            at = next(i for i, p in enumerate(parts) if p.slot and p.slot.message == 1)
            tokens = np.concatenate([parts[at].tokens, self._ended(parts[at + 1])[0]])
            answers.append(Continuation(tokens, np.ones(len(tokens), dtype=np.bool_)))
        return answers

    def _ended(self, control: "_Part") -> tuple[Ids, Ids]:
        """The control text after an answer: up to the stop token and with it, and the rest."""
        end = int(np.flatnonzero(control.tokens == self.stop)[0]) + 1
        return control.tokens[:end], control.tokens[end:]

    def _prompts(self, conversations: Sequence[Sequence[Message]]) -> list[Ids]:
        for messages in conversations:
            assert messages[-1].role == "user", "a prompt ends with the user"
        encoded = self._encode(conversations, generation=True)
        return [np.concatenate([part.tokens for part in parts]) for parts in encoded]

    def _encode(
        self, conversations: Sequence[Sequence[Message]], *, generation: bool = False
    ) -> Iterator[list["_Part"]]:
        """The parts of each conversation; while those of a block are used, the next is encoded."""
        blocks = [conversations[i : i + BLOCK] for i in range(0, len(conversations), BLOCK)]
        if len(blocks) < 2:
            yield from self._encode_block(conversations, generation)
            return
        with ThreadPoolExecutor(1) as ahead:  # one alone: a tokenizer may not be asked by two
            coming = ahead.submit(self._encode_block, blocks[0], generation)
            for block in [*blocks[1:], ()]:
                parts = coming.result()
                coming = ahead.submit(self._encode_block, block, generation)
                yield from parts

    def _encode_block(
        self, conversations: Sequence[Sequence[Message]], generation: bool
    ) -> list[list["_Part"]]:
        """The parts of some conversations, contents encoded in one call with specials split."""
        skeletons = [self._skeleton(tuple(m.role for m in c), generation) for c in conversations]
        texts = [
            part.lead + messages[part.message].content
            for messages, skeleton in zip(conversations, skeletons, strict=True)
            for part in skeleton
            if isinstance(part, _Slot)
        ]
        if not texts:
            return []
        contents = self._encode_texts(texts)
        return [
            [
                _Part(part, next(contents)) if isinstance(part, _Slot) else _Part(None, ids(part))
                for part in skeleton
            ]
            for skeleton in skeletons
        ]

    def _encode_texts(self, texts: list[str]) -> Iterator[Ids]:
        """The ids of each text; a special token that is typed in it is text like any other."""
        if not self.tokenizer.is_fast:
            ways = {"add_special_tokens": False, "split_special_tokens": True}
            return map(ids, self.tokenizer(texts, **ways)["input_ids"])
        backend = self.tokenizer.backend_tokenizer  # asked itself, for it need not find offsets
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        return (ids(e.ids) for e in backend.encode_batch_fast(texts, add_special_tokens=False))

    def _make_skeleton(
        self, roles: tuple[str, ...], generation: bool = False
    ) -> tuple[_Slot | tuple[int, ...], ...]:
        """Slots for the contents, and between them the ids of the control text."""
        messages = [{"role": r, "content": f"\ue000{i}\ue001"} for i, r in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation
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
        skeleton: list[_Slot | tuple[int, ...]] = []
        for before, slot in zip(control, [*slots, None], strict=True):
            bare = before.rstrip(" ") if slot is not None else before
            encoded = self.tokenizer(bare, add_special_tokens=False)["input_ids"] if bare else ()
            skeleton.append(tuple(encoded))
            if slot is not None:
                skeleton.append(_Slot(slot, before[len(bare) :]))
        return tuple(skeleton)

    # -- what must hold of a template ---------------------------------------------------------

    def _find_ending(self) -> Ids:
        after = self._skeleton(("user", "assistant"))[-1]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for length, token in enumerate(after, start=1):
            if token in special:
                return ids(after[:length])
        raise ZephyrError(
            "the chat template does not end an answer with a special token",
            where=str(self.tokenizer.name_or_path),
            found=repr(self.tokenizer.decode(list(after))),
            todo="mend `chat_template`: a model can't learn to stop without an end token",
        )

    def _check_prefixes(self) -> None:
        turns = [("user", "assistant"), ("user", "assistant", "user", "assistant")]
        for roles in turns:
            whole = self._skeleton(roles)
            prompt = self._skeleton(roles[:-1], True)
            at = whole.index(next(s for s in whole[::-1] if isinstance(s, _Slot)))
            if whole[:at] != prompt:
                raise ZephyrError(
                    "the prompt of a conversation is not the start of the whole conversation",
                    where=str(self.tokenizer.name_or_path),
                    found=f"roles {', '.join(roles)}",
                    todo="mend `chat_template`: training and chat would see different prompts",
                )


class _Part(NamedTuple):
    """The ids of a content (with its slot) or of control text."""

    slot: _Slot | None
    tokens: Ids


def _starts_with_bos(tokenizer: Any) -> bool:
    start = tokenizer("")["input_ids"][:1]
    return bool(start) and start[0] == tokenizer.bos_token_id
