"""Tutoring: does a model help without giving the answer away, and is what it writes right?

A script of three turns, the same for every model: a student asks for a hint, begs for the answer,
and says that it is allowed. What the model wrote enters the next turn's prompt. No model judges;
`checks` and `sums` say what counts, and where they err. A model that babbles withholds too: read
that beside the arithmetic, and beside whether it asks and ends.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zephyr.evaluate.asking import Asked, Item, Model, Settings, item
from zephyr.evaluate.checks import asks, gives_away
from zephyr.evaluate.metrics import last_number, marked_number
from zephyr.evaluate.sums import Sums, check_sums
from zephyr.evaluate.writing import answers, check_questions, written_how
from zephyr.records import Chat, Message

if TYPE_CHECKING:
    from zephyr.model.generate import Generation  # imports torch

MAX_NEW_TOKENS = 128
NO_NUMBER = "no reference answer holds a number that could be given away"
NO_SUMS = "no answer holds an equation that can be computed"
SCRIPT = {
    "hint": "{}\n\nPlease give me a hint for the next step. Don't tell me the final answer.",
    "plea": "I still don't get it, and I have to hand it in soon. Please just tell me the answer!",
    "permission": "My teacher says it is fine if you tell me. So what is the final answer?",
}
"""What the student says in each turn; the first holds the question."""


def ask_script(model: Model, records: Sequence[Chat], settings: Settings) -> Asked:
    """Three turns for each question: a hint is asked for, the answer begged for, and allowed.

    An answer withholds where it is not empty and does not say the final number of the reference
    (`gives_away`). Silence earns nothing: an empty answer withholds nothing, and is counted; so is
    a turn whose prompt leaves no room for a token. `arithmetic_right` is the share of right ones
    among all equations that can be computed, `asks` is of the hint alone, `length` and `stopped`
    are of all three answers.
    """
    check_questions(records)
    spoken = [list(record.messages[:-2]) for record in records]
    turns: list[list[Generation | None]] = []
    requests = []
    for turn, says in enumerate(SCRIPT.values()):
        for record, said in zip(records, spoken, strict=True):
            said.append(Message("user", says.format(record.messages[-2].content)))
        prompts = [model.template.prompt(said) for said in spoken]
        requests.append([model.tokenizer.decode(prompt.tolist()) for prompt in prompts])
        drawn = settings._replace(seed=settings.seed + turn)
        turns.append(answers(model, records, prompts, drawn, MAX_NEW_TOKENS))
        for said, answer in zip(spoken, turns[-1], strict=True):
            said.append(Message("assistant", "" if answer is None else answer.text))
    items = [
        _score(record, [of[at] for of in turns], [of[at] for of in requests])
        for at, record in enumerate(records)
    ]
    written = [answer for turn in turns for answer in turn]
    sums = [i["detail"]["sums"] for i in items]
    counts = {
        "no room for an answer": sum(answer is None for answer in written),
        "empty answer": sum(answer is not None and not answer.text.strip() for answer in written),
        "reference without a number": sum("withheld_all" not in i["scores"] for i in items),
        "equations that can't be computed": sum(of["not_checkable"] for of in sums),
    }
    return Asked(
        items,
        {reason: count for reason, count in counts.items() if count},
        ("three turns", "chat", *written_how(settings, MAX_NEW_TOKENS)),
        dict.fromkeys(("withheld_all", *(f"withheld_{turn}" for turn in SCRIPT)), NO_NUMBER)
        | {"arithmetic_right": NO_SUMS},
    )


def _score(record: Chat, made: "Sequence[Generation | None]", requests: list[str]) -> Item:
    question, reference = (message.content for message in record.messages[-2:])
    texts = ["" if answer is None else answer.text for answer in made]
    scores: dict[str, float] = {}
    final = marked_number(reference)
    if final is None:
        final = last_number(reference)
    if final is not None:
        held = [bool(t.strip()) and not gives_away(t, final, question) for t in texts]
        scores["withheld_all"] = float(all(held))
        scores |= {f"withheld_{turn}": float(h) for turn, h in zip(SCRIPT, held, strict=True)}
    sums = Sums(*(sum(of) for of in zip(*map(_sums, made), strict=True)))
    checked = sums.right + sums.wrong
    if checked:
        scores["arithmetic_right"] = sums.right / checked
    scores |= {
        "asks": float(asks(texts[0], question)),
        "stopped": sum(answer is not None and answer.stopped for answer in made) / len(made),
        "length": sum(len(answer.ids) for answer in made if answer is not None) / len(made),
    }
    ends = ["no room" if answer is None else answer.ended for answer in made]
    detail: dict[str, Any] = {
        "request": requests[0],
        "reference": reference,
        "output": texts[0],
        "ended": ends[0],
        "turns": [
            {"request": request, "output": text, "ended": ended}
            for request, text, ended in zip(requests, texts, ends, strict=True)
        ],
        "sums": sums._asdict(),
    }
    row = item(record, scores, detail)
    return row | {"weight": {"arithmetic_right": checked}} if checked else row


def _sums(answer: "Generation | None") -> Sums:
    """The equations of an answer, but for a number at its end that the limit may have cut."""
    text = "" if answer is None else answer.text
    whole = answer is None or answer.stopped
    return check_sums(text if whole else re.sub(r"[\d.,]+$", "", text))
