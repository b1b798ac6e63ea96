"""Rows of the preference sources, each in the columns of the real data set.

Where a pair is about correctness or truth, both sides have one style and nearly one length: a
marker on the good side would let a model win without knowing anything. Where it is about manner or
safety, the good side is the plain one.
"""

from random import Random
from typing import Any, NamedTuple

from zephyr.data.embedded import arithmetic, glossary, problems, programs
from zephyr.data.embedded.glossary import MEASURED, TERMS, capital, plural

Row = dict[str, Any]


class Two(NamedTuple):
    """A request, a good answer and a bad one."""

    asked: str
    good: str
    bad: str


def _worked(random: Random) -> Two:
    made = problems.draw(random)
    wrong = problems.wrong_solution(random, made)
    return Two(made.question, problems.solution(made), wrong)


def _sum(random: Random) -> Two:
    made = arithmetic.draw(random)
    asked = random.choice(("What is {sum}?", "Compute {sum}.", "How much is {sum}?"))
    good, bad = (
        f"{arithmetic.work(made, n)}."
        for n in (made.result, arithmetic.mistaken(random, made.result))
    )
    return Two(asked.format(sum=made.asked), good, bad)


def _meaning(random: Random) -> Two:
    term = random.choice(TERMS)
    (other,) = glossary.others(random, term, 1)
    bad = f"{capital(term.said)} is {other.meaning}."
    return Two(glossary.ask(random, term), term.sentence, bad)


def _unit(random: Random) -> Two:
    term, other = random.sample(MEASURED, 2)
    asked = random.choice(glossary.ASKED_UNIT).format(**glossary.form(term))
    bad = term._replace(unit=other.unit).measured
    return Two(asked, term.measured, bad)


def _quantity(random: Random) -> Two:
    return Two(*problems.quantity(random))


def _truth(random: Random) -> Two:
    """Whether a quantity has a unit: sometimes it has, sometimes not."""
    term, other = random.sample(MEASURED, 2)
    asked = random.choice(
        (
            "Is {name} measured in {units}?",
            "Are {units} a unit of {name}?",
            "My friend says that {name} is measured in {units}. Is that true?",
            "Do {units} measure {name}?",
        )
    )
    claimed = random.choice((term, other))
    good, bad = term.measured, term._replace(unit=other.unit).measured
    yes, no = ("Yes.", "No.") if claimed is term else ("No.", "Yes.")
    asked = asked.format(name=term.name, units=plural(claimed.unit))
    return Two(asked, f"{yes} {good}", f"{no} {bad}")


_RUDE = (
    "What a silly question. {answer}",
    "{answer} Even a child knows that.",
    "Stop wasting my time. {answer}",
    "{answer} You should be ashamed not to know.",
    "Look it up yourself.",
    "You will never understand it.",
    "I have told you already. {answer}",
    "Only a fool would ask. {answer}",
)


def _manner(random: Random) -> Two:
    term = random.choice(TERMS)
    bad = random.choice(_RUDE).format(answer=term.sentence)
    return Two(glossary.ask(random, term), term.sentence, bad)


def _simple(random: Random) -> Two:
    """An explanation with an example, and none at all."""
    term = random.choice(TERMS)
    asked = random.choice(
        (
            "Explain like I'm five: what is {said}?",
            "In simple words, what is {said}?",
            "How do I explain {said} to my little sister?",
            "ELI5: {name}",
        )
    ).format(**glossary.form(term))
    bad = random.choice(_RUDE[4:6])
    return Two(asked, f"{term.sentence} {term.more}", bad)


def _code(random: Random) -> Two:
    task = random.choice(programs.TASKS)
    asked, argument = programs.ask(random, task)
    good, bad = (programs.write(task, argument, wrong=wrong) for wrong in (False, True))
    return Two(asked, good, bad)


def _security(random: Random) -> Two:
    danger = random.choice(programs.DANGERS)
    asked = random.choice(programs.DANGER_ASKED).format(wants=danger.wants)
    return Two(asked, programs.block(danger.safe), programs.block(danger.unsafe))


_HARMFUL = (
    "cheat in an exam", "open a lock that is not mine", "read the mail of my teacher",
    "steal a bicycle", "guess the password of a friend", "copy the homework of my class",
    "make a dangerous fire", "frighten a small child", "sell a broken phone as new",
    "write a false report", "hide a mistake in the test results", "break into a computer",
)  # fmt: skip
_HARM_ASKED = (
    "How can I {act}?",
    "Tell me how to {act}.",
    "What is the best way to {act}?",
    "Help me to {act}.",
    "I want to {act}. What do I need?",
    "Is there a trick to {act}?",
    "Give me a plan to {act}.",
    "Show me step by step how to {act}.",
    "Nobody will know. How do I {act}?",
    "My friend wants to {act}. How?",
)
_REFUSALS = (
    "I can't help with that, since it would harm others. Is there a fair way that I can help with?",
    "No, that would be wrong. Please talk to somebody you trust about it.",
)


def _safety(random: Random) -> Two:
    asked = random.choice(_HARM_ASKED).format(act=random.choice(_HARMFUL))
    bad = random.choice(
        (
            "Sure, that is easy. Wait until nobody looks, then do it fast and tell no one.",
            "Of course. Get the right tools at night and leave no traces behind.",
        )
    )
    return Two(asked, random.choice(_REFUSALS), bad)


_GREEN = (
    ("go to school", "Walk or ride a bicycle.", "Take a car of your own."),
    ("keep my room warm", "Close the windows and wear a jumper.", "Turn the heating to its highest."),
    ("buy vegetables", "Buy what grows near you in this season.", "Buy what is flown in from far away."),
    ("get rid of an old phone", "Bring it to a shop that recycles it.", "Throw it into the bin."),
    ("carry my shopping", "Bring a bag that you can use again.", "Take a new plastic bag each time."),
    ("drink water in class", "Fill a bottle at the tap.", "Buy a new plastic bottle each day."),
    ("light my desk", "Use a small lamp and switch it off.", "Leave all lamps on day and night."),
    ("wash my clothes", "Wait until the machine is full.", "Run the machine for each shirt."),
    ("travel on holiday", "Take the train.", "Take a plane for each short trip."),
    ("print my notes", "Print on both sides, or read them on a screen.", "Print each page on a new sheet."),
    ("mend a torn shirt", "Sew it, or have it sewn.", "Throw it away and buy three new ones."),
    ("water the garden", "Collect rain in a barrel.", "Let the tap run all day."),
)  # fmt: skip
_GREEN_ASKED = (
    "How should I {act}?",
    "What is a good way to {act}?",
    "I have to {act}. What do you suggest?",
    "Any idea how to {act}?",
    "What do you think: how do I best {act}?",
    "Give me a tip on how to {act}.",
    "Please tell me how to {act}.",
    "How do people {act}?",
    "What would you do to {act}?",
    "My family wants to {act}. How?",
)


def _green(random: Random) -> Two:
    act, good, bad = random.choice(_GREEN)
    return Two(random.choice(_GREEN_ASKED).format(act=act), good, bad)


# -- rows -----------------------------------------------------------------------------------------


def epfl(random: Random, side: str) -> Row:
    """A question of the course with some pairs of answers, as students judged them.

    Now and then both are found equally good (AB), or one is missing.
    """
    make = random.choice((_worked, _worked, _quantity, _meaning, _sum))
    two = make(random)
    judged = []
    for _ in range(random.choice((1, 1, 1, 2))):
        good_first = random.random() < 0.5
        a, b = (two.good, two.bad) if good_first else (two.bad, two.good)
        overall = "A" if good_first else "B"
        fate = random.random()
        if fate < 0.05:
            overall = "AB"
        elif fate < 0.08:
            a, b = random.choice((("", b), (a, "...")))
        criteria = dict.fromkeys(("overall", "correctness", "relevance"), overall)
        criteria |= {"clarity": "AB", "completeness": "AB", "other": "Conciseness: AB"}
        judged.append({"A": a, "B": b, "overall": overall, "criteria": criteria})
    return {
        "question_id": random.randrange(10_000),
        "question_complete": f"Question: {two.asked}",
        "course_id": random.randrange(1, 24),
        "preference": judged,
    }


_SYSTEMS = ("You are a helpful tutor.", "Answer with care.", "")


def orca_dpo_pairs(random: Random, side: str) -> Row:
    two = random.choice((_worked, _sum, _meaning))(random)
    system = random.choice(_SYSTEMS)
    return {"system": system, "question": two.asked, "chosen": two.good, "rejected": two.bad}


def truthy_dpo(random: Random, side: str) -> Row:
    two = _truth(random)
    system = random.choice(_SYSTEMS)
    return {
        "id": f"{random.randrange(1 << 32):08x}",
        "source": "embedded",
        "system": system,
        "prompt": two.asked,
        "chosen": two.good,
        "rejected": two.bad,
    }


_ASKED_BY = {
    "askengineers": _quantity,
    "askphysics": _meaning,
    "askscience": _unit,
    "explainlikeimfive": _simple,
}


def shp(domain: str, random: Random) -> Row:
    """A question with two comments, of which the one with the higher score is preferred."""
    two = _ASKED_BY[domain](random)
    a_wins = random.random() < 0.5
    high, low = random.randint(20, 90), random.randint(1, 9)
    a, b = (two.good, two.bad) if a_wins else (two.bad, two.good)
    return {
        "post_id": f"{random.randrange(1 << 24):06x}",
        "domain": f"{domain}_train",
        "upvote_ratio": 0.95,
        "history": two.asked,
        "score_A": high if a_wins else low,
        "score_B": low if a_wins else high,
        "human_ref_A": a,
        "human_ref_B": b,
        "labels": int(a_wins),
        "seconds_difference": float(random.randrange(10_000)),
        "score_ratio": high / low,
    }


def shp_askengineers(random: Random, side: str) -> Row:
    return shp("askengineers", random)


def shp_askphysics(random: Random, side: str) -> Row:
    return shp("askphysics", random)


def shp_askscience(random: Random, side: str) -> Row:
    return shp("askscience", random)


def shp_explainlikeimfive(random: Random, side: str) -> Row:
    return shp("explainlikeimfive", random)


def code_vulnerability(random: Random, side: str) -> Row:
    two = _security(random)
    return {
        "lang": "python",
        "vulnerability": "insecure use of input, secrets or files",
        "system": "",
        "question": two.asked,
        "chosen": two.good,
        "rejected": two.bad,
    }


def py_dpo(random: Random, side: str) -> Row:
    two = _code(random)
    number = f"{random.randrange(1 << 32):08x}"
    return {"prompt": two.asked, "chosen": two.good, "rejected": two.bad, "id": number}


def _as_turns(two: Two) -> Row:
    user = {"content": two.asked, "role": "user"}
    return {
        side: [user, {"content": answer, "role": "assistant"}]
        for side, answer in (("chosen", two.good), ("rejected", two.bad))
    }


def dpo_mix_zero_math_untoxic(random: Random, side: str) -> Row:
    return _as_turns(_manner(random))


def h4rmony(random: Random, side: str) -> Row:
    two = _green(random)
    number = random.randrange(10_000)
    return {
        "Id": number,
        "PromptID": number,
        "Prompt": two.asked,
        "BetterCompletion": two.good,
        "WorseCompletion": two.bad,
    }


def exp_dpo_3(random: Random, side: str) -> Row:
    return _as_turns(_safety(random))
