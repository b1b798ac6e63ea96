"""Request schemas of the students' page (pydantic); unknown fields are an error."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from zephyr.records import Message
from zephyr.tutor.openai_schema import (
    MAX_TEXT_LENGTH,
    MAX_TURNS,
    ShortName,
    StrictModel,
    Text,
    check_turn_order,
)

Session = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,32}$")]
NonBlankText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH, pattern=r"\S")
]
Remark = Annotated[str, StringConstraints(max_length=1_000)]
Side = Literal["A", "B", "AB"]
"""AB: a tie."""


class SessionBody(StrictModel):
    """Base of requests within a session."""

    session: Session


class PageMessage(StrictModel):
    """One chat message: role and content."""

    role: Literal["system", "user", "assistant"]
    content: NonBlankText


class CompareBody(SessionBody):
    """Request for a pairwise comparison: a conversation that two models are to answer."""

    messages: Annotated[list[PageMessage], Field(min_length=1, max_length=MAX_TURNS)]

    @model_validator(mode="after")
    def _check_turn_order(self) -> Self:
        check_turn_order(self.conversation)
        return self

    @property
    def conversation(self) -> list[Message]:
        return [Message(turn.role, turn.content) for turn in self.messages]


class Criteria(StrictModel):
    """Criteria of a vote, beside which answer is better overall."""

    correctness: Side | None = None
    relevance: Side | None = None
    clarity: Side | None = None
    completeness: Side | None = None
    other: Remark | None = None


class VoteBody(SessionBody):
    """Request that votes which of two answers is better."""

    comparison: Id
    overall: Side
    criteria: Criteria = Criteria()


class RatingBody(SessionBody):
    """Request that rates an answer: thumbs up or down."""

    model: ShortName
    question: NonBlankText
    answer: Text
    rating: Literal["up", "down"]


class MarksBody(StrictModel):
    """Request that checks the equations of a text."""

    text: Text


class AnswerBody(SessionBody):
    """Request that answers a quiz question; the model answers it too."""

    quiz: Id
    chosen: Annotated[int, Field(ge=0, lt=26)]
    model: ShortName


class ExplainBody(SessionBody):
    """Request for an explanation of a quiz question by a model."""

    quiz: Id
    model: ShortName


class LadderBody(SessionBody):
    """Request for the first hint of a model to a question."""

    model: ShortName
    question: NonBlankText
