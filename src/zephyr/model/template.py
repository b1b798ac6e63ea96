"""Chat template: encodes conversations to token ids, prompts, completions and loss masks.

The chat template of the tokenizer (Jinja) is rendered with placeholders for the contents; what is
between them is control text, encoded with its special tokens, and the contents are encoded apart
with special tokens split. So `<|im_start|>` typed by a student stays text (no special-token
injection), and the ids of a prompt are the same in training, evaluation and chat. A tokenizer
without a chat template gets a plain one; thinking is off unless the recipe says `on`.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from zephyr.errors import ZephyrError
from zephyr.model.example import Completion, Example, LossMask, TokenIds, to_token_ids
from zephyr.model.template_rendering import ContentSlot, TemplateRenderer
from zephyr.model.template_settings import remove_thought
from zephyr.recipe.models import Thinking
from zephyr.records import Chat, Message, Pair, Record

CONVERSATIONS_PER_CALL = 2048
"""Conversations that are encoded in one call: enough to keep all cores busy. A tokenizer holds some
hundred bytes for each token until its call ends."""


class CutPrompt(NamedTuple):
    """A prompt that was cut: its ids [T], and how many messages and tokens were lost."""

    ids: TokenIds
    lost_messages: int
    lost_tokens: int


class ChatTemplate:
    """Encodes conversations to token ids with the chat template of one tokenizer.

    `stop_token_ids` are the ids at which an answer ends; `ending_ids` is what is written after
    one, up to its stop token and with it. `start_ids` are what the tokenizer writes before a text.
    `settings` says what of the template was set: thinking, and a date that never changes. Where
    `learns_last_answer` is true, a prompt is not the start of longer conversations (Qwen3 writes
    its empty think block before the last answer alone): an example then has one answer.
    """

    def __init__(self, tokenizer: Any, thinking: Thinking = "off") -> None:
        """Checks the tokenizer and its chat template.

        Raises:
            ZephyrError: the tokenizer has no end token, or its chat template does not end an
                answer with one, or can't think as `thinking` says, or the prompt of a
                conversation is not the start of the whole.
        """
        self.tokenizer, self.thinking = tokenizer, thinking
        self._renderer = TemplateRenderer(tokenizer, thinking)
        self._skeleton = self._renderer.skeleton
        self.settings = self._renderer.settings
        self.start_ids = self._renderer.start_ids
        self.ending_ids = self._renderer.ending_ids
        self.stop_token_id = int(self.ending_ids[-1])
        self.stop_token_ids = frozenset({self.stop_token_id, tokenizer.eos_token_id})
        self.control_ids = self._renderer.control_ids | self.stop_token_ids
        self.learns_last_answer = not self._renderer.prompts_are_prefixes

    def encode_prompt(self, messages: Sequence[Message]) -> TokenIds:
        """Token ids [T] of a prompt, generation prompt included; `messages` ends with the user."""
        return self._encode_prompts([messages])[0]

    def encode_text(self, text: str) -> TokenIds:
        """Token ids [T] of a raw text prompt (text completion, no chat), at least one.

        It begins with the start token where the tokenizer adds one; special tokens in the text
        are encoded as plain text.
        """
        tokens = next(self._encode_texts([text]))
        start_ids = self.start_ids
        if not start_ids and not len(tokens):
            bos_token_id = self.tokenizer.bos_token_id
            start_ids = (self.stop_token_id if bos_token_id is None else bos_token_id,)
        return np.concatenate([to_token_ids(start_ids), tokens])

    def cut_prompt(self, messages: Sequence[Message], max_tokens: int) -> CutPrompt | None:
        """A prompt cut to `max_tokens` tokens; its system message and role markers stay whole.

        Earlier messages go first, from one of the user to the next; then the beginning of the last
        one. None where no token of it would be left.
        """
        first_turn = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
        system, turns = list(messages[:first_turn]), list(messages[first_turn:])
        if not turns or turns[-1].role != "user":
            return None
        full_length = len(self.encode_prompt(messages))
        user_turns = [i for i, m in enumerate(turns) if m.role == "user"]
        for start in dict.fromkeys((0, *user_turns)):
            [parts] = self._encode([system + turns[start:]], add_generation_prompt=True)
            length = sum(len(part.tokens) for part in parts)
            if length <= max_tokens:
                break
        excess = max(0, length - max_tokens)
        last = max(i for i, part in enumerate(parts) if part.slot is not None)
        if excess and len(parts[last].tokens) <= excess:
            return None
        parts[last] = parts[last]._replace(tokens=parts[last].tokens[excess:])
        ids = np.concatenate([part.tokens for part in parts])
        return CutPrompt(ids, start, full_length - len(ids))

    def prompt_messages(self, record: Chat | Pair) -> tuple[Message, ...]:
        """The messages of the prompt of a record's example."""
        if isinstance(record, Pair):
            return record.prompt
        if self.learns_last_answer:
            return record.messages[:-1]
        roles = [m.role for m in record.messages]
        return record.messages[: roles.index("assistant")]

    def split_answers(self, record: Record) -> list[Record]:
        """A conversation up to each of its answers, where an example has one; else as it is."""
        if not self.learns_last_answer or not isinstance(record, Chat):
            return [record]
        turns = list(zip(record.messages, record.messages[1:], strict=False))
        return [
            Chat(record.source, record.messages[: at + 2])
            for at, (asked, answer) in enumerate(turns)
            if (asked.role, answer.role) == ("user", "assistant")
        ]

    def make_examples(self, records: Iterable[Record]) -> list[Example]:
        """An example for each chat (a loss mask on assistant turns) or pair (chosen, rejected)."""
        records = list(records)
        self._check_answers_follow()
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
        [example] = self.make_examples([chat])
        return example

    def make_pair_example(self, pair: Pair) -> Example:
        """A DPO example: the prompt, and chosen and rejected completions, each with its end."""
        [example] = self.make_examples([pair])
        return example

    def encode_answers(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids [T] of each answer as it follows a prompt, without the end token."""
        self._check_answers_follow()
        return [c.ids[: len(c.ids) - len(self.ending_ids)] for c in self._make_completions(texts)]

    def decode(self, answer: TokenIds) -> str:
        """Decodes a chat answer to text, without end token and the template's leading space."""
        text = self.decode_continued_text(answer)
        leading_space = next(
            s.leading_space
            for s in self._skeleton(("user", "assistant"))[::-1]
            if isinstance(s, ContentSlot)
        )
        return text.removeprefix(leading_space)

    def decode_scored_answer(self, answer: TokenIds) -> str:
        """Decodes a chat answer as it is scored: without its thought, empty where that is all."""
        if self.thinking == "off":
            return self.decode(answer)
        kept = [i for i in answer.tolist() if i not in self.stop_token_ids]
        text = self.tokenizer.decode(kept, skip_special_tokens=False)  # thought marks may be such
        return remove_thought(text, is_open=self._renderer.opens_thought)

    def decode_continued_text(self, tokens: TokenIds) -> str:
        """Decodes the completion of a raw text prompt (no chat), without stop tokens."""
        kept = [i for i in tokens.tolist() if i not in self.stop_token_ids]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return text

    # -- conversations ------------------------------------------------------------------------

    def _make_chat_examples(self, chats: Sequence[Chat]) -> list[Example]:
        """SFT examples: prompt up to the first answer; loss mask on answers and stop tokens."""
        if self.learns_last_answer:
            prompts = self._encode_prompts([chat.messages[:-1] for chat in chats])
            answers = self._make_completions([chat.messages[-1].content for chat in chats])
            return [Example(p, (answer,)) for p, answer in zip(prompts, answers, strict=True)]
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
            part.leading_space + self._shown_content(messages[part.message])
            for messages, skeleton in zip(conversations, skeletons, strict=True)
            for part in skeleton
            if isinstance(part, ContentSlot)
        ]
        if not texts:
            return []
        contents = self._encode_texts(texts)
        return [
            [
                _EncodedPart(part, next(contents))
                if isinstance(part, ContentSlot)
                else _EncodedPart(None, to_token_ids(part))
                for part in skeleton
            ]
            for skeleton in skeletons
        ]

    def _shown_content(self, message: Message) -> str:
        """The content of a message in a prompt: templates that think write no earlier thoughts."""
        is_thought = self.thinking == "on" and message.role == "assistant"
        return remove_thought(message.content) if is_thought else message.content

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

    def _check_answers_follow(self) -> None:
        """Checks that answers without thoughts may follow a prompt, to be learned or ranked."""
        if self.thinking == "on":
            raise ZephyrError(
                "answers without thoughts don't follow the prompts of a model that thinks",
                where=str(self.tokenizer.name_or_path),
                found="thinking: on",
                todo="set `thinking: off` beside `base`; to evaluate it, take tasks that it "
                "answers in writing",
            )


class _EncodedPart(NamedTuple):
    """The ids of a content (with its slot) or of control text."""

    slot: ContentSlot | None
    tokens: TokenIds
