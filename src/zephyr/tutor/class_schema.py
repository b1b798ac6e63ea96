"""Request schemas of the class's page (pydantic); unknown fields are an error."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from zephyr.records import Message
from zephyr.tutor.openai_schema import (
    MAX_TEXT_LENGTH,
    MAX_TURNS,
    Body,
    Name,
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
"""AB: both are as good."""


class SessionBody(Body):
    """Who asks."""

    session: Session


class Turn(Body):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: NonBlankText


class CompareBody(SessionBody):
    """A conversation that two models are to answer."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_TURNS)]

    @model_validator(mode="after")
    def _check_turn_order(self) -> Self:
        check_turn_order(self.conversation)
        return self

    @property
    def conversation(self) -> list[Message]:
        return [Message(turn.role, turn.content) for turn in self.messages]


class Criteria(Body):
    """What a vote says beside which answer is better."""

    correctness: Side | None = None
    relevance: Side | None = None
    clarity: Side | None = None
    completeness: Side | None = None
    other: Remark | None = None


class VoteBody(SessionBody):
    """Which of two answers is better."""

    comparison: Id
    overall: Side
    criteria: Criteria = Criteria()


class RatingBody(SessionBody):
    """Whether an answer helped."""

    model: Name
    question: NonBlankText
    answer: Text
    rating: Literal["up", "down"]


class MarksBody(Body):
    """A text that is looked through."""

    text: Text


class AnswerBody(SessionBody):
    """What a student chose, and the model that is asked the same."""

    quiz: Id
    chosen: Annotated[int, Field(ge=0, lt=26)]
    model: Name


class ExplainBody(SessionBody):
    """A question of the quiz, and the model that is to explain it."""

    quiz: Id
    model: Name


class LadderBody(SessionBody):
    """A question to which a model is to give hints."""

    model: Name
    question: NonBlankText
