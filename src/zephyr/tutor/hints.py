"""Hint ladders: a question and the hints given so far (in memory, lost at a restart).

The prompt has the question, the earlier hints, and the next step's instruction, as turns of a
conversation.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zephyr.records import Message
from zephyr.tutor.settings import HintStep

MAX_LADDERS = 1_000
"""Capacity of the store; beyond it the least recently used ladder is evicted (LRU)."""


@dataclass(eq=False)
class Ladder:
    """The hints given to a question so far; `is_in_progress` while one is generated."""

    session: str
    model: str
    question: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    hints: list[str] = field(default_factory=list)
    is_in_progress: bool = False

    @property
    def step(self) -> int:
        """The number of the next step, from 0."""
        return len(self.hints)

    def messages(
        self, steps: Sequence[HintStep], fits: Callable[[Sequence[Message]], bool]
    ) -> list[Message]:
        """The conversation (prompt) whose completion is the next hint.

        The oldest hints are dropped until the prompt fits.
        """
        instruction = steps[self.step].ask
        for first in range(self.step):
            turns = self._turns(steps, first)
            turns.append(Message("user", instruction))
            if fits(turns):
                return turns
        return [Message("user", f"{self.question}\n\n{instruction}")]

    def _turns(self, steps: Sequence[HintStep], first: int) -> list[Message]:
        """The conversation so far: the question, and the hints from step `first` on, as turns."""
        turns: list[Message] = []
        for at in range(first, self.step):
            prompt = steps[at].ask if turns else f"{self.question}\n\n{steps[at].ask}"
            turns += (Message("user", prompt), Message("assistant", self.hints[at]))
        return turns


class LadderStore:
    """All students' ladders: an in-memory LRU store."""

    def __init__(self, max_ladders: int = MAX_LADDERS) -> None:
        self._ladders: OrderedDict[str, Ladder] = OrderedDict()
        self._max_ladders = max_ladders

    def add(self, ladder: Ladder) -> None:
        """Adds a new ladder."""
        self._ladders[ladder.id] = ladder
        if len(self._ladders) > self._max_ladders:
            self._ladders.popitem(last=False)

    def find(self, ladder: str, session: str) -> Ladder | None:
        """Finds a ladder of a session by id; None if it has no such ladder."""
        found = self._ladders.get(ladder)
        if found is None or found.session != session:
            return None
        self._ladders.move_to_end(ladder)
        return found

    def delete_session(self, session: str) -> None:
        """Deletes the ladders of a session."""
        for ladder in [found for found in self._ladders.values() if found.session == session]:
            del self._ladders[ladder.id]
