"""Ladders of hints: a question, and how far a student has climbed.

A model sees the question, the hints that it has given, and what the next step asks of it, as turns
of a conversation. Ladders are kept in memory: a class starts anew where the server does.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zephyr.records import Message
from zephyr.tutor.settings import Step

MOST = 1_000
"""Ladders that are kept; then the one that was used least recently is forgotten."""


@dataclass(eq=False)
class Ladder:
    """The hints that a student has been given to a question; `climbing` while one is written."""

    session: str
    model: str
    question: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    hints: list[str] = field(default_factory=list)
    climbing: bool = False

    @property
    def step(self) -> int:
        """The number of the next step, from 0."""
        return len(self.hints)

    def messages(
        self, steps: Sequence[Step], fits: Callable[[Sequence[Message]], bool]
    ) -> list[Message]:
        """What the model is to answer at the next step.

        Of earlier hints the oldest are left out until what remains fits.
        """
        ask = steps[self.step].ask
        for first in range(self.step):
            found = self._turns(steps, first)
            found.append(Message("user", ask))
            if fits(found):
                return found
        return [Message("user", f"{self.question}\n\n{ask}")]

    def _turns(self, steps: Sequence[Step], first: int) -> list[Message]:
        """The question, and the hints from a step on, each after what asked for it."""
        turns: list[Message] = []
        for at in range(first, self.step):
            asked = steps[at].ask if turns else f"{self.question}\n\n{steps[at].ask}"
            turns += (Message("user", asked), Message("assistant", self.hints[at]))
        return turns


class Ladders:
    """The ladders of all students."""

    def __init__(self, most: int = MOST) -> None:
        self._ladders: OrderedDict[str, Ladder] = OrderedDict()
        self._most = most

    def keep(self, ladder: Ladder) -> None:
        """Remembers a new ladder."""
        self._ladders[ladder.id] = ladder
        if len(self._ladders) > self._most:
            self._ladders.popitem(last=False)

    def find(self, ladder: str, session: str) -> Ladder | None:
        """A ladder of a session."""
        found = self._ladders.get(ladder)
        if found is None or found.session != session:
            return None
        self._ladders.move_to_end(ladder)
        return found

    def forget(self, session: str) -> None:
        """Removes the ladders of a session."""
        for ladder in [found for found in self._ladders.values() if found.session == session]:
            del self._ladders[ladder.id]
