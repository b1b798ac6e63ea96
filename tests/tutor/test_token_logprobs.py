"""The bytes of tokens in `logprobs`: joined they are the text's, whatever the tokenizer."""

import asyncio
import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from zephyr.model.decoding import DecodeBatch, TokenLogprob
from zephyr.model.example import to_token_ids
from zephyr.model.template import ChatTemplate
from zephyr.model.token_bytes import TokenBytes
from zephyr.tutor.answer_stream import GenerationRequest, StreamChunk
from zephyr.tutor.scheduler import ModelRunner, Scheduler
from zephyr.tutor.token_logprobs import TokenAligner, TokenEntry, token_text

TEXTS = [
    "if a:\n    b   =  3",
    "It is 9.81 m/s.",
    "naïve café",
    "😀 and 👩‍🔬!",
    "日本語 力",
    "Ω ≈ 3\n\n\tdone  twice",
    "é",
]


def sentencepiece_tokenizer() -> Any:
    """A tokenizer with byte fallback, as Llama 2's: what is in no piece is split to bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"Iiadentsmo.", "▁is", "é"]
    model = models.BPE(
        {piece: at for at, piece in enumerate(pieces)},
        [],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


TOKENIZERS = {
    "byte-level": lambda: copy.deepcopy(tiny.tokenizer()),
    "byte fallback": sentencepiece_tokenizer,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def template(request: Any) -> ChatTemplate:
    return ChatTemplate(TOKENIZERS[request.param]())


def write(
    template: ChatTemplate, tokens: Sequence[int], monkeypatch: pytest.MonkeyPatch, **how: Any
) -> tuple[list[StreamChunk], list[list[TokenEntry]]]:
    """The chunks of an answer of these tokens, and the entries of each chunk."""

    def append_next_tokens(self: Any, states: Any, rows: Sequence[Any]) -> None:
        for row in rows:
            token = tokens[len(row.output_ids)]
            row.output_ids.append(token)
            row.output_logprobs.append(TokenLogprob(-1.0, [(token, -1.0), (5, -2.0)]))

    monkeypatch.setattr(DecodeBatch, "_append_next_tokens", append_next_tokens)
    runner = ModelRunner(tiny.qwen2(), template, ["m"])
    scheduler = Scheduler([runner], batch=1, queue=1)

    async def stream() -> list[StreamChunk]:
        request = GenerationRequest("m", to_token_ids([1, 2]), len(tokens), top_logprobs=2, **how)
        return [chunk async for chunk in scheduler.submit(request)[0]]

    scheduler.start()
    try:
        chunks = asyncio.run(stream())
    finally:
        scheduler.shutdown()
    aligner = TokenAligner(runner.token_bytes, template.tokenizer)
    return chunks, [aligner.align(chunk) for chunk in chunks]


def encode(template: ChatTemplate, text: str) -> list[int]:
    ids: list[int] = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("is_text_completion", [False, True])
def test_the_bytes_of_tokens_are_those_of_the_text(
    template: ChatTemplate, text: str, is_text_completion: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = encode(template, " " + text)
    chunks, entries = write(template, tokens, monkeypatch, is_text_completion=is_text_completion)
    whole = "".join(chunk.text for chunk in chunks)
    assert whole.strip() == text.strip()
    num_bytes = num_emitted = 0
    for chunk, found in zip(chunks, entries, strict=True):
        num_emitted += len(chunk.text.encode())
        num_bytes += sum(len(entry.data) for entry in found)
        assert num_bytes <= num_emitted  # no token comes before its text
    all_entries = [entry for found in entries for entry in found]
    assert b"".join(entry.data for entry in all_entries) == whole.encode()
    assert len(all_entries) == len(tokens)
    token_bytes = TokenBytes(template.tokenizer)
    for token, entry in list(zip(tokens, all_entries, strict=True))[2:]:  # a space may be taken
        assert entry.data == token_bytes.of(token)
        assert entry.top_logprobs[0] == (entry.data, -1.0)
        assert entry.top_logprobs[1] == (token_bytes.of(5), -2.0)


@pytest.mark.parametrize("stop", ["/s", "é", " and", "本", "\n\n\td", "9.8"])
def test_tokens_end_where_a_stop_string_begins(
    template: ChatTemplate, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = next(text for text in TEXTS if stop in text)
    chunks, entries = write(template, encode(template, text), monkeypatch, stop=(stop,))
    whole = "".join(chunk.text for chunk in chunks)
    assert whole == text[: text.index(stop)].removeprefix(" ")
    assert chunks[-1].finish_reason == "stop string"
    assert b"".join(entry.data for found in entries for entry in found) == whole.encode()


@pytest.mark.parametrize("seed", range(8))
def test_tokens_that_are_no_utf_8_keep_their_bytes(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(copy.deepcopy(tiny.tokenizer()))
    tokens = np.random.default_rng(seed).integers(1, 300, 24).tolist()
    chunks, entries = write(template, tokens, monkeypatch, is_text_completion=True)
    joined = b"".join(entry.data for found in entries for entry in found)
    token_bytes = TokenBytes(template.tokenizer)
    stop_ids = template.stop_token_ids
    assert joined == b"".join(
        token_bytes.of(token) or b"" for token in tokens if token not in stop_ids
    )
    assert joined.decode(errors="replace") == "".join(chunk.text for chunk in chunks)


def test_the_text_of_a_part_of_a_character_is_its_bytes() -> None:
    assert token_text("é".encode()) == "é"
    assert token_text("é".encode()[:1]) == "bytes:\\xc3"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    "text", [*TEXTS, "7" * 500, " " * 500, "\u1112\u1161\u11ab" * 50, "a\u0301" * 50]
)
def test_no_text_has_fewer_tokens_than_its_bytes_allow(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    bound = TokenBytes(tokenizer).max_bytes_per_token
    assert bound is not None
    num_tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert num_tokens * bound >= len(text.encode())


def test_there_is_no_bound_where_characters_are_dropped() -> None:
    without_bytes = Tokenizer(models.BPE({"a": 0, "</s>": 1}, []))
    without_bytes.decoder = decoders.ByteLevel()
    collapsing = sentencepiece_tokenizer()
    collapsing.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=without_bytes, eos_token="</s>")
    assert TokenBytes(tokenizer).max_bytes_per_token is None
    assert TokenBytes(collapsing).max_bytes_per_token is None
