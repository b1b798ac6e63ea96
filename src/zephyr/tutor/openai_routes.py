"""The API that OpenAI's clients speak: models, chats and completions."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from zephyr.model.decode import Noted, Sampling
from zephyr.model.fork import ids
from zephyr.records import Message
from zephyr.tutor import scheduler
from zephyr.tutor.openai_schema import Asking, ChatBody, CompletionBody
from zephyr.tutor.refusal import Refusal, refused
from zephyr.tutor.scheduler import Answer, Piece, Whole
from zephyr.tutor.serving import Served, Serving
from zephyr.tutor.settings import Tutor
from zephyr.tutor.sse import STREAMED, EventStream, unless_gone

FINISH = {"end token": "stop", "stop string": "stop", "length": "length"}

Heard = Callable[[str, str | None, Sequence[Message], Sequence[str]], Awaitable[None]]
"""Is told of a model, what a user asked it, and its answers, once these are complete."""


async def nobody(
    model: str, user: str | None, asked: Sequence[Message], answers: Sequence[str]
) -> None:
    """Keeps nothing of what is asked."""


def openai_routes(serving: Serving, tutor: Tutor, heard: Heard = nobody) -> APIRouter:
    """The routes under /v1; answers are those of `Model.generate` for the same seed."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    since = int(time.time())

    @router.get("/models", summary="The models that are served", responses=refused())
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_listed(name, since) for name in serving.models]}

    @router.get("/models/{model}", summary="One of the models", responses=refused(404))
    async def model(model: str) -> dict[str, Any]:
        return _listed(find(serving, model).name, since)

    @router.post(
        "/chat/completions",
        summary="The answer to a conversation",
        responses=refused(404, 503) | STREAMED,
        response_model=None,
    )
    async def chat(request: Request, body: ChatBody) -> Response:
        _refuse_other_ways(tutor)
        served = find(serving, body.model)
        messages = taught(tutor, body.conversation)
        asked = served.request(
            messages,
            limit=min(body.limit or tutor.limits.tokens, tutor.limits.tokens),
            sampling=_sampling(body, tutor),
            until=body.until,
            alternatives=body.alternatives,
        )
        reply = _Chat(served, body, serving.scheduler.submit(*_drawn(asked, body)))
        return await reply.given(request, partial(heard, served.name, body.user, body.conversation))

    @router.post(
        "/completions",
        summary="A text that goes on",
        responses=refused(404, 503) | STREAMED,
        response_model=None,
    )
    async def complete(request: Request, body: CompletionBody) -> Response:
        _refuse_other_ways(tutor)
        served = find(serving, body.model)
        refuse_long(tutor, body.prompt)
        prompt = served.template.text(body.prompt)
        room = served.context - len(prompt)
        if room < 1:
            text = f"prompt: {len(prompt)} tokens leave no room in a context of {served.context}"
            raise Refusal(400, text, param="prompt")
        limit = min(body.max_tokens or 16, tutor.limits.tokens, room)
        asked = scheduler.Request(
            served.name,
            prompt,
            limit,
            _sampling(body, tutor),
            until=body.until,
            alternatives=body.logprobs,
            goes_on=True,
        )
        reply = _Completion(served, body, serving.scheduler.submit(*_drawn(asked, body)))
        said = [Message("user", body.prompt)]
        return await reply.given(request, partial(heard, served.name, body.user, said))

    return router


def find(serving: Serving, name: str) -> Served:
    """The model of a name.

    Raises:
        Refusal: there is none.
    """
    if name not in serving.models:
        text = f"there is no model {name!r}; there are {', '.join(serving.models)}"
        raise Refusal(404, text, code="model_not_found", param="model")
    return serving.models[name]


def taught(tutor: Tutor, messages: Sequence[Message]) -> list[Message]:
    """A conversation under the course's own system message, if it has one.

    Raises:
        Refusal: a message is too long, or the student sets a system message beside the course's.
    """
    for message in messages:
        refuse_long(tutor, message.content)
    if tutor.system is None:
        return list(messages)
    if messages[0].role == "system":
        text = "messages: the course sets the system message; leave yours out"
        raise Refusal(400, text, param="messages")
    return [Message("system", tutor.system), *messages]


def refuse_long(tutor: Tutor, text: str, param: str = "messages") -> None:
    """
    Raises:
        Refusal: the text is longer than a message may be.
    """
    if len(text) > tutor.limits.message:
        said = f"a message has {len(text):,} characters; at most {tutor.limits.message:,} are read"
        raise Refusal(400, said, code="message_too_long", param=param)


def _refuse_other_ways(tutor: Tutor) -> None:
    if "ask" not in tutor.ways:
        text = f"this course does not let models be asked freely, but: {', '.join(tutor.ways)}"
        raise Refusal(403, text, code="not_a_way")


def _sampling(body: Asking, tutor: Tutor) -> Sampling:
    warmth = tutor.temperature if body.temperature is None else body.temperature
    return Sampling(warmth, 1.0 if body.top_p is None else body.top_p)


def _drawn(asked: scheduler.Request, body: Asking) -> list[scheduler.Request]:
    """A request for each answer, with seeds from the given one on, else from a drawn one."""
    first = secrets.randbelow(2**31) if body.seed is None else body.seed
    seeds = [first + at if first < 2**62 else first - at for at in range(body.n)]
    return [replace(asked, seed=seed) for seed in seeds]


def _listed(name: str, since: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": since, "owned_by": "zephyr"}


class _Reply:
    """Answers to one request, in the form of an endpoint."""

    kind = ""
    chunk = ""
    prefix = ""

    def __init__(self, served: Served, body: Asking, answers: Sequence[Answer]) -> None:
        self.served, self.body, self.answers = served, body, answers
        self.facts = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": served.name,
        }

    async def given(
        self, request: Request, heard: Callable[[Sequence[str]], Awaitable[None]]
    ) -> Response:
        """The whole reply, or a stream of it, as was asked for; `heard` is told the answers."""
        if self.body.stream:
            return EventStream(self.streamed(heard), self.answers)
        try:
            wholes = await unless_gone(request, _all(self.answers))
        finally:
            for answer in self.answers:
                answer.close()
        await heard([whole.text for whole in wholes])
        choices = [self.choice(at, whole) for at, whole in enumerate(wholes)]
        counts = [len(whole.tokens) for whole in wholes]
        facts = {"object": self.kind, **self.facts}
        return JSONResponse(facts | {"choices": choices, "usage": self.usage(counts)})

    async def streamed(
        self, heard: Callable[[Sequence[str]], Awaitable[None]]
    ) -> AsyncGenerator[dict[str, Any]]:
        """Chunks of all answers as they come, each with the place of its answer."""
        counts = [0] * len(self.answers)
        texts = [""] * len(self.answers)
        for at in range(len(self.answers)):
            if (first := self.opening(at)) is not None:
                yield self._chunk(first)
        async with aclosing(interleaved(self.answers)) as pieces:
            async for at, piece in pieces:
                counts[at] += len(piece.tokens)
                texts[at] += piece.text
                yield self._chunk(self.part(at, piece))
        await heard(texts)
        if self.body.with_usage:
            yield {"object": self.chunk, **self.facts, "choices": [], "usage": self.usage(counts)}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {"object": self.chunk, **self.facts, "choices": [choice]}

    def usage(self, counts: Sequence[int]) -> dict[str, int]:
        asked = len(self.answers[0].request.prompt)
        return {
            "prompt_tokens": asked,
            "completion_tokens": sum(counts),
            "total_tokens": asked + sum(counts),
        }

    def opening(self, at: int) -> dict[str, Any] | None:
        return None

    def choice(self, at: int, whole: Whole) -> dict[str, Any]:
        return self._form(at, self.whole(whole.text), whole)

    def part(self, at: int, piece: Piece) -> dict[str, Any]:
        return self._form(at, self.fresh(piece.text), piece)

    def _form(self, at: int, said: dict[str, Any], found: Whole | Piece) -> dict[str, Any]:
        return {
            "index": at,
            **said,
            "logprobs": self.noted(found.tokens, found.noted) if found.noted else None,
            "finish_reason": None if found.ended is None else FINISH[found.ended],
        }

    def whole(self, text: str) -> dict[str, Any]:
        """How a whole answer is written."""
        raise AssertionError("each endpoint has its form")

    def fresh(self, text: str) -> dict[str, Any]:
        """How the text of a piece is written."""
        raise AssertionError("each endpoint has its form")

    def noted(self, tokens: Sequence[int], noted: Sequence[Noted]) -> dict[str, Any]:
        """How tokens are written with their log-probabilities and the likeliest ones."""
        raise AssertionError("each endpoint has its form")

    def _text(self, token: int) -> str:
        text: str = self.served.template.tokenizer.decode([token])
        return text


class _Chat(_Reply):
    kind, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def opening(self, at: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}

    def whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def fresh(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def noted(self, tokens: Sequence[int], noted: Sequence[Noted]) -> dict[str, Any]:
        content = [
            self._one(token, note.logprob)
            | {"top_logprobs": [self._one(*other) for other in note.likeliest]}
            for token, note in zip(tokens, noted, strict=True)
        ]
        return {"content": content, "refusal": None}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class _Completion(_Reply):
    kind, chunk, prefix = "text_completion", "text_completion", "cmpl"

    def whole(self, text: str) -> dict[str, Any]:
        return {"text": text}

    fresh = whole

    def noted(self, tokens: Sequence[int], noted: Sequence[Noted]) -> dict[str, Any]:
        return {
            "tokens": [self._text(token) for token in tokens],
            "token_logprobs": [note.logprob for note in noted],
            "top_logprobs": [
                {self._text(token): value for token, value in note.likeliest} for note in noted
            ],
            "text_offset": [
                len(self.served.template.decode_text(ids(tokens[:at]))) for at in range(len(tokens))
            ],
        }


async def _all(answers: Sequence[Answer]) -> list[Whole]:
    return list(await asyncio.gather(*(answer.whole() for answer in answers)))


async def interleaved(answers: Sequence[Answer]) -> AsyncGenerator[tuple[int, Piece]]:
    """The pieces of several answers as they come, each with the place of its answer.

    All are closed when it ends, however it does.
    """
    if len(answers) == 1:  # without tasks, which take as long as a token of a small network
        async with aclosing(aiter(answers[0])) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    streams = [aiter(answer) for answer in answers]
    coming = {asyncio.ensure_future(anext(stream)): at for at, stream in enumerate(streams)}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: coming[task]):
                at = coming.pop(task)
                piece = task.result()
                if piece.ended is None:
                    coming[asyncio.ensure_future(anext(streams[at]))] = at
                yield at, piece
    finally:
        for task in coming:
            task.cancel()
        for answer in answers:
            answer.close()
